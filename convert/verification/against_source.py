"""A conversion held against its source: in whose code, and what that leaves open."""

import jax
import numpy as np

from convert.naming import rules
from convert.naming.name_map import Table
from convert.naming.published_names import is_hugging_face
from convert.naming.sizes import clip_of
from convert.readers.source import Source
from convert.verification import verify
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.tokenizer import Tokenizer
from glscl_jax.models.encoders.clip_config import CLIPConfig


def assumptions(origin: Source, table: Table, clip: CLIPConfig) -> list[str]:
    """What a source does not say of its model, and what it is taken for.

    A directory's config says it, and OpenAI's and the released GLSCL's code does of their files.
    """
    if origin.path.is_dir() or origin.is_openais or table.parts != ("clip",):
        return []
    return [
        f"activation {clip.activation}",
        f"heads {clip.vision_head_width} wide",
        "a causal text mask",
        "the sentence at the highest id, the image at the class token",
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
    inputs = verify.make_inputs(clip_of(config), tokenizer)
    library, expected = _of_source(origin, converted, config, inputs)
    print(f"{origin.path.name} in {library} against the conversion:", flush=True)
    compared = verify.compare_stages(expected, verify.stages(converted.params, config, inputs))
    print(verify.table(compared), flush=True)
    verify.check(compared, str(origin.path))
    figures = {
        "library": library,
        "tolerance": verify.TOLERANCE,
        "float32": {x.stage: x.difference for x in compared},
    }
    if params["clip"]["logit_scale"].dtype != np.float32:
        widened = jax.tree.map(lambda x: x.astype(np.float32), params)
        stored = verify.compare_stages(expected, verify.stages(widened, config, inputs))
        figures["as stored"] = {x.stage: x.difference for x in stored}
        print(f"as stored, rounded: {stored[-1].difference:.1e} at {stored[-1].stage!r}")
    return figures


def _of_source(origin: Source, converted: rules.Converted, config, inputs: verify.Inputs):
    """Whose code the source ran in, and its stages."""
    torch_stages, table = import_torch(), converted.table
    if is_hugging_face(table):
        stages = torch_stages.named_as_hugging_face(origin, converted.config, inputs)
        return "transformers.CLIPModel", stages
    if table.parts == ("clip",) and not origin.is_openais:
        from convert.verification import torch_open_clip

        size = clip_of(config).image_size
        if twin := torch_open_clip.find(origin, clip_of(converted.config), size):
            return twin.title, torch_stages.in_open_clip(twin.model, origin.tensors, inputs)
        print(
            "open_clip is not installed, or has no architecture of these sizes: torch.nn modules "
            "stand in for it, with what is assumed here (heads, mask, pooling) assumed there too"
        )
    stages = torch_stages.named_as_openai(origin.tensors, config, table.parts, inputs)
    return "torch.nn modules", stages
