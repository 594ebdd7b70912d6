"""The source's side of a verification: PyTorch models and what they compute at every stage.

Imported only where PyTorch is needed.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
import transformers

from convert.naming import long_clip
from convert.naming.name_map import Table
from convert.naming.published_names import HUGGING_FACE, OPEN_CLIP, OPENAI, SIGLIP
from convert.readers.hugging_face import (
    READ_BY_TRANSFORMERS,
    transformers_config,
    transformers_model,
)
from convert.readers.source import Source
from convert.verification import torch_glscl, verify
from convert.verification.verify import Inputs, Stages
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.glscl import GLSCLConfig


@dataclasses.dataclass(frozen=True)
class Twin:
    """A source's model in PyTorch, with its tensors.

    Attributes:
      title: whose code it is, for messages.
      model: whose parameters have the names of `table`.
      table: see there.
      vision, text: the blocks of its towers.
      encode_image: images [N,3,H,W] to features [N,D].
      encode_text: ids and mask [A,L] to features [A,D].
      sees_padding: whether its text tower does.
      others: blocks that a tower of videos has besides, by the names of their stages.
    """

    title: str
    model: torch.nn.Module
    table: Table
    vision: torch.nn.ModuleList
    text: torch.nn.ModuleList
    encode_image: Callable
    encode_text: Callable
    sees_padding: bool
    others: Mapping[str, torch.nn.ModuleList] = dataclasses.field(default_factory=dict)


@torch.no_grad()
def stages(twin: Twin, inputs: Inputs) -> Stages:
    """What a twin computes at every stage."""
    ids, mask, images, _ = _tensors(inputs)
    with contextlib.ExitStack() as watching:
        vision = [watching.enter_context(_watched("vision", twin.vision))]
        vision += [watching.enter_context(_watched(*other)) for other in twin.others.items()]
        image = twin.encode_image(images)
    with _watched("text", twin.text, None if twin.sees_padding else mask) as text:
        sentences = twin.encode_text(ids, mask)
    scale = getattr(twin.model, "logit_scale", None)
    return _arrays(
        {
            **({} if scale is None else {"logit scale": scale.reshape(())}),
            **{stage: value for found in vision for stage, value in found.items()},
            "image embedding": image,
            **text,
            "text embedding": sentences,
        }
    )


def gradients(twin: Twin, inputs: Inputs) -> Stages:
    """The gradient of `verify.directions`' scalar by each of a twin's parameters, by its name."""
    ids, mask, images, _ = _tensors(inputs)
    image, sentence = twin.encode_image(images), twin.encode_text(ids, mask)
    one, two = verify.directions(image.shape, sentence.shape)
    total = (image * torch.from_numpy(one)).sum() + (sentence * torch.from_numpy(two)).sum()
    total.backward()
    found = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in twin.model.named_parameters()
    }
    twin.model.zero_grad(set_to_none=True)
    return _arrays(found)


def of_openai(tensors: Mapping[str, np.ndarray], config: CLIPConfig, table: Table) -> Twin:
    """A state dict with OpenAI's names, alone, in torch.nn modules; arguments as below."""
    clip = _glscl(tensors, config, ("clip",)).clip

    def encode_text(ids, mask):
        tokens = clip.text(ids, mask)
        if config.text_pooling == "highest":
            places = ids.argmax(dim=1)
        else:
            places = (ids == config.end_id).int().argmax(dim=1)
        return tokens[torch.arange(len(ids)), places]

    blocks = clip.visual.transformer.resblocks, clip.transformer.resblocks
    # open_clip's word before the text tower's names is not in ours.
    table = OPENAI if table is OPEN_CLIP else table
    return Twin("torch.nn modules", clip, table, *blocks, clip.visual, encode_text, False)


def named_as_openai(
    tensors: Mapping[str, np.ndarray],
    config: GLSCLConfig,
    parts: tuple[str, ...],
    inputs: Inputs,
) -> Stages:
    """Stages of a state dict with the released GLSCL's names, in torch.nn modules.

    Args:
      tensors: by name.
      config: of the model; of another image size than the tensors', the patches' positions are
        interpolated by PyTorch.
      parts: which the tensors have.
      inputs: see there.
    """
    return _stages_of_glscl(_glscl(tensors, config, parts), parts, inputs)


def _glscl(
    tensors: Mapping[str, np.ndarray], config: CLIPConfig | GLSCLConfig, parts: tuple[str, ...]
) -> torch_glscl.GLSCL:
    whole = isinstance(config, GLSCLConfig)
    model = torch_glscl.GLSCL(config if whole else GLSCLConfig(clip=config), parts)
    # open_clip puts a word before the text tower's names where that is a module of its own.
    tensors = {name.removeprefix("text."): tensor for name, tensor in tensors.items()}
    root, clip = (model, "clip.") if "clip.logit_scale" in tensors else (model.clip, "")
    name, rows = f"{clip}visual.positional_embedding", len(model.clip.visual.positional_embedding)
    tensors[name] = _resized(np.asarray(tensors[name]), rows)
    torch_glscl.load(root, _with_one_table(tensors))
    return model


def of_open_clip(
    model: torch.nn.Module,
    title: str,
    tensors: Mapping[str, np.ndarray],
    config: CLIPConfig,
    table: Table,
) -> Twin:
    """A state dict in open_clip's own model, by its names.

    Args:
      model: of the architecture, for images of the size to compare with.
      title: of it.
      tensors: by name; the patches' positions are interpolated to that size.
      config: of the source.
      table: of the names.
    """
    name, trunk = "visual.positional_embedding", getattr(model.visual, "trunk", None)
    if trunk is None:
        rows = len(model.visual.positional_embedding)
        tensors = tensors | {name: _resized(np.asarray(tensors[name]), rows)}
    torch_glscl.load(model, tensors)
    vision = model.visual.transformer.resblocks if trunk is None else trunk.blocks
    text = getattr(model, "text", model).transformer.resblocks

    def encode_text(ids, mask):
        return model.encode_text(ids)

    return Twin(
        title, model, table, vision, text, model.encode_image, encode_text, config.sees_padding
    )


def _with_one_table(tensors: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Long-CLIP's positions as its forward pass adds them up: each table times its mask."""
    if not long_clip.is_long(tensors):
        return tensors
    first, second = (
        torch.tensor(np.asarray(tensors[n])) for n in (long_clip.FIRST, long_clip.SECOND)
    )
    mask = (torch.arange(len(first)) < 20)[:, None]
    return tensors | {long_clip.FIRST: (first * mask + second * ~mask).numpy()}


def _resized(embedding: np.ndarray, rows: int) -> np.ndarray:
    if len(embedding) == rows:
        return embedding
    old, new = (round((count - 1) ** 0.5) for count in (len(embedding), rows))
    grid = torch.tensor(embedding[1:], dtype=torch.float32).reshape(1, old, old, -1)
    grid = torch.nn.functional.interpolate(
        grid.permute(0, 3, 1, 2), size=(new, new), mode="bicubic"
    )
    patches = grid.permute(0, 2, 3, 1).reshape(new * new, -1).numpy()
    return np.concatenate([embedding[:1], patches])


@torch.no_grad()
def _stages_of_glscl(model: torch_glscl.GLSCL, parts: tuple[str, ...], inputs: Inputs) -> Stages:
    ids, mask, images, frame_mask = _tensors(inputs)
    clip = model.clip
    with _watched("vision", clip.visual.transformer.resblocks) as vision:
        image = clip.visual(images)
    with _watched("text", clip.transformer.resblocks, mask) as text:
        sentence, text_queries = model.encode_text(ids, mask)
    found = {
        "logit scale": clip.logit_scale,
        **vision,
        "image embedding": image,
        **text,
        "text embedding": sentence,
    }
    if "temporal" in parts:
        frames = images.unflatten(0, tuple(frame_mask.shape))
        features, queries = model.encode_video(frames, frame_mask)
        found["frame features"] = features
        if "lim" in parts:
            found |= {"text queries": text_queries, "video queries": queries}
            both = (sentence, text_queries), (features, queries)
            found["score"] = model.score(*both, frame_mask)
    return _arrays(found)


def of_hugging_face(origin: Source, config: CLIPConfig) -> Twin:
    """A Hugging Face directory or state dict, in transformers' own model.

    Args:
      origin: the source.
      config: of it; images of another size have their positions interpolated.
    """
    model = _hugging_face_model(origin, config).eval()
    is_siglip = config.vision_pooling == "probe"

    def encode_image(images):
        pooled = model.vision_model(images, interpolate_pos_encoding=True).pooler_output
        return pooled if is_siglip else model.visual_projection(pooled)

    def encode_text(ids, mask):
        if is_siglip:
            return model.text_model(ids).pooler_output
        return model.text_projection(model.text_model(ids, attention_mask=mask).pooler_output)

    return Twin(
        f"transformers.{type(model).__name__}",
        model,
        SIGLIP if is_siglip else HUGGING_FACE,
        model.vision_model.encoder.layers,
        model.text_model.encoder.layers,
        encode_image,
        encode_text,
        config.sees_padding,
    )


def _hugging_face_model(origin: Source, config: CLIPConfig) -> torch.nn.Module:
    """What transformers reads itself, as far as it can, and else the tensors put in by name."""
    if not origin.path.is_dir():
        settings = transformers_config(config)
        return torch_glscl.load(transformers_model(settings)(settings), _split(origin.tensors))
    options = {"local_files_only": True, "attn_implementation": "eager"}
    usual = any(file.name in READ_BY_TRANSFORMERS for file in origin.files)
    is_split = not any(
        name.endswith(("self_attn.qkv_proj.weight", "self_attn.in_proj_weight"))
        for name in origin.tensors
    )
    settings = transformers.AutoConfig.from_pretrained(
        origin.path, trust_remote_code=False, **options
    )
    kind = transformers_model(settings)
    if usual and is_split and not origin.wrappers:
        transformers.utils.logging.disable_progress_bar()
        return kind.from_pretrained(origin.path, dtype=torch.float32, **options)
    return torch_glscl.load(kind(settings), _split(origin.tensors))


def _split(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Fused projections as query, key and value, the rest as it is."""
    split = {}
    for name, tensor in tensors.items():
        fused = re.fullmatch(r"(.*\.self_attn\.)(?:qkv_proj\.|in_proj_)(weight|bias)", name)
        names = [f"{fused[1]}{part}_proj.{fused[2]}" for part in "qkv"] if fused else [name]
        pieces = np.split(np.asarray(tensor), 3) if fused else [tensor]
        split |= dict(zip(names, pieces, strict=True))
    return split


@contextlib.contextmanager
def _watched(name: str, blocks: torch.nn.ModuleList, mask=None) -> Iterator[dict]:
    """Collects what goes into a tower's first block and comes out of each, of real tokens alone."""
    found, real = {}, slice(None) if mask is None else mask > 0
    first = verify.first_stage(name)

    def keep(stage: str, value) -> None:
        value = value[0] if isinstance(value, tuple) else value
        if mask is not None and value.shape[1] > real.shape[1]:
            # What a tower puts behind a text is real.
            behind = torch.ones(len(real), value.shape[1] - real.shape[1], dtype=torch.bool)
            found[stage] = value[torch.cat([real, behind], dim=1)]
        else:
            found[stage] = value[real]

    def before(module, args, kwargs):
        keep(first, args[0] if args else kwargs["hidden_states"])

    hooks = [blocks[0].register_forward_pre_hook(before, with_kwargs=True)]
    for number, block in enumerate(blocks, start=1):
        stage = f"{name}: block {number}"
        hooks.append(block.register_forward_hook(lambda *x, stage=stage: keep(stage, x[2])))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(inputs: Inputs) -> tuple[torch.Tensor, ...]:
    """ids, mask, images [N,3,H,W] and the frames' mask."""
    images = torch.from_numpy(inputs.images).permute(0, 3, 1, 2)
    ids, mask = torch.from_numpy(inputs.ids).long(), torch.from_numpy(inputs.mask)
    return ids, mask, images, torch.from_numpy(inputs.frame_mask)


def _arrays(found: Mapping[str, torch.Tensor]) -> Stages:
    return {name: tensor.float().numpy() for name, tensor in found.items()}
