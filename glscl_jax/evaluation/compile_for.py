"""`evaluate --compile_for`: encoding, scoring and ranking compiled for devices that are not here.

    python -m glscl_jax.evaluate --checkpoint runs/one --compile_for=v5e:2x2
    python -m glscl_jax.evaluate --config configs/msrvtt.py --out results --compile_for=h100x8

Neither data nor parameters are read, and no device is needed: its own compiler runs here.
"""

import functools
from collections.abc import Callable, Iterator

import jax
import numpy as np
from ml_collections import ConfigDict

from glscl_jax import paths, target
from glscl_jax.checkpoints.model_dir import at_hand
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from glscl_jax.files import check_room, write_json
from glscl_jax.models.glscl import (
    GLSCL,
    GLSCLConfig,
    encode_text,
    encode_video,
    init_params,
    model_config,
)
from glscl_jax.models.model_file import read_model_config
from glscl_jax.profiling import topologies
from glscl_jax.profiling.compiled_report import compiled_or_not, report
from glscl_jax.profiling.model_flops import forward_flops
from glscl_jax.retrieval import encoding, ranking, score_blocks
from glscl_jax.runtime import mirror, sharding
from glscl_jax.training import inherited, recipe


def run(text: str, config: ConfigDict | None, checkpoint: str | None, out: str | None) -> int:
    """Compiles what an evaluation runs and reports on each program; returns the exit status.

    Args:
      text: the topology, see `topologies`.
      config: how clips are read; the checkpoint's own by default.
      checkpoint: whose model it is; that of the config by default.
      out: where the JSON goes; into the checkpoint by default.

    Raises:
      UserError: the topology is unknown, its compiler not here, the batch does not fit it, or it
        is not said what to compile.
    """
    topology = topologies.parse(text)
    if config is None and checkpoint is None:
        raise UserError("--checkpoint or --config is missing: one of them says which model it is")
    if not (folder := out or checkpoint):
        raise UserError("--out is missing: name the folder for what is found")
    if not paths.is_address(folder):
        # Before minutes of compiling.
        check_room(folder, "--out" if out else "--checkpoint")
    if checkpoint:
        with at_hand(checkpoint, name="--checkpoint") as directory:
            config = config or Workdir(directory).config()
            model = read_model_config(directory)
    else:
        model = _model(config)
    config = config.copy_and_resolve_references()  # The caller's stays as it is.
    if note := inherited.follow_words(config, model.clip):
        print(f"note: {note}", flush=True)
    recipe.check_words(config, model.clip)
    mesh = sharding.make_mesh(topologies.devices(topology))
    sharding.check_batch_size(config.eval_batch_size, mesh, "eval_batch_size")
    print(
        f"compiling for {topology.text}, {topology.size} x {topology.chip.device_kind}: "
        f"{config.eval_batch_size} clips of {config.data.num_frames} frames, {model.dtype}",
        flush=True,
    )
    found = []
    with target.compiling_for("tpu" if topology.is_tpu else "gpu"):
        for name, lower, flops in programs(config, model, mesh):
            print(name, flush=True)
            compiled = compiled_or_not(lower(), topology)
            if isinstance(compiled, jax.stages.Compiled):
                compiled = report(
                    compiled,
                    topology,
                    mesh.shape,
                    name=name,
                    dtype=model.dtype,
                    model_flops=flops / mesh.size,
                )
            print("\n".join(compiled.lines()), flush=True)
            found.append({"name": name, **compiled.as_json()})
    with mirror.written(folder, "--out", fetch=False, watch=False) as kept:
        path = kept.path / f"compiled-evaluation-{text.replace(':', '-')}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"programs": found})
        except OSError as error:
            raise UserError(f"--out {folder}: {error.strerror}") from error
    print(f"written to {kept.told(str(path))}")
    if not all(part["fits"] for part in found):
        print("what does not fit: give a smaller --config.eval_batch_size, or more chips")
    return 0


def _model(config: ConfigDict) -> GLSCLConfig:
    try:
        return model_config(config.model.to_dict())
    except (TypeError, ValueError) as error:
        raise UserError(f"config.model: {error}") from error


def programs(
    config: ConfigDict, settings: GLSCLConfig, mesh
) -> Iterator[tuple[str, Callable[[], jax.stages.Lowered], float]]:
    """What an evaluation compiles: names, what lowers each, and the model's FLOPs in a call."""
    model, size, data = GLSCL(settings), config.eval_batch_size, config.data
    encoder = encoding.Encoder(model, mesh)
    params = jax.eval_shape(lambda: init_params(model, 0))
    params = _placed(params, sharding.replicated(mesh))
    side = settings.clip.image_size
    words = (jax.ShapeDtypeStruct((size, data.num_words), np.int32),) * 2
    frames = (
        jax.ShapeDtypeStruct((size, data.num_frames, side, side, 3), np.uint8),
        jax.ShapeDtypeStruct((size, data.num_frames), np.int32),
    )
    words, frames = _placed((words, frames), sharding.by_batch(mesh))
    flops = forward_flops(settings, batch=1, words=data.num_words, frames=data.num_frames)
    yield (
        f"encoding {size} captions",
        functools.partial(encoder.lowered_text, params, *words),
        size * flops.text,
    )
    yield (
        f"encoding {size} videos",
        functools.partial(encoder.lowered_video, params, *frames),
        size * (flops.vision + flops.temporal),
    )
    text, video = (
        jax.eval_shape(functools.partial(encode, model=model), params, *batch)
        for encode, batch in ((encode_text, words), (encode_video, frames))
    )
    texts, videos = score_blocks.TEXT_BLOCK, score_blocks.VIDEO_BLOCK
    scoring = score_blocks.Lowering(text, video, head=settings.head, mesh=mesh)
    yield f"preparing {videos:,} videos", scoring.prepare, 0
    yield f"scoring {texts} captions against {videos:,} videos", scoring.score, 0
    yield (
        f"ranking {texts} captions among {videos:,} videos",
        functools.partial(ranking.lowered_count, scoring),
        0,
    )


def _placed(tree, where):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), tree
    )
