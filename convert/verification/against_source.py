"""A conversion held against its source: in whose code, and what that leaves open."""

import contextlib
from collections.abc import Iterator

import jax
import numpy as np

from convert.naming import rules
from convert.naming.name_map import Table
from convert.naming.published_names import is_hugging_face
from convert.naming.sizes import clip_of
from convert.naming.videoprism_names import NPZ
from convert.readers.source import Source
from convert.verification import captions, verify
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.tokenizer import Tokenizer
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.images import CLIP_MEAN

# Of more, a twin, a conversion and the gradients of both take more than 12 GB.
MOST_WITH_GRADIENTS = 600_000_000


def assumptions(origin: Source, table: Table, clip: CLIPConfig) -> list[str]:
    """What a source does not say of its model, and what it is taken for.

    A directory's config says it, and OpenAI's, VideoPrism's and the released GLSCL's code does of
    their files.
    """
    if (
        origin.path.is_dir()
        or origin.is_openais
        or table.title == NPZ.title
        or table.parts != ("clip",)
    ):
        return []
    sentence = {"highest": "the highest id", "end": f"id {clip.end_id}", "last": "the last place"}
    image = {
        "class": "at the class token",
        "probe": "read by the probe",
        "mean": "the patches' mean",
    }
    mean = "CLIP's" if clip.image_mean == CLIP_MEAN else clip.image_mean
    return [
        f"activation {clip.activation}",
        f"heads {clip.vision_head_width} wide",
        "a causal text mask" if clip.causal else "no text mask",
        f"the sentence at {sentence[clip.text_pooling]}, the image {image[clip.vision_pooling]}",
        f"images by {clip.resize} with the {clip.interpolation} filter, and {mean} for their mean",
    ]


def import_torch():
    """`torch_stages`, or a `UserError` that says what it needs."""
    try:
        from convert.verification import torch_stages
    except ImportError as error:
        raise UserError(
            "--verify takes PyTorch, which is not installed: pip install -r requirements-torch.txt"
        ) from error
    return torch_stages


def run(
    origin: Source, converted: rules.Converted, config, params: dict, tokenizer: Tokenizer | None
) -> dict:
    """Compares with the source, prints what differs by how much, returns it for origin.json.

    Args:
      origin: the source.
      converted: its float32 parameters, with the source's config.
      config: of the parameters, whose images may be of another size.
      params: as they are written.
      tokenizer: of the model; its start and end tokens are put into the texts.

    Raises:
      UserError: a stage differs.
    """
    clip = clip_of(config)
    texts = captions.compare(origin, tokenizer, clip.context_length)
    if texts:
        print(f"{len(captions.CAPTIONS)} captions have the same ids in {texts}")
    inputs = verify.make_inputs(clip, tokenizer)
    with _in_its_own_code(origin):
        twin, expected = _of_source(origin, converted, config, inputs)
    library = twin.title if twin else "torch.nn modules"
    print(f"{origin.path.name} in {library} against the conversion:", flush=True)
    ours = verify.stages(converted.params, config, inputs)
    with _in_its_own_code(origin):
        compared = verify.compare_stages(expected, ours)
        bent = _gradients(twin, converted, config, inputs)
    print(verify.table(compared + bent), flush=True)
    verify.check(compared + bent, str(origin.path))
    figures = {
        "library": library,
        "tolerance": verify.TOLERANCE,
        "captions": texts,
        "float32": {x.stage: x.difference for x in compared},
        "gradients": {x.stage: x.difference for x in bent},
    }
    if params["clip"]["logit_scale"].dtype != np.float32:
        widened = jax.tree.map(lambda x: x.astype(np.float32), params)
        stored = verify.compare_stages(expected, verify.stages(widened, config, inputs))
        figures["as stored"] = {x.stage: x.difference for x in stored}
        print(f"as stored, rounded: {stored[-1].difference:.1e} at {stored[-1].stage!r}")
    return figures


@contextlib.contextmanager
def _in_its_own_code(origin: Source) -> Iterator[None]:
    """Of a source whose model cannot be made of it, or is another than the conversion, one line."""
    try:
        yield
    except (KeyError, ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason if len(reason) <= 200 else f"{reason[:196]} ..."
        raise UserError(
            f"{origin.path}: its own code makes no model of it that could be compared, or another "
            f"than the conversion ({reason}): config and tensors are of two models; nothing was "
            "written"
        ) from error


def _gradients(twin, converted: rules.Converted, config, inputs: verify.Inputs) -> list:
    """What the gradients differ by; none of a whole GLSCL, of another image size, or too large."""
    if twin is None or config.image_size != converted.config.image_size:
        # Interpolated positions are no parameters of the source.
        return []
    count = sum(leaf.size for leaf in jax.tree.leaves(converted.params))
    if count > MOST_WITH_GRADIENTS:
        print(f"{count:,} parameters: beyond {MOST_WITH_GRADIENTS:,} gradients are not compared")
        return []
    found = import_torch().gradients(twin, inputs)
    ours = verify.gradients(converted.params, config, inputs)
    return verify.compare_gradients(found, rules.to_torch_names(ours, twin.table))


def _of_source(origin: Source, converted: rules.Converted, config, inputs: verify.Inputs):
    """The source's twin, None of a whole GLSCL, and its stages."""
    torch_stages, table = import_torch(), converted.table
    if table.parts != ("clip",):
        stages = torch_stages.named_as_openai(origin.tensors, config, table.parts, inputs)
        return None, stages
    twin = _twin(origin, converted, config)
    return twin, torch_stages.stages(twin, inputs)


def _twin(origin: Source, converted: rules.Converted, config: CLIPConfig):
    """A CLIP's model in its own library.

    Raises:
      UserError: that library is not installed, and nothing stands in for it.
    """
    torch_stages, table = import_torch(), converted.table
    if converted.config.is_video:
        from convert.verification import torch_videoprism

        return torch_videoprism.of_transformers(origin, converted.config)
    if is_hugging_face(table):
        return torch_stages.of_hugging_face(origin, converted.config)
    if not origin.is_openais:
        from convert.verification import torch_open_clip

        size, source = config.image_size, converted.config
        if twin := torch_open_clip.find(origin, source, size):
            return torch_stages.of_open_clip(twin.model, twin.title, origin.tensors, source, table)
        if not _is_plain(source):
            raise UserError(
                f"{origin.path}: --verify of this family takes open_clip with an architecture of "
                "these sizes, for images of the source's: pip install --no-deps open_clip_torch "
                "timm ftfy"
            )
        print(
            "open_clip is not installed, or has no architecture of these sizes: torch.nn modules "
            "stand in for it, with what is assumed here (heads, mask, pooling) assumed there too"
        )
    return torch_stages.of_openai(origin.tensors, config, table)


def _is_plain(clip: CLIPConfig) -> bool:
    """Whether the towers are OpenAI's but for sizes and where the sentence is."""
    usual = CLIPConfig()
    same = ("patch_bias", "class_token", "pre_norm", "rotary", "vision_pooling", "causal")
    same += ("vision_projection", "text_projection", "layer_norm_epsilon")
    return all(getattr(clip, name) == getattr(usual, name) for name in same)
