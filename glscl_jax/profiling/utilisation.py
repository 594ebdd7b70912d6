"""Model FLOPs utilisation: how much of what the devices could compute goes into the model."""

import dataclasses

from jax.sharding import Mesh
from ml_collections import ConfigDict

from glscl_jax.models.glscl import GLSCLConfig
from glscl_jax.profiling.model_flops import training_flops
from glscl_jax.profiling.peak_flops import Peak, find_peak


@dataclasses.dataclass(frozen=True)
class Utilisation:
    """Turns clips a second into a share of the devices' peak.

    Attributes:
      clip_flops: of a forward and a backward pass for a clip, see `model_flops`.
      devices: that share the batches.
      peak: of each.
    """

    clip_flops: int
    devices: int
    peak: Peak

    def of(self, clips_per_second: float) -> float:
        """The share, 0 to 1, over all devices. (PaLM, Chowdhery et al., 2022, appendix B.)"""
        return clips_per_second * self.clip_flops / (self.devices * self.peak.flops)


def of_training(
    model: GLSCLConfig, config: ConfigDict, mesh: Mesh, *, towers: bool = True
) -> Utilisation:
    """The utilisation of a run with this config; measures a peak that is not known.

    Without `towers` it trains from features, and encoders compute nothing.

    Each process does, and they start together: where they share a machine's cores, they share
    them in this as well.
    """
    flops = training_flops(
        model,
        batch=config.batch_size,
        words=config.data.num_words,
        frames=config.data.num_frames,
        towers=towers,
    )
    return Utilisation(flops, mesh.size, find_peak(model.dtype, mesh.local_devices))
