"""How the benchmarks' pictures look: drawn on whatever page is behind them, the same every time."""

import pathlib

# Read on white and on black, and told apart by the colour-blind.
BLUE, ORANGE, VIOLET, GREY = "#0a84d0", "#e08214", "#c2549d", "#808890"


def settle() -> None:
    """Before anything is drawn: text stays text, and the same bytes come out every time."""
    import matplotlib as mpl

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "glscl", "font.size": 9})


def on_any_background(axes) -> None:
    """Greys that can be read on white and on black."""
    axes.grid(color=GREY, alpha=0.25, linewidth=0.6)
    axes.tick_params(colors=GREY)
    for part in (axes.title, axes.xaxis.label, axes.yaxis.label):
        part.set_color(GREY)
    for spine in axes.spines.values():
        spine.set_color(GREY)


def save(figure, target: pathlib.Path) -> None:
    """Writes an SVG file, and forgets the figure."""
    from matplotlib import pyplot as plt

    figure.savefig(target, transparent=True, metadata={"Date": None})
    plt.close(figure)
