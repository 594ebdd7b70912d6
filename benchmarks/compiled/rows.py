"""What is compiled: devices, model and batch, and what its counts are to reach."""

import dataclasses
import math

# No clip of the recipe that is named here is augmented: the step alone is counted.
RECIPE, PLAIN = "configs/msrvtt.py", "--config.data.augment=False"
HALF = "--config.model.dtype=bfloat16"


@dataclasses.dataclass(frozen=True)
class Aim:
    """What one figure of a row is to be.

    Attributes:
      figure: a property of `counts.Counts`.
      most, least: bounds of it, or of its ratio to that of `of`.
      of: another row's name, or `OLD` for the row's own old counts; "" for none.
    """

    figure: str
    most: float = math.inf
    least: float = -math.inf
    of: str = ""


OLD = "78ee588"  # The commit before anything was done for a compiler.
FITS = Aim("fits", least=1)


@dataclasses.dataclass(frozen=True)
class Row:
    """A training step.

    Attributes:
      name: of the devices, the model and the batch.
      topology: as `--compile_for` takes it.
      variant: of the encoder.
      clips: in a batch, over all devices.
      flags: what else `train` is given.
      aims: what its counts are to reach.
      config: whose step it is.
    """

    name: str
    topology: str
    variant: str
    clips: int
    flags: tuple[str, ...] = ()
    aims: tuple[Aim, ...] = ()
    config: str = RECIPE

    @property
    def arguments(self) -> list[str]:
        """Those of `glscl_jax.train`, but for its work directory."""
        return [
            f"--config={self.config}",
            PLAIN,
            HALF,
            f"--compile_for={self.topology}",
            f"--config.model.clip.variant={self.variant}",
            f"--config.batch_size={self.clips}",
            *self.flags,
        ]

    @property
    def package(self) -> tuple[str, str]:
        """The compiler's, and JAX's extra that names its version."""
        is_gpu = self.topology.startswith("h")
        return ("jax-cuda13-plugin", "cuda13") if is_gpu else ("libtpu", "tpu")


def _row(topology: str, variant: str, clips: int, *aims: Aim, flags: tuple[str, ...] = ()) -> Row:
    return Row(f"{topology} {variant} {clips}", topology, variant, clips, flags, aims)


FEWER_CYCLES = Aim("cycles", most=0.75, of=OLD)
# As it was at `OLD`, which these rows stand beside.
SUMS = ("--config.gradient_dtype=bfloat16",)
# Two of them have the same clips a chip: what more of them costs is sending.
FEW = _row("v5e:2x2", "ViT-B/32", 64)
MANY = _row(
    "v5e:16x16",
    "ViT-B/32",
    4096,
    Aim("seconds", most=1.15, of=FEW.name),
    flags=("--config.mesh.fsdp=8",),
)


def _pod(topology: str, clips: int, fsdp: int) -> Row:
    row = _row(topology, "ViT-B/32", clips, FITS, flags=(f"--config.mesh.fsdp={fsdp}",))
    return dataclasses.replace(row, name=f"{row.name} fsdp {fsdp}")


# 16 clips a chip as `FEW` and `MANY` have, from 16 chips to two slices of 256, and other meshes of
# the same chips and batch: docs/scaling.md.
PODS = (
    _pod("v5e:4x4", 256, fsdp=8),
    _pod("v5e:4x4", 256, fsdp=1),
    _pod("v5e:4x4", 256, fsdp=16),
    _pod("v5e:8x8", 1024, fsdp=8),
    _pod("2xv5e:16x16", 8192, fsdp=8),
)
ROWS = (
    _row("v5e:2x2", "ViT-B/32", 128, FEWER_CYCLES, flags=SUMS),
    _row("v5e:2x2", "ViT-B/16", 128, FEWER_CYCLES, flags=SUMS),
    _row("h100x1", "ViT-B/32", 128, Aim("bound", least=0.38), flags=SUMS),
    _row("h100x1", "ViT-B/16", 128, Aim("bound", least=0.45), Aim("gib", most=25), flags=SUMS),
    FEW,
    MANY,
    _row("v5p:2x2x1", "ViT-L/14", 64, FITS),
    _row("v5p:2x2x1", "ViT-L/14@336", 64, FITS),
    _row("h100x1", "ViT-L/14", 64, FITS),
    _row("h100x1", "ViT-L/14@336", 64, FITS),
    *PODS,
)
