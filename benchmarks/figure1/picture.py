"""The figure: R@1 against multiply-adds, the demo's beside the published one."""

import pathlib

from benchmarks import pictures
from benchmarks.figure1.results import PROTOCOLS, RUNS, Results
from benchmarks.figure1.settings import DEMO, PAPER
from benchmarks.figure1.tables import METHODS
from benchmarks.heads.published import PUBLISHED

_GIGA = 1e9
# Factors on the cost, so that two intervals of one head do not cover each other.
_ASIDE = {"end_to_end": 0.96, "from_features": 1.04}
_MARKERS = {"end_to_end": "o", "from_features": "s"}
_COLOURS = {"end_to_end": pictures.BLUE, "from_features": pictures.ORANGE}
# Where a label stands, beside its point, in points: what is near another goes another way.
_LABELS = {
    "mean_pooling": ((7, -3), "left"),
    "glscl": ((6, -10), "left"),
    "x_pool": ((6, -9), "left"),
    "wti": ((-6, 5), "right"),
    "CLIP4Clip": ((2, -13), "left"),
    "DiCoSA": ((-2, 7), "left"),
    "GLSCL": ((6, 4), "left"),
    "CenterCLIP": ((7, -3), "left"),
    "X-CLIP": ((-7, -3), "right"),
    "X-Pool": ((-6, 5), "right"),
    "Prompt Switch": ((-7, 3), "right"),
}
_USUAL = ((6, 5), "left")


def draw(results: Results, target: pathlib.Path) -> None:
    """Writes the picture, an SVG file."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter

    pictures.settle()
    figure, (ours, published) = plt.subplots(1, 2, figsize=(9.2, 4.0), layout="constrained")
    _draw_demo(ours, results)
    _draw_published(published)
    for axes in (ours, published):
        axes.set(xscale="log", ylabel="R@1, %")
        # Of less than two decades matplotlib would name 2, 3, 4 and 6, one over the other.
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.legend(frameon=False, labelcolor=pictures.GREY, loc="lower right", fontsize=8)
        pictures.on_any_background(axes)
    pictures.save(figure, target)


def _draw_demo(axes, results: Results) -> None:
    for protocol, told in PROTOCOLS.items():
        names = [name for name in RUNS if (name, protocol) in results]
        if not names:
            continue
        found = [results[name, protocol].recall() for name in names]
        costs = [_ASIDE[protocol] * DEMO.pairs(RUNS[name]) / _GIGA for name in names]
        values = [x.value for x in found]
        below = [x.value - x.low for x in found]
        above = [x.high - x.value for x in found]
        axes.errorbar(
            costs,
            values,
            yerr=[below, above],
            fmt=_MARKERS[protocol],
            color=_COLOURS[protocol],
            markersize=4.5,
            elinewidth=1,
            label=told,
        )
        # Of two protocols a head is named at the first.
        for name, cost, value in zip(names, costs, values, strict=True):
            if protocol == "end_to_end" or (name, "end_to_end") not in results:
                _name(axes, name, cost, value)
    axes.set(
        title="the demo, means of seeds with 95 % intervals",
        xlabel="multiply-adds of 1,000 x 1,000, G",
    )


def _draw_published(axes) -> None:
    known = {name: point for name, point in PUBLISHED.items() if point.recall is not None}
    points = known.values()
    style = {"color": pictures.ORANGE, "markersize": 4.5, "zorder": 3}
    label = "as published"
    axes.plot([x.gflop for x in points], [x.recall for x in points], "D", label=label, **style)
    for method, point in known.items():
        _name(axes, method, point.gflop, point.recall)
    drawn = {head: method for head, method in METHODS.items() if method in known}
    for number, (head, method) in enumerate(drawn.items()):
        point, own = known[method], PAPER.pairs(head) / _GIGA
        axes.plot(
            [point.gflop, own],
            [point.recall] * 2,
            ":",
            color=pictures.GREY,
            linewidth=0.9,
            zorder=1,
        )
        label = None if number else "the same R@1 at this project's multiply-adds"
        style = {"markerfacecolor": "none", "color": pictures.BLUE, "markersize": 5.5}
        axes.plot([own], [point.recall], "o", label=label, **style)
    axes.set(
        title="MSR-VTT 1k-A, ViT-B/32, as published",
        xlabel="GFLOP or G multiply-adds of 1,000 x 1,000",
        ylim=(min(x.recall for x in points) - 1.6, max(x.recall for x in points) + 0.5),
    )


def _name(axes, name: str, cost: float, value: float) -> None:
    offset, side = _LABELS.get(name, _USUAL)
    text = "mean, no module over time" if name == "mean_pooling" else name
    where = {"xytext": offset, "textcoords": "offset points", "ha": side}
    axes.annotate(text, (cost, value), color=pictures.GREY, fontsize=8, **where)
