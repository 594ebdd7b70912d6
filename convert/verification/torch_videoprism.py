"""VideoPrism's side of a verification: transformers' model, also of what its authors' files hold.

Imported only where PyTorch is needed. Frames by themselves, which the authors' code returns as
`frame_embeddings` and transformers does not, are read by its pooling head out of each frame's
places. Transformers' sinusoids, which are no parameters, are spaced as in Vaswani et al.; the
authors' code, which trained the weights, ends at another slowness (`sinusoids`). Both sides here
have the authors'.
"""

import re
from collections.abc import Mapping

import numpy as np

from convert.naming.videoprism_names import HUGGING_FACE_VIDEOPRISM, NPZ, POSITIONS
from convert.readers.hugging_face import transformers_config, transformers_model
from convert.readers.source import Source
from convert.verification import torch_glscl
from convert.verification.torch_stages import Twin
from convert.verification.verify import FRAMES
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.sinusoids import sinusoids

# Of an array's name in the npz file -> in transformers, word by word; `{}` is a layer's number.
_WORDS = (
    (
        r"^params/vision_encoder/patch_projection/linear",
        "{tower}/spatial_embeddings/patch_embeddings/projection",
    ),
    (
        r"^params/vision_encoder/(spatial|temporal)_pos_emb/emb_var",
        r"{tower}/\1_embeddings/position_embeddings",
    ),
    (r"^params/vision_encoder/spatial_ln", "{tower}/layernorm1"),
    (r"^params/vision_encoder/temporal_ln", "{tower}/layernorm2"),
    (r"^params/vision_encoder/(spatial|temporal)_encoder/transformers_stack", r"{tower}/\1_layers"),
    (r"^params/auxiliary_encoder/transformers_stack", "video_model/auxiliary_layers"),
    (
        r"^params/contrastive_vision_pooler/pooling_attention_layer_norm",
        "video_model/head_layernorm",
    ),
    (
        r"^params/contrastive_vision_pooler/pooling_attention_query",
        "video_model/head/pooling_attention_query",
    ),
    (r"^params/contrastive_vision_pooler/pooling_attention", "video_model/head"),
    (r"^params/text_encoder/token_emb/emb_var", "text_model/embeddings/token_embedding/weight"),
    (r"^params/text_encoder/cls_emb", "text_model/embeddings/cls_emb"),
    (r"^params/text_encoder/unimodal_ln", "text_model/layernorm"),
    (r"^params/text_encoder/unimodal_transformer", "text_model/layers"),
    (r"/x_layers/ff_layer/layer_norm", "/{{}}/layernorm_after"),
    (r"/x_layers/layer_norm", "/{{}}/layernorm_before"),
    (r"/x_layers/ff_layer/ffn_layer([12])/linear", r"/{{}}/mlp/fc\1"),
    (r"/x_layers/self_attention", "/{{}}/attention"),
    (r"/(q)uery/|/(k)ey/|/(v)alue/", r"/\1\2\3_proj/"),
    (r"/post/", "/o_proj/"),
    (r"/(w|kernel|scale)$", "/weight"),
    (r"/b$", "/bias"),
    (r"/per_dim_scale/per_dim_scale$", "/per_dim_scale"),
)


def of_transformers(origin: Source, config: CLIPConfig) -> Twin:
    """A VideoPrism, in transformers' own model: without the last normalisation, as it is here.

    Args:
      origin: a Hugging Face directory, or an npz file of its authors.
      config: of it.
    """
    settings = transformers_config(config)
    for tower in (settings.vision_config, settings.text_config):
        tower.apply_l2norm = False
    settings._attn_implementation = "eager"
    model = transformers_model(settings)(settings).eval()
    positions = np.asarray(sinusoids(config.context_length, config.text_width))
    fixed = {name: buffer.numpy() for name, buffer in model.named_buffers()}
    tensors = dict(origin.tensors)
    if any(NPZ.row(name) for name in tensors):
        tensors = _named_as_transformers(tensors)
    torch_glscl.load(model, tensors | fixed | {POSITIONS: positions})
    video = model.video_model

    def encode_image(images):
        frames = images.unflatten(0, (-1, FRAMES))
        seen = video.vision_model(frames, interpolate_pos_encoding=True).last_hidden_state
        for layer in video.auxiliary_layers:
            seen = layer(seen)
        # [B,V*P,D], frames first.
        read = video.head(seen.reshape(len(images), -1, seen.shape[-1]))[0]
        return video.head_layernorm(read)[:, 0]

    def encode_text(ids, mask):
        return model.text_model(ids, attention_mask=mask).pooler_output

    tower = video.vision_model
    return Twin(
        f"transformers.{type(model).__name__}",
        model,
        HUGGING_FACE_VIDEOPRISM,
        tower.spatial_layers,
        model.text_model.layers,
        encode_image,
        encode_text,
        sees_padding=False,
        others={"time": tower.temporal_layers, "auxiliary": video.auxiliary_layers},
    )


def _named_as_transformers(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Folded arrays of an npz file by transformers' names, written apart from the tables."""
    found = {}
    for name, array in tensors.items():
        values, named = np.asarray(array), name
        for theirs, torch_s in _WORDS:
            named = re.sub(theirs, torch_s, named)
        named = named.format(tower="video_model/vision_model").replace("/", ".")
        if "{}" not in named:
            found[named] = _as_torch(name, values)
            continue
        for layer, part in enumerate(values):
            found[named.format(layer)] = _as_torch(name, part)
    return found


def _as_torch(name: str, array: np.ndarray) -> np.ndarray:
    if "patch_projection" in name and name.endswith("kernel"):
        return array.transpose(3, 2, 0, 1)[:, :, None]
    if name.endswith("/kernel") or re.search(r"/(query|key|value)/w$", name):
        return array.T
    if name.endswith("pos_emb/emb_var"):
        return array[None]
    return array[None] if name.endswith("pooling_attention_query") else array
