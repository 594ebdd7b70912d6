"""Hugging Face's CLIP directories: what `config.json` says beside the tensors, and writing one."""

import pathlib
import re

import numpy as np

from convert.naming.videoprism_names import POSITIONS
from convert.readers import hugging_face_builds, hugging_face_sizes, preprocessing
from convert.readers.said import Said
from glscl_jax.errors import UserError
from glscl_jax.files import read_json, write_json
from glscl_jax.input_pipeline.tokenizer import Tokenizer
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.images import Preprocessing
from glscl_jax.models.encoders.sinusoids import sinusoids
from glscl_jax.models.encoders.transformer import Blocks
from glscl_jax.models.encoders.variants import VARIANTS

CONFIG = "config.json"
# The first that is there. Older ones are PyTorch's, and transformers up to 4 wrote Flax, too.
WEIGHTS = tuple(
    file
    for name in ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack")
    for file in (name, f"{name}.index.json")
)
# Those that transformers 5 opens without being told more.
READ_BY_TRANSFORMERS = tuple(file for file in WEIGHTS if "flax" not in file)
# The same in another precision: `model.fp16.safetensors`, `model.safetensors.index.fp16.json`.
_VARIANT = re.compile(
    r"(model|pytorch_model|flax_model)\."
    r"(?!.*-\d{5}-of-\d{5})([\w-]+\.(safetensors|bin|msgpack)|\w+\.index\.[\w-]+\.json)"
)
# Of any tokenizer one: rules, byte pairs, words, or a model of SentencePiece.
_TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")
# The ids of Gemma's, which SigLIP 2 has; SigLIP has 32,000.
_GEMMAS = 256_000

_VECTORS = ("logit_scale", "logit_bias")
# As `eos_token_id`: a 2 stood there by mistake, when the sentence was at the highest id.
HIGHEST_ID = 2

# Of transformers' names the ones here.
_ACTIVATIONS = {
    "quick_gelu": "quick_gelu",
    "gelu_python": "gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
# Kinds that are read -> the classes of transformers.
_CLASSES = {
    "clip": ("CLIPModel", "CLIPConfig"),
    "metaclip_2": ("MetaClip2Model", "MetaClip2Config"),
    "siglip": ("SiglipModel", "SiglipConfig"),
    "videoprism": ("VideoPrismClipModel", "VideoPrismConfig"),
}
_NAMES = {
    "siglip2": "a SigLIP 2 of NaFlex, whose images are of any size",
    "altclip": "an AltCLIP, with a BERT-like text tower",
    "chinese_clip": "a Chinese CLIP, with a BERT-like text tower",
    "clip_text_model": "a text model without a vision tower",
    "clip_vision_model": "a vision model without a text tower",
    "videoprism_vision_model": "a VideoPrism without a text tower",
}


def find_weights(directory: pathlib.Path) -> pathlib.Path | None:
    """The file of a directory that its weights are read from, or their index; None without one.

    Raises:
      UserError: they are there in several precisions, and none is the one without a name.
    """
    names = sorted(path.name for path in directory.iterdir() if path.is_file())
    if usual := next((name for name in WEIGHTS if name in names), None):
        return directory / usual
    variants = [name for name in names if _VARIANT.fullmatch(name)]
    if len(variants) > 1:
        raise UserError(
            f"{directory} has its weights as {' and '.join(variants)}: leave one of them there"
        )
    return directory / variants[0] if variants else None


def has_tokenizer(directory: pathlib.Path) -> bool:
    """Whether a directory has a tokenizer's files, of whatever kind, or says that it had."""
    names = (*_TOKENIZERS, "tokenizer_config.json")
    return any(next(directory.glob(name), None) for name in names)


def read_config(directory: pathlib.Path) -> Said:
    """What `config.json` says that tensors do not.

    Raises:
      UserError: naming the kind of model, if it is no CLIP, or the setting that the model here
        does not have.
    """
    path = directory / CONFIG
    settings = read_json(path)
    kind = settings.get("model_type")
    if not isinstance(kind, str) or kind not in _CLASSES:
        name = _NAMES.get(str(kind), f"of the kind {kind!r}")
        raise UserError(f"{directory} is {name} (model_type in {CONFIG}); {_READ}")
    _check_code(path, settings, *_CLASSES[kind][:1])
    # A second to import. Absent settings have defaults, and old files two places for the same.
    import transformers

    try:
        config = getattr(transformers, _CLASSES[kind][1]).from_dict(settings)
    except Exception as error:
        # A validator's name is a line of its own, before what it found.
        said = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise UserError(f"{path}: no valid {_CLASSES[kind][1]} ({said})") from error
    for name in ("text_config", "vision_config"):
        _check_tower(f"{path}: {name}", getattr(config, name))
    if config.text_config.layer_norm_eps != config.vision_config.layer_norm_eps:
        raise UserError(f"{path}: its towers have different layer_norm_eps; here they have one")
    if kind == "siglip" and not config.vision_config.vision_use_head:
        raise UserError(f"{path}: vision_config.vision_use_head is false: it has no probe to pool")
    if kind == "videoprism":
        hugging_face_builds.check_videoprism(path, config)
    sizes = hugging_face_sizes.read(kind, config, path)
    images = preprocessing.of_hugging_face(directory, sizes.image_size, kind)
    said = {**_settings(kind, config), **images} | sizes.settings
    if kind == "videoprism":
        said["attention_cap"] = float(config.vision_config.attn_logit_softcapping)
        return Said(said, kind=kind, keys=sizes.keys)
    end = config.text_config.eos_token_id
    if type(end) is not int:
        raise UserError(f"{path}: text_config.eos_token_id is {end!r}, not one token")
    says_end = kind == "clip" and end != HIGHEST_ID
    return Said(said, end if says_end else None, kind=kind, keys=sizes.keys)


def _settings(kind: str, config) -> dict[str, object]:
    """Of a `CLIPConfig`, all that tensors do not show."""
    vision, text = config.vision_config, config.text_config
    activation, words = (_ACTIVATIONS[tower.hidden_act] for tower in (vision, text))
    return {
        "activation": activation,
        "text_activation": None if words == activation else words,
        "layer_norm_epsilon": vision.layer_norm_eps,
        "vision_head_width": vision.hidden_size // vision.num_attention_heads,
        "text_head_width": text.hidden_size // text.num_attention_heads,
        **hugging_face_builds.BUILDS[kind],
        "end_id": text.eos_token_id if kind == "metaclip_2" else None,
        **({"tokenizer": "siglip2"} if kind == "siglip" and text.vocab_size == _GEMMAS else {}),
    }


_READ = "CLIPModel, MetaClip2Model, SiglipModel and VideoPrismClipModel are read"


def _check_code(path: pathlib.Path, settings: dict, model: str) -> None:
    """Raises a `UserError` if it is not that class that computes with the tensors."""
    if settings.get("auto_map"):
        raise UserError(f"{path}: the model has code of its own (auto_map); only {model} is read")
    names = settings.get("architectures") or [model]
    if not isinstance(names, list):
        raise UserError(f"{path}: architectures is {names!r}, not a list: mend the file")
    if model not in names:
        raise UserError(f"{path} is of a {' or '.join(map(str, names))}; only {model} is read")
    if settings.get("quantization_config"):
        raise UserError(f"{path}: the weights are quantized (quantization_config): save them whole")


def _check_tower(where: str, tower) -> None:
    hugging_face_sizes.check_tower(where, tower)
    if tower.hidden_act not in _ACTIVATIONS:
        known = " or ".join(_ACTIVATIONS)
        raise UserError(f"{where}.hidden_act is {tower.hidden_act!r}, not {known}")


def write_directory(
    directory: pathlib.Path,
    tensors: dict[str, np.ndarray],
    config: CLIPConfig,
    tokenizer: Tokenizer | None,
) -> None:
    """Writes a directory that the `from_pretrained` of transformers' own class reads.

    Args:
      directory: made here.
      tensors: by Hugging Face's names.
      config: of the model.
      tokenizer: written beside it, with what CLIPProcessor needs.
    """
    from safetensors import numpy as safetensors

    settings = transformers_config(config, tokenizer)
    if settings.model_type == "siglip":
        # There both are vectors of one number.
        tensors = tensors | {name: tensors[name].reshape(1) for name in _VECTORS}
    if settings.model_type == "videoprism":
        # Its own are spaced otherwise (see `sinusoids`); it keeps those that it reads.
        positions = sinusoids(config.context_length, config.text_width)
        tensors = tensors | {POSITIONS: np.asarray(positions)}
    directory.mkdir()
    safetensors.save_file(tensors, directory / WEIGHTS[0], metadata={"format": "pt"})
    settings.save_pretrained(directory)
    write_json(directory / preprocessing.FILE, _preprocessor(config.preprocessing))
    if tokenizer is not None:
        tokenizer.save(directory, config.context_length)


def kind_of(config: CLIPConfig) -> str | None:
    """Which kind of model of transformers has these settings; None if there is none."""
    usual = CLIPConfig()

    def is_built_as(*names: str, **settings) -> bool:
        return all(getattr(config, name) == getattr(usual, name) for name in names) and all(
            getattr(config, name) == value for name, value in settings.items()
        )

    if is_built_as("patch_bias", "class_token", "pre_norm", "rotary", "causal", "logit_bias"):
        of_clip = is_built_as("vision_pooling", "vision_projection", "text_projection")
        kinds = {"highest": "clip", "end": "metaclip_2"}
        return kinds.get(config.text_pooling) if of_clip else None
    if config.is_video:
        known = VARIANTS["VideoPrism-B/18@288"]
        same = ("patch_bias", "norm_offset", "causal", "text_pooling", "text_positions")
        same += ("text_projection", "logit_bias")
        return "videoprism" if all(getattr(config, x) == getattr(known, x) for x in same) else None
    probe = config.vision_blocks.heads == (config.probe_heads or config.vision_blocks.heads)
    probe = probe and config.probe.mlp_width == config.vision_blocks.mlp_width
    is_siglip = is_built_as(
        "rotary",
        patch_bias=True,
        class_token=False,
        pre_norm=False,
        vision_pooling="probe",
        vision_projection="none",
        causal=False,
        text_pooling="last",
        text_projection="biased",
        logit_bias=True,
    )
    return "siglip" if is_siglip and probe else None


def transformers_config(config: CLIPConfig, tokenizer: Tokenizer | None = None):
    """The same settings as a config of transformers, with the tokenizer's start and end token.

    Raises:
      UserError: transformers has no such model.
    """
    import transformers

    kind = kind_of(config)
    if kind is None:
        raise UserError(
            "transformers has no model of these towers (it has CLIP, MetaCLIP 2, SigLIP and "
            "VideoPrism): give --to=pytorch"
        )
    if tokenizer is None:
        start, end = None, config.end_id or HIGHEST_ID
        pad = end
    else:
        start, end = tokenizer.start_id, tokenizer.end_id
        # CLIP's is padded with its end there.
        pad = end if tokenizer.kind == "clip" else tokenizer.frame.pad_id
    names = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}

    def tower(blocks: Blocks) -> dict:
        return {
            "hidden_size": blocks.width,
            "intermediate_size": blocks.mlp_width,
            "num_hidden_layers": blocks.layers,
            "num_attention_heads": blocks.heads,
            "hidden_act": names[blocks.activation],
            "layer_norm_eps": blocks.epsilon,
            "projection_dim": config.embed_dim,
        }

    texts = {
        **tower(config.text_blocks),
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        # Not the last rows of the embedding, of which there may be more than of ids.
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": pad,
    }
    images = {
        **tower(config.vision_blocks),
        "image_size": config.image_size,
        "patch_size": config.patch_size,
    }
    if kind == "videoprism":
        _as_videoprism(texts, images, config)
        sizes = {}
    elif kind == "siglip":
        texts |= {"projection_size": config.embed_dim}
        sizes = {}
    else:
        sizes = {"projection_dim": config.embed_dim}
    model, settings = _CLASSES[kind]
    return getattr(transformers, settings)(
        text_config=texts, vision_config=images, architectures=[model], **sizes
    )


def _as_videoprism(texts: dict, images: dict, config: CLIPConfig) -> None:
    """Makes of CLIP's settings, in place, those of a VideoPrism."""
    for tower in (texts, images):
        tower.pop("projection_dim")
        tower["attn_logit_softcapping"] = config.attention_cap or 0.0
    texts |= dict.fromkeys(("bos_token_id", "eos_token_id"))
    # There the padding's id.
    texts["pad_token_id"] = 0
    patch = images.pop("patch_size")
    images |= {
        "tubelet_size": [1, patch, patch],
        "num_frames": config.time_positions,
        "num_spatial_layers": images.pop("num_hidden_layers"),
        "num_temporal_layers": config.time_layers,
        "num_auxiliary_layers": config.auxiliary_layers,
    }


def transformers_model(config):
    """The class of transformers whose config this is."""
    import transformers

    return getattr(transformers, _CLASSES[config.model_type][0])


def _preprocessor(images: Preprocessing) -> dict:
    """What CLIPImageProcessor reads, and SiglipImageProcessor, which squashes."""
    square = {"height": images.size, "width": images.size}
    if images.resize == "squash":
        shape = {"image_processor_type": "SiglipImageProcessor", "size": square}
    else:
        shape = {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": images.size},
            "do_center_crop": True,
            "crop_size": square,
        }
    return {
        **shape,
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": preprocessing.RESAMPLE[images.interpolation],
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": list(images.mean),
        "image_std": list(images.std),
    }
