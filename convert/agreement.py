"""What a source says of its model, held against its tensors: both are of one, or it is refused."""

import dataclasses

from convert.naming import families
from convert.naming.name_map import Table
from convert.naming.published_names import HUGGING_FACE, HUGGING_FACE_FUSED, SIGLIP
from convert.naming.sizes import HIDDEN
from convert.naming.videoprism_names import HUGGING_FACE_VIDEOPRISM
from convert.readers.source import Source
from glscl_jax.errors import UserError
from glscl_jax.models.encoders.clip_config import CLIPConfig

# transformers' `model_type` -> whose names the tensors of such a directory have.
_CLIPS = (HUGGING_FACE, *HUGGING_FACE_FUSED)
_TABLES = {
    "clip": _CLIPS,
    "metaclip_2": _CLIPS,
    "siglip": (SIGLIP,),
    "videoprism": (HUGGING_FACE_VIDEOPRISM,),
}
_TWO_MODELS = (
    "they are of two models: put the config there that these weights were saved with, and all of "
    "its tensors"
)
# Settings that a tensor, by its Flax path, shows by being there.
_ARRAYS = {
    "patch_bias": ("clip/vision/patch_bias",),
    "class_token": ("clip/vision/class_embedding",),
    "pre_norm": ("clip/vision/ln_pre/scale",),
    "vision_projection": ("clip/vision/projection", "clip/vision/projection/kernel"),
    "text_projection": ("clip/text/projection", "clip/text/projection/kernel"),
    "logit_bias": ("clip/logit_bias",),
}
# Poolings that arrays show, whatever the config says.
_SHOWN_POOLING = ("probe", "query")


def check_kind(origin: Source, table: Table) -> None:
    """Raises a `UserError` if the tensors have the names of another kind than the config's."""
    others = [one for kind, tables in _TABLES.items() if kind != origin.kind for one in tables]
    own = _TABLES.get(origin.kind, ())
    if own and table in others and table not in own:
        raise UserError(
            f"{_config(origin)} is of a {own[0].title} (model_type {origin.kind!r}), and the "
            f"tensors have the names of {table.title}: {_TWO_MODELS}"
        )


def settled(shown: CLIPConfig, origin: Source, table: Table, activation: str | None) -> CLIPConfig:
    """The settings that tensors show, with what else the source says, or is taken for.

    Args:
      shown: as `rules.infer_config` reads it off.
      origin: the source.
      table: of its names.
      activation: that the user gave, or None.

    Raises:
      UserError: the activation is not known, the source contradicts its tensors, or its sizes are
        those of no model that is known.
    """
    path = str(origin.path)
    if origin.activation not in (None, activation or origin.activation):
        raise UserError(f"{path} has the activation {origin.activation}, not {activation}")
    if origin.activation is None:
        if activation is None:
            raise UserError(
                f"{path} does not say its activation: give --activation=quick_gelu (OpenAI's own, "
                "and open_clip's models of that name), --activation=gelu (open_clip's others) or "
                "--activation=gelu_tanh (SigLIP's)"
            )
        return dataclasses.replace(families.with_hidden(shown, path), activation=activation)
    _check_settings(shown, origin, table)
    config = dataclasses.replace(shown, **origin.settings)
    try:
        config.check()
    except ValueError as error:
        raise UserError(f"{path}: settings that no model here has: {error}") from error
    return config


def _check_settings(shown: CLIPConfig, origin: Source, table: Table) -> None:
    for name, value in origin.settings.items():
        found = getattr(shown, name)
        if name == "vision_pooling":
            is_shown = found in _SHOWN_POOLING or value in _SHOWN_POOLING
        else:
            is_shown = name not in HIDDEN
        if is_shown and found != value:
            tensors = [row.torch for row in table.rows if row.flax in _ARRAYS.get(name, ())]
            where = [origin.keys[name]] if name in origin.keys else tensors
            raise UserError(
                f"{_config(origin)}: by its config {name} is {_plain(shown, name, value)}, by its "
                f"tensors {_plain(shown, name, found)}"
                + (f" ({', '.join(where)})" if where else "")
                + f": {_TWO_MODELS}"
            )


def _plain(shown: CLIPConfig, name: str, value) -> str:
    """A value as a message has it: hidden units as a number, where they are the usual."""
    if value is None and name in ("vision_mlp_width", "text_mlp_width"):
        value = 4 * getattr(shown, name.replace("_mlp", ""))
    return repr(value)


def _config(origin: Source) -> str:
    """The file that says the settings."""
    return str(origin.files[0] if origin.path.is_dir() else origin.path)
