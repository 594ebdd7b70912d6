"""What the scores of all pairs cost: against the released way, against N, in memory, on a GPU.

    python -m benchmarks.similarity              all parts
    python -m benchmarks.similarity --part=c     one of them

    a  1,000 x 1,000 as this project computes it, and as released
    b  cost against N: the part of every item and that of every pair
    c  the memory that ranks of 2,000 texts among 100,000 videos take
    d  10,000 x 1,000,000 on a GPU, beside the speed of its matrix products

All start from what CLIP's towers and the temporal module give: text tokens and frame features,
here random numbers, of the paper's sizes (K 8, V 12, L 32, D 512).

Takes about 6 minutes on 2 cores of an Intel Xeon, part d left out.
"""

from absl import flags

from benchmarks.machine import machine
from benchmarks.similarity import cost, memory, released, stream
from glscl_jax.runtime import program

PARTS = {
    "a": released.main,
    "b": cost.main,
    "c": memory.main,
    "d": stream.main,
}
PART = flags.DEFINE_enum("part", "all", [*PARTS, "all"], "Which part to run.")


def main(_):
    print(machine())
    for name, run in PARTS.items():
        if PART.value in (name, "all"):
            print(f"\n({name})", flush=True)
            run()


if __name__ == "__main__":
    program.run(main)
