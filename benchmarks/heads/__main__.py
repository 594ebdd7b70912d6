"""What the similarity heads of GLSCL and its peers cost, by two counts, beside the published one.

    python -m benchmarks.heads
    python -m benchmarks.heads --texts 5000 --videos 100000

Nothing is run: the multiply-adds are derived from the formulas (benchmarks/heads/), and XLA
counts the program it is given for arrays that have a shape only.

Takes 10 s on 2 shared cores of an AMD EPYC.
"""

import dataclasses
import math
import textwrap

from absl import flags

from benchmarks.heads import dicosa, glscl, mean_pooling, x_pool, xla
from benchmarks.heads.head import Head, Sizes
from benchmarks.heads.published import PUBLISHED
from benchmarks.machine import machine
from glscl_jax.errors import UserError
from glscl_jax.runtime import program

HELP = {
    "texts": "A.",
    "videos": "B.",
    "words": "L, tokens a text; only the LIM's decoder sees them.",
    "frames": "V, frames a video.",
    "queries": "K, GLSCL's queries and DiCoSA's concepts.",
    "width": "D.",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
      label: a method, or a part of one.
      parts: the heads whose costs add up to it, each with how often it runs; empty where only
        the published figure is known.
      published: GFLOP at the default sizes, from the GLSCL paper's table of costs.
    """

    label: str
    parts: tuple[tuple[Head, int], ...] = ()
    published: float | None = None

    def multiply_adds(self, sizes: Sizes) -> int:
        return sum(times * head.multiply_adds(sizes) for head, times in self.parts)

    def xla_flops(self, sizes: Sizes) -> float:
        return sum(times * xla.flops(x.function, *x.inputs(sizes)) for x, times in self.parts)


def main(_):
    sizes = Sizes(**{name: flags.FLAGS[name].value for name in HELP})
    check(sizes)
    as_published = sizes == Sizes()
    print(
        f"similarity heads, {sizes.texts:,} texts x {sizes.videos:,} videos, D {sizes.width}, "
        f"V {sizes.frames}, L {sizes.words}, K {sizes.queries}, in units of 1e9"
    )
    print(machine())
    print(f"{'':<38}{'multiply-adds':>15}{'FLOPs by XLA':>15}{'published GFLOP':>18}")
    for row in rows(sizes):
        if row.parts or as_published:
            print_row(row, sizes, as_published)
    print()
    print(conclusion() if as_published else "The published figures are of the default sizes.")


def print_row(row: Row, sizes: Sizes, as_published: bool) -> None:
    counts = (row.multiply_adds(sizes), row.xla_flops(sizes)) if row.parts else ()
    ours, xla = (f"{count / 1e9:,.2f}" for count in counts) if counts else ("-", "-")
    published = row.published if as_published and row.published is not None else "-"
    print(f"{row.label:<38}{ours:>15}{xla:>15}{published!s:>18}")


def check(sizes: Sizes) -> None:
    """Raises `UserError` where a head could not be built."""
    if sizes.width % sizes.queries:
        raise UserError(
            f"--width {sizes.width} is no multiple of --queries {sizes.queries}, the number of "
            "concepts that DiCoSA cuts features into: change one of them"
        )
    if sizes.width % glscl.CONFIG.head.lim_heads:
        raise UserError(
            f"--width {sizes.width} is no multiple of {glscl.CONFIG.head.lim_heads}, the attention "
            "heads of GLSCL's decoder: choose another width"
        )


def rows(sizes: Sizes) -> tuple[Row, ...]:
    """Every method whose cost was published, GLSCL's in its parts.

    The released evaluation runs the decoder for the texts and the videos of every block of
    pairs: for a text once a column of blocks, for a video once a row of blocks.
    """
    down, across = (math.ceil(count / glscl.BLOCK) for count in (sizes.texts, sizes.videos))
    text, video = glscl.TEXT_DECODER, glscl.VIDEO_DECODER
    gflop = {name: published.gflop for name, published in PUBLISHED.items()}
    return (
        Row("CLIP4Clip (mean pooling)", ((mean_pooling.HEAD, 1),), gflop["CLIP4Clip"]),
        Row("DiCoSA", ((dicosa.HEAD, 1),), gflop["DiCoSA"]),
        Row("GLSCL, score, this project", ((glscl.SCORE, 1),), gflop["GLSCL"]),
        Row("GLSCL, score, as written", ((glscl.WRITTEN, 1),), gflop["GLSCL"]),
        Row("  its LIM decoder, once an item", ((text, 1), (video, 1))),
        Row("  its LIM decoder, in every 16 x 16", ((text, across), (video, down))),
        Row("CenterCLIP", published=gflop["CenterCLIP"]),
        Row("TS2-Net", published=gflop["TS2-Net"]),
        Row("X-CLIP", published=gflop["X-CLIP"]),
        Row("X-Pool, score, this project", ((x_pool.SCORE, 1),)),
        Row("X-Pool, as written", ((x_pool.HEAD, 1),), gflop["X-Pool"]),
        Row("Prompt Switch", published=gflop["Prompt Switch"]),
    )


def conclusion() -> str:
    """What the counts say of the published 1.0 GFLOP, at the sizes it was published for."""
    sizes = Sizes()
    inner = sizes.pairs * sizes.width / 1e9
    ours, written, decoder, peer, same = (
        sum(head.multiply_adds(sizes) for head in heads) / 1e9
        for heads in (
            (glscl.SCORE,),
            (glscl.WRITTEN,),
            (glscl.TEXT_DECODER, glscl.VIDEO_DECODER),
            (x_pool.HEAD,),
            (x_pool.SCORE,),
        )
    )
    sentences = (
        f"The published 1.0 for GLSCL equals two inner products of D numbers a pair "
        f"({2 * inner:.2f} G multiply-adds), as CLIP4Clip's 0.5 equals one; but the weights of "
        f"the frames alone take V inner products a pair and the LIM takes K, so the score costs "
        f"{ours:.1f} G multiply-adds as this project computes it and {written:.1f} G as written.",
        f"By that one count X-Pool's head costs {peer / ours:.0f} times this project's score and "
        f"{peer / written:.0f} times the score as written, not 275 times; X-Pool's as this project "
        f"computes it, the same number from features, takes {same:.1f} G.",
        f"The LIM decoder, once an item, adds {decoder:.0f} G, which leaves "
        f"{peer / (ours + decoder):.1f} times at this size; that part grows with A + B, not with "
        f"A x B, and a video's can be kept.",
    )
    return textwrap.fill(" ".join(sentences), width=95)


def _define_flags() -> None:
    for field in dataclasses.fields(Sizes):
        flags.DEFINE_integer(field.name, field.default, HELP[field.name], lower_bound=1)


if __name__ == "__main__":
    _define_flags()
    program.run(main)
