"""`train --compile_for`: the step compiled for devices that are not here, and what fits on them.

    python -m glscl_jax.train --config configs/msrvtt.py --workdir runs/one --compile_for=v5e:4x4

No data is read and no device is needed: the device's own compiler runs here. What it says is
printed, and kept in the work directory as JSON.
"""

import math
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from ml_collections import ConfigDict

from glscl_jax import paths, target
from glscl_jax.errors import Problems, UserError
from glscl_jax.files import check_room, write_json
from glscl_jax.models.encoders.transformer import resolve_remat
from glscl_jax.models.glscl import GLSCL, init_params
from glscl_jax.profiling import topologies
from glscl_jax.profiling.compiled_report import (
    CompiledReport,
    DoesNotFit,
    compiled_or_not,
    report,
)
from glscl_jax.profiling.memory import GIB
from glscl_jax.profiling.model_flops import training_flops
from glscl_jax.runtime import mirror, sharding
from glscl_jax.training import inherited, recipe, steps
from glscl_jax.training.optim import make_optimizer
from glscl_jax.training.run import jitted_step

# Of a run whose length is not known, as its data is not; the step is the same for any.
STEPS = 1000
# What was kept is computed again, more and more of it.
REMATS = ("none", "dots", "full")


def run(text: str, config: ConfigDict, chosen: inherited.Chosen, workdir: str) -> int:
    """Compiles a training step and tells of it; returns the program's exit status.

    Args:
      text: the topology, see `topologies`.
      config: the recipe.
      chosen: what was chosen in it.
      workdir: where the JSON goes.

    Raises:
      UserError: the topology is unknown, its compiler not here, or mesh or batch do not fit it.
    """
    topology = topologies.parse(text)
    if not paths.is_address(workdir):
        # Before minutes of compiling.
        check_room(workdir, "--workdir")
    paths.expand(config)
    source = inherited.read_source(config.init_from) if config.init_from else None
    if source:
        source = inherited.leave_head(source, config, chosen)
        inherited.check(config, source, chosen)
    config = inherited.resolve(config, source, chosen)
    compiler = Compiler(topology)
    # A shape that does not fit is told before minutes of compiling.
    config = compiler.resolve(config)
    recipe.check_words(config, recipe.read(config).model.clip)
    print(f"compiling for {summary(config, topology)}", flush=True)
    found = compiler(config)
    kept = {"asked": as_json(config, found)}
    print("\n".join(found.lines()), flush=True)
    if not found.fits:
        other, found = first_that_fits(config, found, compiler)
        kept["fits"] = as_json(other, found) | {"flags": flags(config, other)}
    with mirror.written(workdir, "--workdir", fetch=False, watch=False) as folder:
        path = folder.path / f"compiled-{text.replace(':', '-')}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, kept)
        except OSError as error:
            raise UserError(f"--workdir {workdir}: {error.strerror}") from error
    print(f"written to {folder.told(str(path))}")
    return 0


class Compiler:
    """Compiles a config's step: config -> `CompiledReport`, or `DoesNotFit`."""

    def __init__(self, topology: topologies.Topology):
        self.topology = topology
        self.devices = topologies.devices(topology)

    def mesh(self, config: ConfigDict):
        """The mesh; raises a `UserError` where it, batch or micro-batch do not fit."""
        problems = Problems()
        size, small = config.batch_size, config.microbatch
        if mesh := problems.attempt(sharding.make_mesh, self.devices, config.mesh.to_dict()):
            problems.attempt(sharding.check_batch_size, size, mesh)
            problems.attempt(sharding.check_microbatch, size, small, mesh)
        problems.raise_all()
        assert mesh is not None  # else there was a problem
        return mesh

    def resolve(self, config: ConfigDict) -> ConfigDict:
        """The config with what it leaves to the devices filled in."""
        with target.compiling_for(self.platform):
            remat = resolve_remat(config.model.remat)
        mesh = {f"mesh.{name}": size for name, size in self.mesh(config).shape.items()}
        return with_settings(config, {"model.remat": remat, **mesh})

    def state(self, config: ConfigDict, settings: recipe.Recipe, mesh):
        """The optimiser, and the state's shapes where `train` lays it."""
        optimizer = make_optimizer(settings.optim, config.num_steps or STEPS)
        model = GLSCL(settings.model)
        abstract = jax.eval_shape(
            lambda: steps.init_state(init_params(model, 0), optimizer, settings.optim)
        )
        where = sharding.by_rules(abstract, mesh)
        return optimizer, jax.tree.map(_laid, abstract, where)

    def held(self, config: ConfigDict) -> int:
        """Bytes of the state on one device."""
        with target.compiling_for(self.platform):
            state = self.state(config, recipe.read(config), self.mesh(config))[1]
        return _device_bytes(state)

    @property
    def platform(self) -> str:
        return "tpu" if self.topology.is_tpu else "gpu"

    def __call__(self, config: ConfigDict) -> CompiledReport | DoesNotFit:
        settings, mesh = recipe.read(config), self.mesh(config)
        with target.compiling_for(self.platform):
            optimizer, state = self.state(config, settings, mesh)
            step = jitted_step(config, settings, GLSCL(settings.model), optimizer, mesh, state)
            lowered = step.lower(state, abstract_batch(config, settings, mesh))
            compiled = compiled_or_not(lowered, self.topology)
        if isinstance(compiled, DoesNotFit):
            return compiled
        data = config.data
        clip = training_flops(
            settings.model, batch=config.batch_size, words=data.num_words, frames=data.num_frames
        )
        return report(
            compiled,
            self.topology,
            mesh.shape,
            name="training step",
            dtype=settings.model.dtype,
            state=_device_bytes(state),
            model_flops=clip * config.batch_size / mesh.size,
        )


def abstract_batch(config: ConfigDict, settings: recipe.Recipe, mesh) -> Mapping:
    """The shapes of a training batch, laid out as `train` does."""
    side, words = settings.model.clip.image_size, config.data.num_words
    shapes = {
        "text_ids": ((words,), np.int32),
        "text_mask": ((words,), np.int32),
        "frames": ((config.data.num_frames, side, side, 3), np.uint8),
        "frame_mask": ((config.data.num_frames,), np.int32),
    }
    where = sharding.by_batch(mesh)
    return {
        name: jax.ShapeDtypeStruct((config.batch_size, *shape), dtype, sharding=where)
        for name, (shape, dtype) in shapes.items()
    }


def _laid(leaf, where) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)


def _device_bytes(tree) -> int:
    """What one device holds of a tree of laid out shapes."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def summary(config: ConfigDict, topology: topologies.Topology) -> str:
    """A line on what is compiled."""
    axes = " x ".join(f"{name} {size}" for name, size in config.mesh.items())
    small = f", {config.microbatch} at once" if config.microbatch else ""
    return (
        f"{topology.text}, {topology.size} x {topology.chip.device_kind}, mesh {axes}: "
        f"{config.batch_size} clips of {config.data.num_frames} frames{small}, "
        f"{config.model.clip.variant or 'towers of their own'}, {config.model.dtype}, "
        f"remat {config.model.remat}"
    )


def as_json(config: ConfigDict, found: CompiledReport | DoesNotFit) -> dict:
    """What the JSON has of one compile."""
    layout = {
        "batch_size": config.batch_size,
        "microbatch": config.microbatch,
        "mesh": config.mesh.to_dict(),
        "remat": config.model.remat,
    }
    return layout | found.as_json()


def first_that_fits(
    config: ConfigDict, found, compiler: Compiler
) -> tuple[ConfigDict, CompiledReport]:
    """The first of `layouts` that a device holds, and its report; tells of each.

    Raises:
      UserError: none does.
    """
    tried = [found]
    for other in layouts(config, tried, compiler):
        print(f"trying {summary(other, compiler.topology)}", flush=True)
        found = compiler(other)
        tried.append(found)
        if found.fits:
            print("\n".join([*found.lines(), f"  give         {flags(config, other)}"]), flush=True)
            return other, found
        print(f"  does not fit: {found.used / GIB:.2f} GiB a chip", flush=True)
    raise UserError(
        f"no layout of {compiler.topology.size} chips of {compiler.topology.text} holds this step: "
        "take more chips, a smaller batch_size or fewer frames"
    )


def layouts(config: ConfigDict, tried: list, compiler: Compiler) -> Iterator[ConfigDict]:
    """What may fit where `config` does not: dots, full, micro-batches, then fsdp with and without.

    Of micro-batches those are left out that cannot help, by what the last one `tried` takes.
    """
    for remat in REMATS[REMATS.index(config.model.remat) + 1 :]:
        config = with_settings(config, {"model.remat": remat})
        yield config
    yield from _microbatches(config, tried, compiler)
    tensor, held = config.mesh.tensor, compiler.held(config)
    island, devices = (x // tensor for x in (compiler.topology.island, compiler.topology.size))
    sizes = [size for size in range(1, island + 1) if island % size == 0]
    for size in (size for size in sizes if size > config.mesh.fsdp and size % 2 == 0):
        other = with_settings(config, {"mesh.fsdp": size, "mesh.data": devices // size})
        share = compiler.held(other)
        if share < compiler.topology.memory and share < held:
            yield other
            yield from _microbatches(other, tried, compiler)


def _microbatches(config: ConfigDict, tried: list, compiler: Compiler) -> Iterator[ConfigDict]:
    """`config` in halves, quarters, ... as long as each device has a clip of them."""
    shares = sharding.batch_shares(compiler.mesh(config))
    first, held = config.microbatch or config.batch_size, compiler.held(config)
    size, room = first // 2, compiler.topology.memory
    whole = tried[-1].used - held
    while size >= shares and size % shares == 0 and config.batch_size % size == 0:
        if held + whole * size / first < room:
            yield with_settings(config, {"microbatch": size})
        size //= 2


def with_settings(config: ConfigDict, values: Mapping[str, object]) -> ConfigDict:
    """A copy with some settings changed, named by their paths."""
    config = config.copy_and_resolve_references().unlock()
    config.update_from_flattened_dict(values)
    return config.lock()


def flags(config: ConfigDict, other: ConfigDict) -> str:
    """The flags that turn `config` into `other`."""
    names = ("model.remat", "microbatch", "mesh.data", "mesh.fsdp")
    old, new = (dict(_at(x, name) for name in names) for x in (config, other))
    return " ".join(f"--config.{name}={new[name]}" for name in names if old[name] != new[name])


def _at(config: ConfigDict, name: str) -> tuple[str, object]:
    value = config
    for part in name.split("."):
        value = value[part]
    return name, value
