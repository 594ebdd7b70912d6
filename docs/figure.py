"""Draws the README's figure: `python docs/figure.py` writes docs/glscl.svg."""

import pathlib

import matplotlib as mpl
from matplotlib import patches
from matplotlib import pyplot as plt

BLUE, ORANGE, GREEN, GREY = "#dbe9f6", "#fde5cc", "#dcf0dc", "#eeeeee"
# Nothing is behind the boxes but the page, white or dark: what stands there can be read on both.
ON_PAGE = "#767c85"


def box(axes, x, y, width, text, colour):
    """A rounded box around the point (x, y)."""
    height = 0.62
    shape = patches.FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0.02,rounding_size=0.1",
        facecolor=colour,
        edgecolor=ON_PAGE,
        linewidth=0.8,
    )
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", fontsize=8.5, color="#16191f")


def arrow(axes, start, end):
    """From one point to another."""
    style = {"arrowstyle": "-|>", "color": ON_PAGE, "lw": 0.9}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)


def note(axes, x, y, text):
    """What flows along an arrow."""
    axes.text(x, y, text, ha="center", fontsize=7.5, color=ON_PAGE)


def draw() -> plt.Figure:
    """Texts above, videos below, the two scores between them."""
    figure, axes = plt.subplots(figsize=(9.2, 3.3))
    axes.set(xlim=(0, 12.6), ylim=(0, 4.2))
    axes.axis("off")

    box(axes, 0.95, 3.6, 1.6, "caption", GREY)
    box(axes, 3.35, 3.6, 2.1, "CLIP text tower", BLUE)
    box(axes, 0.95, 0.6, 1.6, "V frames", GREY)
    box(axes, 3.35, 0.6, 2.1, "CLIP vision tower", ORANGE)
    box(axes, 6.05, 0.6, 2.2, "temporal module", ORANGE)
    box(axes, 8.4, 2.1, 2.3, "LIM: K queries,\nshared decoder", GREEN)
    box(axes, 8.4, 3.6, 2.5, "GIM: frames pooled\nfor the sentence", GREEN)
    box(axes, 11.5, 2.85, 2.0, "score\nGIM + 0.5 LIM", GREY)

    arrow(axes, (1.8, 3.6), (2.25, 3.6))
    arrow(axes, (1.8, 0.6), (2.25, 0.6))
    arrow(axes, (4.45, 0.6), (4.9, 0.6))
    arrow(axes, (4.45, 3.65), (7.1, 3.65))
    arrow(axes, (4.45, 3.4), (7.2, 2.3))
    arrow(axes, (6.7, 0.95), (7.6, 1.75))
    arrow(axes, (6.2, 0.95), (7.4, 3.25))
    arrow(axes, (9.7, 3.6), (10.45, 3.1))
    arrow(axes, (9.6, 2.1), (10.45, 2.6))
    note(axes, 5.7, 3.75, "sentence c [A,D]")
    note(axes, 5.0, 2.65, "tokens [A,L,D]")
    note(axes, 5.2, 1.45, "frame features f [B,V,D]")
    note(axes, 9.45, 1.25, "concepts q: [A,K,D] and [B,K,D],\nonce a text and once a video")
    note(axes, 10.35, 3.5, "[A,B]")
    note(axes, 10.35, 2.0, "[A,B]")
    return figure


if __name__ == "__main__":
    # The same bytes every time.
    mpl.rcParams["svg.hashsalt"] = "glscl"
    target = pathlib.Path(__file__).with_name("glscl.svg")
    draw().savefig(target, bbox_inches="tight", transparent=True, metadata={"Date": None})
    print(f"wrote {target.name}")
