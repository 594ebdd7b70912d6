"""The towers that features are of, out of a run of the train program.

So that a machine that takes minutes for them makes them once, and goes on where it was stopped:

    python -m glscl_jax.train --config configs/demo.py --config.model.head.name=mean \\
        --config.model.temporal=None --workdir demo/base

Its steps, losses and pairs are those that the study's own program has for the first seed. With
--config.model.temporal=seqTransf the towers know which event came first, and every module over time
starts as that of the run did.
"""

import pathlib
import zlib

import jax
from flax import traverse_util

from benchmarks.lim_study.variants import Shape
from glscl_jax.errors import UserError
from glscl_jax.models.glscl import GLSCL, init_params


def read_base(directory: str) -> dict:
    """The parameters of a run's last step, of one under the mean of frames.

    Args:
      directory: its work directory.

    Raises:
      UserError: there is no run, it is damaged, or it trained another model.
    """
    # Here, as it needs ml_collections, and only a run does.
    from glscl_jax.checkpoints.model_dir import CHECKPOINTS, load_model, steps_on_disk

    steps = steps_on_disk(pathlib.Path(directory).expanduser() / CHECKPOINTS)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    loaded = load_model(directory, here, max(steps, default=None))
    temporal = "seqTransf" if "temporal" in loaded.params else "None"
    model = GLSCL(Shape("mean", temporal).model_config())
    wanted = jax.eval_shape(lambda: init_params(model, 0))
    differing = _shapes(wanted).items() ^ _shapes(loaded.params).items()
    if differing:
        names = ", ".join(sorted({name for name, _ in differing})[:3])
        raise UserError(
            f"--base {directory} is of another model than configs/demo.py has with the head mean: "
            f"{names}"
        )
    return loaded.params


def towers_name(base: dict) -> str:
    """Eight digits that tell parameters from others, as a line has them."""
    flat = sorted(traverse_util.flatten_dict(jax.device_get(base), sep="/").items())
    return f"{zlib.crc32(b''.join(leaf.tobytes() for _, leaf in flat)):08x}"


def _shapes(params: dict) -> dict[str, tuple[int, ...]]:
    flat = traverse_util.flatten_dict(params, sep="/")
    return {name: tuple(leaf.shape) for name, leaf in flat.items()}
