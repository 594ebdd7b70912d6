"""RandAugment of clips on the device, as training does it, beside Pillow's on the processor.

    python -m benchmarks.augmentation
    python -m benchmarks.augmentation --clips=64 --rounds=5

The same draws on the same clips of 12 frames of 224 x 224, in turns: compiled by JAX for the
default device, and by Pillow, a frame at a time, on one core, which is the way of the reference's
workers. Then each operation alone. Frames are on the device already, where a step has them.

Takes Pillow. How long was not measured.
"""

import functools
import statistics

import jax
import numpy as np
from absl import flags

from benchmarks.augmentation.clips import FRAMES, SIZE, make_clips
from benchmarks.machine import machine
from benchmarks.timing import take_turns
from glscl_jax.runtime import program
from glscl_jax.training import rand_augment
from yardsticks.pillow_augment import by_pillow, draws_by_pillow

MAGNITUDE = rand_augment.MAGNITUDE


def main(_):
    clips = make_clips(flags.FLAGS.clips)
    drawn = rand_augment.draw(0, 0, len(clips))
    run, on_device = jax.jit(rand_augment.augment), jax.device_put(clips)
    contenders = {
        "JAX": lambda: jax.block_until_ready(run(on_device, drawn)),
        "Pillow": lambda: draws_by_pillow(clips, drawn),
    }
    print(f"{len(clips)} clips of {FRAMES} frames of {SIZE} x {SIZE}")
    print(machine())
    print(f"{'':<14}{'JAX':>10}{'Pillow':>10}{'ratio':>8}   ms a clip, median (range)")
    print(row("RandAugment", take_turns(contenders, flags.FLAGS.rounds), len(clips)))
    for name, operation in rand_augment.OPERATIONS.items():
        alone = {
            "JAX": functools.partial(run_one, jax.jit(operation), on_device[0]),
            "Pillow": functools.partial(by_pillow, clips[0], name, MAGNITUDE),
        }
        print(row(name, take_turns(alone, flags.FLAGS.rounds), 1))


def row(name: str, times: dict[str, list[float]], clips: int) -> str:
    """Milliseconds of a clip in both ways."""
    medians, spans = [], []
    for seconds in times.values():
        values = [1e3 * second / clips for second in seconds]
        medians.append(statistics.median(values))
        spans.append(f"{min(values):.1f} to {max(values):.1f}")
    jax_ms, pillow_ms = medians
    return (
        f"{name:<14}{jax_ms:>10.1f}{pillow_ms:>10.1f}{pillow_ms / jax_ms:>8.2f}"
        f"   ({'; '.join(spans)})"
    )


def run_one(operation, clip) -> None:
    """One operation on one clip, to its end."""
    jax.block_until_ready(operation(clip, np.float32(MAGNITUDE)))


def _define_flags() -> None:
    flags.DEFINE_integer("clips", 32, "In a batch.", lower_bound=1)
    flags.DEFINE_integer("rounds", 3, "Turns that each way takes.", lower_bound=1)


if __name__ == "__main__":
    _define_flags()
    program.run(main)
