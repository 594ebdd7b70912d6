"""A small split whose report is written, and its page read."""

import base64
import colorsys
import io
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from glscl_jax.evaluation import report
from glscl_jax.models.heads.features import TextFeatures, VideoFeatures
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.retrieval import metrics
from glscl_jax.retrieval.encoding import EncodedSplit

A, B, V, K, D = 9, 6, 4, 3, 16
OWNER = np.array([0, 0, 1, 2, 2, 3, 4, 5, 5])
FRAMES = np.array([4, 4, 3, 1, 4, 2])
TEMPERATURE, LIM_WEIGHT = 3.0, 0.5
HEAD = GLSCLHead(TEMPERATURE, LIM_WEIGHT)
ATTACK = "<script>alert(1)</script> \"&amp;'<img src=x onerror=alert(2)> {{ title }}"


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def colour(b: int, v: int) -> tuple[int, ...]:
    """A pure colour of its own for every frame: 24 hues."""
    hue = (b * V + v) / (B * V)
    return tuple(round(255 * x) for x in colorsys.hsv_to_rgb(hue, 1, 1))


def frames_of(clip_id: str) -> list[np.ndarray]:
    b = int(clip_id.split("&")[0].removeprefix("clip"))
    return [np.full((240, 320, 3), colour(b, v), np.uint8) for v in range(FRAMES[b])]


class Split:
    """Random features of the right shapes, padded frames and all, scored by the library."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        mask = (np.arange(V) < FRAMES[:, None]).astype(np.int32)
        text = TextFeatures(
            rng.normal(size=(A, D)).astype(np.float32), unit(rng.normal(size=(A, K, D)))
        )
        video = VideoFeatures(
            rng.normal(size=(B, V, D)).astype(np.float32), mask, unit(rng.normal(size=(B, K, D)))
        )
        captions = [ATTACK, "two\nlines", "رجل يطبخ", *(f"caption {a}" for a in range(3, A))]
        clip_ids = [f"clip{b}&<b>" for b in range(B)]
        self.encoded = EncodedSplit(
            text, video, OWNER, captions, clip_ids, frames_decoded=int(FRAMES.sum()), seconds={}
        )
        self.scores = np.asarray(HEAD.score(text, video))

    def write(self, folder, **changes):
        settings = {
            "title": "A title & <more>",
            "retrieval": metrics.retrieval(self.scores, OWNER),
            "encoded": self.encoded,
            "scores_of": lambda a: self.scores[a],
            "head": HEAD,
            "frames_of": frames_of,
            "examples": 3,
        }
        return report.write_report(folder, **settings | changes)


class Page(HTMLParser):
    """Elements in order, as (tag, attributes), and the text within every kind of tag."""

    VOID = ("meta", "img", "source")

    def __init__(self, content: str):
        super().__init__()
        self.elements, self.open, self.texts = [], [], {}
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]][-1] += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def decoded(uri: str) -> Image.Image:
    kind, content = uri.split(";base64,")
    assert kind == "data:image/jpeg"
    image = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
    image.load()
    return image
