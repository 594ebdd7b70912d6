"""Single queries taken apart: the best, the median and the worst, as the report shows them."""

import base64
import collections
import dataclasses
import io
from collections.abc import Callable

import jax
import numpy as np
from PIL import Image

from glscl_jax.errors import UserError
from glscl_jax.models.heads.explanation import Part
from glscl_jax.models.heads.head import Head
from glscl_jax.retrieval.encoding import EncodedSplit
from glscl_jax.retrieval.metrics import Ranks

# Frames of a long strip are shown half as wide. The longer side in pixels, and JPEG's quality:
# a few kilobytes a frame.
SHORT_STRIP = 12
FRAME_PIXELS = {"short": 160, "long": 96}
FRAME_QUALITY = 75


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame as the page shows it: a JPEG data URI, its size in pixels, how much it counts."""

    source: str
    width: int
    height: int
    weight: float


@dataclasses.dataclass(frozen=True)
class Pair:
    """A caption and a video, and how their score comes about.

    Attributes:
      clip_id: of the video.
      right: whether the caption describes it.
      score: what the video was ranked by.
      parts: of the head's score.
      unchanged: the head's score, without post-processing.
      frames: the real ones, in order.
      padding: the weight that fell on padded frames, before they were masked.
      concepts: float32 [K,K], <q^t_i, q^v_j>, of which the last part is the mean of the diagonal;
        None where there are none.
    """

    clip_id: str
    right: bool
    score: float
    parts: tuple[Part, ...]
    unchanged: float
    frames: list[Frame]
    padding: float
    concepts: np.ndarray | None

    @property
    def long(self) -> bool:
        """Whether the frames are more than two rows of the page hold."""
        return len(self.frames) > SHORT_STRIP


@dataclasses.dataclass(frozen=True)
class Example:
    """A query: its caption, its rank among ties (first, last and mean), the videos shown."""

    caption: str
    rank: float
    first: int
    last: int
    pairs: list[Pair]


def choose(ranks: np.ndarray, owner: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Which queries to show: the best, the worst, and those nearest the median rank.

    Equal ranks are taken in a random order that is the same every time, and among them a video
    comes once before one comes again: else the best would be the first video's captions.

    Args:
      ranks: [A], 1 is best.
      owner: int [A], the video each caption describes.
      count: of a group; fewer where there are not 3 * count queries.

    Returns:
      int [<= count] by "best", "median" and "worst"; no query is in two of them.
    """
    shuffled = np.random.default_rng(0).permutation(len(ranks))
    keys = {"best": ranks, "worst": -ranks, "median": abs(ranks - np.median(ranks))}
    groups, taken = {}, np.zeros(len(ranks), bool)
    for name, key in keys.items():
        order = _videos_in_turn(shuffled, key, owner)
        groups[name] = order[~taken[order]][: min(count, -(-len(ranks) // 3))]
        taken[groups[name]] = True
    return {name: groups[name] for name in ("best", "median", "worst")}


def _videos_in_turn(order: np.ndarray, key: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """`order` sorted by `key`; among equals every video comes once before one comes again."""
    turns, seen = np.empty(len(order), int), collections.Counter()
    for query in order:
        place = key[query], owner[query]
        turns[query] = seen[place]
        seen[place] += 1
    return order[np.lexsort([turns[order], key[order]])]


@dataclasses.dataclass(frozen=True)
class Explainer:
    """Takes single scores apart; the fields are arguments of `report.write_report`."""

    encoded: EncodedSplit
    scores_of: Callable[[int], np.ndarray]
    head: Head
    frames_of: Callable[[str], list[np.ndarray]]

    def __call__(self, a: int, ranks: Ranks) -> Example:
        """The caption with its video and, unless that is alone in front, the best other one."""
        scores = np.asarray(self.scores_of(a), np.float32)
        right = int(self.encoded.owner[a])
        shown = [right]
        if ranks.pessimistic[a] > 1:
            others = np.where(np.arange(len(scores)) == right, -np.inf, scores)
            shown.append(int(np.argmax(others)))
        return Example(
            caption=self.encoded.captions[a],
            rank=float(ranks.mean[a]),
            first=int(ranks.optimistic[a]),
            last=int(ranks.pessimistic[a]),
            pairs=[self.pair(a, b, float(scores[b]), b == right) for b in shown],
        )

    def pair(self, a: int, b: int, score: float, right: bool) -> Pair:
        """Caption a and video b."""
        text = jax.tree.map(lambda x: np.asarray(x[a]), self.encoded.text)
        video = jax.tree.map(lambda x: np.asarray(x[b]), self.encoded.video)
        explanation = self.head.explain(text, video)
        weights = np.asarray(explanation.weights)
        return Pair(
            clip_id=self.encoded.clip_ids[b],
            right=right,
            score=score,
            parts=explanation.parts,
            unchanged=explanation.score,
            frames=self.strip(b, weights[video.mask > 0]),
            padding=float(1 - weights.sum()),
            concepts=None if explanation.concepts is None else np.asarray(explanation.concepts),
        )

    def strip(self, b: int, weights: np.ndarray) -> list[Frame]:
        """The frames of video b with their weights [real frames]; raises as `write_report`."""
        clip_id = self.encoded.clip_ids[b]
        frames = self.frames_of(clip_id)
        if len(frames) != len(weights):
            raise UserError(
                f"clip {clip_id!r} has {len(frames)} frames, but {len(weights)} were encoded: "
                "the data was prepared anew since; evaluate again"
            )
        pixels = FRAME_PIXELS["long" if len(frames) > SHORT_STRIP else "short"]
        return [_frame(image, float(w), pixels) for image, w in zip(frames, weights, strict=True)]


def _frame(image: np.ndarray, weight: float, pixels: int) -> Frame:
    """A frame uint8 [h,w,3], its longer side made `pixels` at most."""
    small = Image.fromarray(image)
    small.thumbnail((pixels, pixels), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=FRAME_QUALITY, optimize=True)
    return Frame(data_uri(out.getvalue(), "image/jpeg"), *small.size, weight)


def data_uri(content: bytes, kind: str) -> str:
    """A file of that MIME type as an address that holds it whole."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
