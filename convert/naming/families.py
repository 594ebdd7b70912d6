"""What a plain file does not say of its model, known from its sizes: those of a variant by name."""

import dataclasses
from collections.abc import Mapping

from convert.naming.sizes import HIDDEN
from glscl_jax.errors import UserError
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.variants import VARIANTS

# Models are fine-tuned at other sizes of images and lengths of texts, and with either activation.
_FREE = ("image_size", "context_length", "activation", "text_activation")
# Settings that tensors do show, beside the sizes, and how OpenAI's own models are built.
_BUILD = ("patch_bias", "class_token", "pre_norm", "vision_projection", "text_projection")
_BUILD += ("logit_bias", "time_layers", "auxiliary_layers", "text_positions")
# open_clip's larger models, by the width of their vision tower: in others than those by name the
# heads may be of any width.
_WIDE = {1280: "ViT-H", 1408: "ViT-g", 1664: "ViT-bigG", 1792: "ViT-e"}
# Models with OpenAI's names that take a sentence from elsewhere than the highest id, by the rows of
# their token embedding.
_VOCABULARIES = {
    901_629: "a MetaCLIP 2 worldwide",
    250_100: "a MetaCLIP 2 worldwide",
    32_000: "a CLIPA",
}


def with_hidden(shown: CLIPConfig, source: str) -> CLIPConfig:
    """The settings that a file's tensors show, with those that they do not.

    They are those of the variant of these sizes (`VARIANTS`); without one, OpenAI's, if the model
    is built as OpenAI's are.

    Args:
      shown: as `sizes.clip_config` reads it off; its activations are kept.
      source: what to call the file in a message.

    Raises:
      UserError: other models have these sizes, or this build.
    """
    if hidden := _of_variant(shown):
        return dataclasses.replace(shown, **hidden)
    way_out = "convert the directory with its config"
    if kind := _VOCABULARIES.get(shown.vocab_size):
        raise UserError(
            f"{source} is {kind} ({shown.vocab_size:,} token ids) of sizes that none by name has, "
            f"so that its heads and where it takes a sentence from are not known: {way_out}"
        )
    if shown.vision_width in _WIDE:
        raise UserError(
            f"{source} is like an open_clip {_WIDE[shown.vision_width]} (vision width "
            f"{shown.vision_width}) and of other sizes, so that the width of its heads is not "
            f"known: {way_out}"
        )
    usual = CLIPConfig()
    odd = [name for name in _BUILD if getattr(shown, name) != getattr(usual, name)]
    if odd or shown.vision_pooling != usual.vision_pooling:
        raise UserError(
            f"{source} is not built as OpenAI's CLIP ({', '.join(odd) or 'vision_pooling'}) and of "
            f"sizes that no other model by name has: {way_out}"
        )
    return shown


def _of_variant(shown: CLIPConfig) -> Mapping[str, object] | None:
    """Hidden settings of the first variant that shows the same, at best at the same size."""
    for variant in sorted(VARIANTS.values(), key=lambda one: one.image_size != shown.image_size):
        if shown.vision_projection == "biased" and variant.vision_projection == "matrix":
            # timm's Perception Encoder has a bias that its authors' has not.
            variant = dataclasses.replace(variant, vision_projection="biased")
        hidden = {name: getattr(variant, name) for name in HIDDEN if name not in _FREE}
        if not (shown.class_token and shown.vision_pooling == "class"):
            hidden.pop("vision_pooling")
        free = {name: getattr(variant, name) for name in _FREE}
        if dataclasses.replace(shown, **hidden, **free) == variant:
            return hidden
    return None
