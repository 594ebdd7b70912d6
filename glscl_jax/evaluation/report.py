"""report.html: a retrieval result to look at, in one file that asks nothing of the network.

The recall table and its pictures, then single queries, the best, the median and the worst: the
caption, the frames of the right video and of the one that came before it, how much each frame
counts, and how alike the concepts of the text and of the video are.
"""

import base64
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Sequence

import jinja2
import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.evaluation import plots
from glscl_jax.evaluation.query_examples import Example, Explainer, choose, data_uri
from glscl_jax.files import unfinished
from glscl_jax.models.heads.head import Head
from glscl_jax.retrieval import metrics
from glscl_jax.retrieval.encoding import EncodedSplit

NAME = "report.html"
# A score that differs by more from the head's was processed further.
ROUNDING = 0.01


def write_report(
    directory: str | os.PathLike,
    *,
    title: str,
    retrieval: metrics.Retrieval,
    encoded: EncodedSplit,
    scores_of: Callable[[int], np.ndarray],
    head: Head,
    frames_of: Callable[[str], list[np.ndarray]],
    examples: int = 5,
    intervals: dict[str, dict[str, Sequence[float]]] | None = None,
    notes: Sequence[str] = (),
    ranked: str = "after post-processing",
) -> pathlib.Path:
    """Writes report.html into `directory`, whole or not at all.

    Args:
      directory: made if it is not there.
      title: says what was evaluated, in a few words.
      retrieval: ranks of the A captions and of the B videos.
      encoded: the features that the ranks come from.
      scores_of: a caption's number -> float32 [B], what the videos were ranked by.
      head: what scored them, to take single scores apart.
      frames_of: a clip id -> its frames as they were encoded, in order, uint8 [h,w,3].
      examples: how many queries to show of the best, of the median and of the worst each.
      intervals: by direction ("t2v", "v2t") and figure ("R@1" ...), the low and the high end of
        its 95 % interval.
      notes: what a reader of the figures must not overlook; the page tells of ties itself.
      ranked: how scores of `scores_of` that are not the head's came about.

    Returns:
      the file's path.

    Raises:
      UserError: no examples are asked for, a video's frames are not those that were encoded, or
        the file cannot be written.
    """
    if examples < 1:
        raise UserError(f"a report with {examples} examples of each kind: show 1 or more")
    chosen = choose(retrieval.t2v.mean, encoded.owner, examples)
    explain = Explainer(encoded, scores_of, head, frames_of)
    groups = {
        name: [explain(int(a), retrieval.t2v) for a in queries] for name, queries in chosen.items()
    }
    page = _render(title, retrieval, encoded, groups, head, intervals or {}, notes, ranked)
    path = pathlib.Path(directory) / NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(path) as part:
            part.write_bytes(page)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    return path


@dataclasses.dataclass(frozen=True)
class Row:
    """A direction in the recall table: its ranks, and the ends of its figures' intervals."""

    ranks: metrics.Ranks
    intervals: dict[str, Sequence[float]]

    @property
    def figures(self) -> dict[str, float]:
        """Ties count as their mean rank."""
        return metrics.recalls(self.ranks.mean).as_dict()


def _sha256(text: str) -> str:
    """As a Content-Security-Policy names a style that may apply."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _render(
    title, retrieval, encoded, groups: dict[str, list[Example]], head, intervals, notes, ranked
) -> bytes:
    videos = len(encoded.clip_ids)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        # By name this would depend on the file's ending; captions are other people's text.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sha256": _sha256}
    pairs = [pair for group in groups.values() for one in group for pair in one.pairs]
    shown = [pair.concepts for pair in pairs if pair.concepts is not None]
    low, high = (float(f(shown)) if shown else 0.0 for f in (np.min, np.max))
    page = environment.get_template("report.html.j2").render(
        title=title,
        directions={
            label: Row(getattr(retrieval, name), intervals.get(name, {}))
            for name, label in plots.DIRECTIONS.items()
        },
        notes=notes,
        ranked=ranked,
        videos=videos,
        captions=len(encoded.captions),
        pictures=_pictures(retrieval, videos),
        groups=groups,
        head=head,
        rounding=ROUNDING,
        light=plots.LIGHT,
        dark=plots.DARK,
        scale=(low, high, plots.colours(np.linspace(low, high, 9), low, high)),
        colours=lambda values: plots.colours(values, low, high),
    )
    # A file name that is no UTF-8 is shown by its bytes.
    return page.encode("utf-8", errors="backslashreplace")


def _pictures(retrieval: metrics.Retrieval, videos: int) -> dict[str, dict[str, str]]:
    """SVG data URIs by picture and theme."""
    drawings = {"curves": plots.recall_curves, "histogram": plots.rank_histogram}
    themes = {"light": plots.LIGHT, "dark": plots.DARK}
    return {
        name: {
            key: data_uri(draw(retrieval, videos, theme), "image/svg+xml")
            for key, theme in themes.items()
        }
        for name, draw in drawings.items()
    }
