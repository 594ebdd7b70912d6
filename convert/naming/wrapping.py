"""What stands around a model's tensors in a file: dictionaries, and words before their names."""

import collections
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from convert.naming.published_names import FORMATS, GLSCL, OPENAI
from glscl_jax.errors import UserError

# Put into names by what runs a model: data parallelism, compilation, sharding, recomputation.
# They may stand between any two words.
_RUNNERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# What a model is called by one that has it. They stand before its names.
_OWNERS = {"model", "clip", "clip_model"}
# Numbers that some models keep as vectors of one.
_SCALARS = ("logit_scale", "logit_bias")
# A dictionary with this share of the most known names in one is a model of its own.
_ENOUGH = 0.5


def bare_names(names) -> dict[str, str]:
    """Each name without the words of wrappers.

    A CLIP inside a GLSCL or a CLIP4Clip has the names of the released code, with "clip." before
    each; alone it has none.
    """
    bare, has_owner = {}, {}
    for name in names:
        words = [word for word in name.split(".") if word not in _RUNNERS]
        first = next((i for i, word in enumerate(words) if word not in _OWNERS), len(words) - 1)
        bare[name] = ".".join(words[first:])
        has_owner[name] = "clip" in words[:first]
    if not any(_is_beside_clip(name) for name in bare.values()):
        return bare
    return {
        name: f"clip.{short}" if _is_of_clip(short) or has_owner[name] else short
        for name, short in bare.items()
    } | {name: short for name, short in bare.items() if _is_beside_clip(short)}


def unwrap(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """The tensors by their bare names; a logit scale or bias of one element becomes a scalar.

    Raises:
      UserError: two names differ in their wrappers alone.
    """
    found, first = {}, {}
    for name, bare in bare_names(tensors).items():
        if bare in found:
            raise UserError(
                f"{source} has two tensors of one name, {first[bare]} and {name}: save the model's "
                "state_dict() alone"
            )
        tensor = tensors[name]
        if bare.split(".")[-1] in _SCALARS and np.shape(tensor) in ((1,), (1, 1)):
            tensor = np.asarray(tensor).reshape(())
        found[bare], first[bare] = tensor, name
    return found


def wrappers(names) -> list[str]:
    """The words that `bare_names` leaves out of these, each once."""
    left_out = {}
    for name, bare in bare_names(names).items():
        left_out |= collections.Counter(name.split(".")) - collections.Counter(bare.split("."))
    return list(left_out)


def choose(
    content: Mapping, entry: str | None, source: str, is_tensor: Callable[[object], bool]
) -> Mapping:
    """The dictionary of a training checkpoint, itself among them, that holds the model.

    Args:
      content: what the file holds.
      entry: the path of the one to take, its keys joined by dots; None if there is one alone.
      source: the file, for messages.
      is_tensor: tells a tensor.

    Raises:
      UserError: there are several models and no `entry`, or nothing there.
    """
    found = dict(_dictionaries(content, is_tensor))
    known = {path: _known(bare_names(names)) for path, names in found.items()}
    most = max(known.values(), default=0)
    if entry is not None:
        if entry not in found:
            there = ", ".join(path for path in found if path and known[path])
            raise UserError(
                f"{source} has no --entry={entry}: it has {there or 'none with a model'}"
            )
        return found[entry]
    if not most:
        # None that is known: the largest, whose names the message is to show.
        return max(found.values(), key=len, default={})
    models = [path for path, count in known.items() if count >= _ENOUGH * most]
    if len(models) > 1:
        listed = ", ".join(path or "(the file itself)" for path in models)
        example = next(path for path in models if path)
        raise UserError(f"{source} holds several models, {listed}: choose one, --entry={example}")
    return found[models[0]]


def _dictionaries(content: Mapping, is_tensor) -> Iterator[tuple[str, Mapping]]:
    """Path and content of every dictionary that has tensors by name; the file's own path is ""."""
    # One dictionary may be in several, and in itself.
    waiting, seen = [("", content)], set()
    while waiting:
        path, entries = waiting.pop(0)
        if id(entries) in seen:
            continue
        seen.add(id(entries))
        named = {key: value for key, value in entries.items() if isinstance(key, str)}
        if any(map(is_tensor, named.values())):
            yield path, entries
        for key, value in named.items():
            if isinstance(value, Mapping):
                waiting.append((f"{path}.{key}" if path else key, value))


def _known(bare: Mapping[str, str]) -> int:
    """How many of these names the format has that has the most."""
    return max(sum(table.row(name) is not None for name in bare.values()) for table in FORMATS)


def _is_beside_clip(name: str) -> bool:
    return GLSCL.row(name) is not None or GLSCL.ignores(name)


def _is_of_clip(name: str) -> bool:
    return OPENAI.row(name) is not None or OPENAI.ignores(name)
