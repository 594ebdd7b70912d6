"""The formulas on chips that exist, by their published figures; none of it was measured."""

import dataclasses

from benchmarks.scaling.compiled_step import Step
from benchmarks.scaling.formulas import BATCH, Cost, clips_at_once, cost
from glscl_jax.runtime.sharding import DATA, FSDP

UTILISATION = 0.4  # Of a chip's peak, that the matrix products reach: an assumption.
CHIPS = (8, 64, 256, 1024, 4096)
BATCHES = (1024, 4096, 16384, 65536)
FSDP_DEVICES = 8


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip's figures as its maker publishes them.

    Attributes:
      bfloat16, float32: FLOP/s of matrix products.
      memory: bytes.
      island: chips that are joined by the fast links.
      inside: bytes a second that a chip sends along one mesh axis inside its island.
      outside: bytes a second, for each chip, that leave an island.
    """

    name: str
    bfloat16: float
    float32: float
    memory: float
    island: int
    inside: float
    outside: float


# NVIDIA's H100 data sheet and DGX H100's: one 400 Gb/s network adapter a GPU, NVLink 900 GB/s both
# ways. Google's page on TPU v5e: 4 links of 400 Gb/s a chip, of which an axis has 2; a pod of 256
# has 6.4 Tb/s to the outside. A TPU multiplies float32 in six bfloat16 passes.
H100 = Chip("H100 SXM", 989e12, 67e12, 80e9, 8, 450e9, 50e9)
V5E = Chip("TPU v5e", 197e12, 197e12 / 6, 16e9, 256, 100e9, 6.4e12 / 8 / 256)


@dataclasses.dataclass(frozen=True)
class Outlook:
    """A step on so many chips; seconds.

    Attributes:
      clips_at_once: over all chips; 0 where not even one clip a chip fits.
      memory: bytes a chip.
    """

    step: Step
    clips_at_once: int
    memory: float
    cost: Cost
    encoder: float
    scores: float
    sending: dict[str, float]

    @property
    def sent(self) -> float:
        return sum(self.sending.values())


def outlook(step: Step, chip: Chip, per_clip: float) -> Outlook:
    """What `step` takes of `chip`, its activations taking `per_clip` bytes for a clip."""
    at_once = clips_at_once(step, per_clip, chip.memory)
    if at_once and at_once < step.batch:
        step = dataclasses.replace(step, microbatch=at_once)
    found = cost(step)
    return Outlook(
        step,
        at_once,
        found.memory + per_clip * (at_once or step.batch) / step.devices,
        found,
        found.encoder_flops / (UTILISATION * chip.bfloat16),
        found.score_flops / (UTILISATION * chip.float32),
        {axes: value / rate(chip, step, axes) for axes, value in found.sent.items()},
    )


def rate(chip: Chip, step: Step, axes: str) -> float:
    """Bytes a second that a chip sends along `axes`.

    A ring's way out of an island is shared by its members there: all of their adapters carry it.
    """
    if step.devices <= chip.island:
        return chip.inside
    fsdp = step.sizes[FSDP]
    together = {FSDP: fsdp, DATA: chip.island // fsdp, BATCH: chip.island}[axes]
    if axes == FSDP:  # Inside of an island.
        return chip.inside
    return min(chip.inside, together * chip.outside)


def table(step: Step, chip: Chip, per_clip: float) -> str:
    """Markdown: every number of chips and batch that leaves each chip a clip."""
    lines = [
        "| chips | batch | clips a chip | micro-batches | GB a chip | GB sent: fsdp | data | both "
        "| ms: encoders | scores | sending | step |",
        "| ---: " * 12 + "|",
    ]
    for chips in CHIPS:
        for batch in BATCHES:
            if batch >= chips:
                axes = (("data", chips // FSDP_DEVICES), ("fsdp", FSDP_DEVICES))
                here = dataclasses.replace(step, batch=batch, axes=axes)
                lines.append(_row(here, chip, per_clip))
    return "\n".join(lines)


def _row(step: Step, chip: Chip, per_clip: float) -> str:
    now = outlook(step, chip, per_clip)
    count = step.batch // now.clips_at_once if now.clips_at_once else 0
    sent = [now.cost.sent[axes] / 1e9 for axes in (FSDP, DATA, BATCH)]
    cells = [
        f"{step.devices:,}",
        f"{step.batch:,}",
        f"{step.batch // step.devices:,}",
        f"{count}" if count else "does not fit",
        f"{now.memory / 1e9:.1f}",
        *(f"{value:.2f}" for value in sent),
        *(f"{1e3 * value:,.1f}" for value in (now.encoder, now.scores, now.sent, seconds(now))),
    ]
    return "| " + " | ".join(cells) + " |"


def seconds(found: Outlook) -> float:
    """A step's, of which nothing that is sent hides behind what is computed."""
    return found.encoder + found.scores + found.sent
