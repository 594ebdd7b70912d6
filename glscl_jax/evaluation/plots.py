"""Pictures of a retrieval result: recall-at-k curves, a histogram of ranks, colours of a matrix.

Drawn with matplotlib's objects, without pyplot and its windows. Nothing else imports matplotlib,
and here it is imported where something is drawn: a program that draws nothing starts without it.
"""

import dataclasses
import io
import itertools

import numpy as np

from glscl_jax import figures
from glscl_jax.figures import RECALLS_AT
from glscl_jax.retrieval.metrics import Retrieval

DIRECTIONS = {name: label.replace("-", " ") for name, label in figures.DIRECTIONS.items()}
# From low to high, readable by the colour-blind and in print.
COLOUR_MAP = "viridis"
# Inches; a figure fills a phone's width with letters that can still be read.
SIZE = (4.5, 3.1)
# No date and no address of a web page.
NO_METADATA = {"Date": None, "Creator": None}


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours as CSS writes them, of the page and of its pictures alike.

    Attributes:
      paper: behind everything.
      card: behind a picture.
      ink: text.
      muted: text of less weight, axes.
      line: rules and grids.
      t2v, v2t: the two directions.
    """

    paper: str
    card: str
    ink: str
    muted: str
    line: str
    t2v: str
    v2t: str


LIGHT = Theme("#f4f5f7", "#ffffff", "#16191f", "#59606c", "#dde0e5", "#1d5fc4", "#b8500c")
DARK = Theme("#101318", "#1a1e25", "#eceef2", "#a4acb9", "#353b46", "#84b4ff", "#ffae66")


def recall_curves(result: Retrieval, items: int, theme: Theme) -> bytes:
    """Share of queries whose right item is among the first k, for every k; an SVG file.

    Args:
      result: ranks of both directions; ties count by their mean rank.
      items: how many items a query ranks, B in both directions.
      theme: the colours.
    """
    figure, axes = _figure(theme)
    last = max(items, 2)
    for name, label in DIRECTIONS.items():
        ranks = getattr(result, name).mean
        # A curve rises at ranks alone.
        k = np.unique([1, *ranks, last])
        style = "-" if name == "t2v" else (0, (5, 1.5))
        line = {"color": getattr(theme, name), "lw": 2, "ls": style}
        axes.step(k, recalls_at(ranks, k), where="post", label=label, **line)
    chance = np.geomspace(1, last, 200)
    axes.plot(chance, 100 * chance / items, ":", color=theme.muted, lw=1.4, label="chance")
    axes.set(xscale="log", xlim=(1, last), ylim=(0, 102), xlabel="k", ylabel="recall at k, %")
    # The last tick is the gallery's size; one just before it would run into it.
    ticks = [k for k in bin_edges(last)[1:] if k == last or 1.6 * k < last]
    axes.set_xticks(ticks, [_short(k) for k in ticks])
    axes.minorticks_off()
    _legend(axes, theme)
    return _svg(figure)


def rank_histogram(result: Retrieval, items: int, theme: Theme) -> bytes:
    """Share of queries by the place of their right item; an SVG file. See `recall_curves`."""
    figure, axes = _figure(theme)
    edges = bin_edges(items)
    places, width = np.arange(len(edges) - 1), 0.4
    highest = 0.0
    for side, (name, label) in enumerate(DIRECTIONS.items()):
        heights = shares(getattr(result, name).mean, edges)
        highest = max(highest, heights.max())
        bars = axes.bar(
            places + (side - 0.5) * width,
            heights,
            0.92 * width,
            color=getattr(theme, name),
            label=label,
            # Told apart without colour too, as the curves are.
            hatch=None if name == "t2v" else "////",
            edgecolor=theme.card,
            linewidth=0,
        )
        axes.bar_label(
            bars,
            [_percent(height) for height in heights],
            color=theme.ink,
            fontsize=8.5,
            padding=1.5,
        )
    axes.set(xlabel="rank of the right item", ylabel="queries, %", ylim=(0, 1.15 * highest))
    axes.set_xticks(places, _ranges(edges))
    axes.grid(visible=False, axis="x")
    _legend(axes, theme)
    return _svg(figure)


def recalls_at(ranks: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Percent of ranks [queries] that are at most k, for every k of an array."""
    return 100 * np.searchsorted(np.sort(ranks), k, side="right") / len(ranks)


def shares(ranks: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Percent of ranks above one edge and up to the next, [edges - 1]."""
    return np.diff(recalls_at(ranks, edges))


def bin_edges(items: int) -> np.ndarray:
    """0, 1, 5, 10, 50, 100, 500 and so on below `items`, then `items`."""
    edges = [0, *RECALLS_AT]
    while edges[-1] < items:
        edges += [2 * edges[-1], 10 * edges[-1]]
    return np.array([*(edge for edge in edges if edge < items), items])


def colours(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Numbers as colours "#rrggbb", an array of strings of the same shape.

    Args:
      values: any shape.
      low, high: the ends of the scale; what lies beyond takes an end's colour.
    """
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    places = (np.asarray(values, np.float64) - low) / max(high - low, 1e-12)
    flat = mpl.colormaps[COLOUR_MAP](np.clip(places, 0, 1).ravel())
    return np.array([to_hex(colour) for colour in flat]).reshape(np.shape(values))


def _short(k: int) -> str:
    return f"{k / 1000:g}k" if k >= 1000 and k % 100 == 0 else f"{k:,}"


def _percent(share: float) -> str:
    return "" if share == 0 else "<1" if share < 1 else f"{share:.0f}"


def _ranges(edges: np.ndarray) -> list[str]:
    """A bin's name: "1", "2 to 5" and so on, for a rank is above its lower edge."""
    return [
        _short(high) if low + 1 == high else f"{_short(low + 1)} to\n{_short(high)}"
        for low, high in itertools.pairwise(edges)
    ]


def _figure(theme: Theme):
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained", facecolor=theme.card)
    axes = figure.add_subplot(facecolor=theme.card)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.muted)
    axes.tick_params(colors=theme.muted, labelsize=9)
    axes.xaxis.label.set_color(theme.ink)
    axes.yaxis.label.set_color(theme.ink)
    axes.grid(color=theme.line, lw=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _legend(axes, theme: Theme) -> None:
    axes.legend(frameon=False, labelcolor=theme.ink, fontsize=9.5)


def _svg(figure) -> bytes:
    """The same figure gives the same bytes."""
    import matplotlib as mpl

    out = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "glscl", "svg.fonttype": "path"}):
        figure.savefig(out, format="svg", facecolor=figure.get_facecolor(), metadata=NO_METADATA)
    return out.getvalue()
