"""What a checkpoint that is written while training goes on costs the steps.

    python -m benchmarks.saving                      ViT-B/32: parameters and moments, 1.8 GB
    python -m benchmarks.saving --clips=4 --saves=3
    python -m benchmarks.saving --clips=4 --saves=3 --at_hand

Usual steps, then `Checkpoints.save` as `train` calls it, then steps until the checkpoint is on
disk, over and over. The steps that began before it was are the overlapping ones. Where the
processors that compute also write, as on a CPU, no save can cost less than what a plain write of as
many bytes takes of them: that is measured beside it.

A save takes its size of memory twice, for a copy and for the disk's cache. A virtual machine may
have to fetch that from its host first, where it had given back what was free. --at_hand has it
fetched before each save, and leaves the time that it takes out.

Takes 51 s a step of 32 clips, 6 s of 4, on 2 cores of an Intel Xeon, and 2.1 GB of disk for a
checkpoint of ViT-B/32. The whole was not measured.
"""

import dataclasses
import mmap
import os
import pathlib
import statistics
import tempfile
import time

import jax
from absl import flags

from benchmarks.machine import machine
from benchmarks.timing import seconds, summary
from benchmarks.train_step.jax_glscl import FRAMES, JaxStep, make_inputs
from glscl_jax import paths
from glscl_jax.checkpoints.run_checkpoints import Checkpoints
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.models.glscl import GLSCLConfig
from glscl_jax.runtime import program

AIM = 1.1  # Of the overlapping steps' median over the usual steps'.


@dataclasses.dataclass
class Times:
    """Seconds.

    Attributes:
      usual: of steps with nothing being written.
      overlapping: of steps that began while a checkpoint was being written.
      blocked: that `save` kept training waiting, for each save.
    """

    usual: list[float] = dataclasses.field(default_factory=list)
    overlapping: list[float] = dataclasses.field(default_factory=list)
    blocked: list[float] = dataclasses.field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Median overlapping step over median usual step."""
        return statistics.median(self.overlapping) / statistics.median(self.usual)

    @property
    def cost(self) -> float:
        """Seconds that training is longer for each save, all told."""
        usual = statistics.median(self.usual)
        extra = sum(step - usual for step in self.overlapping)
        return (extra + sum(self.blocked)) / len(self.blocked)


def main(_):
    # What a CPU is fastest with, and holds more clips with.
    config = GLSCLConfig(clip=VARIANTS[flags.FLAGS.variant], remat="dots")
    step = JaxStep(config, make_inputs(flags.FLAGS.clips, config.clip))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(step.state))
    with tempfile.TemporaryDirectory(dir=flags.FLAGS.folder) as folder:
        fetched = 3 * size if flags.FLAGS.at_hand else 0
        times = measure(step, pathlib.Path(folder), flags.FLAGS.saves, flags.FLAGS.usual, fetched)
        plain = [plain_write(pathlib.Path(folder), size) for _ in range(3)]
    print(
        f"training while a checkpoint of {size / 1e9:.2f} GB is written, {flags.FLAGS.variant}, "
        f"{flags.FLAGS.clips} clips x {FRAMES} frames, {flags.FLAGS.saves} saves"
    )
    print(machine())
    print("\n".join(table(times)))
    told = ", ".join(f"{seconds:.2f}" for seconds in plain)
    print(f"{'a plain write':<14} {told} s of one processor for as many bytes")


def plain_write(folder: pathlib.Path, size: int) -> float:
    """Seconds of processor time that writing `size` bytes in pieces of 16 MB to disk takes."""
    piece, path = bytes(1 << 24), folder / "plain"
    begun = time.process_time()
    with path.open("wb") as file:
        for _ in range(0, size, len(piece)):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    taken = time.process_time() - begun
    path.unlink()
    return taken


def fetch(size: int) -> None:
    """Has the system find `size` bytes of memory, and gives them back to it."""
    with mmap.mmap(-1, size) as memory:
        for page in range(0, size, mmap.PAGESIZE):
            memory[page] = 1


def measure(step: JaxStep, folder: pathlib.Path, saves: int, usual: int, fetched: int = 0) -> Times:
    """Times `saves` saves under `folder`, each after `usual` timed steps and one that is not.

    Before each, `fetched` bytes of memory are taken and given back.
    """
    times, checkpoints = Times(), Checkpoints(Workdir(folder), keep=1)
    step()  # Compiles.
    for _ in range(saves):
        step()
        times.usual += [seconds(step) for _ in range(usual)]
        if fetched:
            fetch(fetched)
        # Orbax gives the directory its name when all that is in it has been written.
        written = checkpoints.directory / str(int(step.state.step))
        times.blocked.append(seconds(lambda: checkpoints.save(step.state)))
        times.overlapping.append(seconds(step))
        while not written.exists():
            times.overlapping.append(seconds(step))
        checkpoints.wait()
    checkpoints.close()
    return times


def table(times: Times) -> list[str]:
    """Its lines."""
    blocked = statistics.median(times.blocked)
    return [
        f"{'usual':<14} {summary(times.usual)}",
        f"{'while saving':<14} {summary(times.overlapping)}",
        f"{'ratio':<14} {times.ratio:8.3f}   (the aim is at most {AIM})",
        f"{'save() itself':<14} {blocked:8.3f} s that training waits",
        f"{'a save costs':<14} {times.cost:8.3f} s of training, all told",
    ]


def _define_flags() -> None:
    flags.DEFINE_enum("variant", "ViT-B/32", list(VARIANTS), "CLIP's sizes.")
    flags.DEFINE_integer("clips", 16, "Clips in a batch.", lower_bound=2)
    flags.DEFINE_integer("saves", 2, "Checkpoints to write.", lower_bound=1)
    flags.DEFINE_integer("usual", 3, "Timed steps before each of them.", lower_bound=1)
    flags.DEFINE_bool("at_hand", False, "Whether memory is fetched before each save.")
    paths.define("folder", None, "Where to write them; a temporary one without it.")


if __name__ == "__main__":
    _define_flags()
    program.run(main)
