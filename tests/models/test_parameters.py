"""What modules state of their parameters, against every name that a model has."""

import ast
import dataclasses

import jax
import pytest

from glscl_jax.models.encoders import parameters
from glscl_jax.models.encoders.parameters import FSDP, TENSOR
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.models.glscl import GLSCL, GLSCLConfig, init_params
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.trees import path_name
from tests.server import REPO

# Between them they have every kind of parameter: a class token and none, a probe, every projection,
# several stacks.
FAMILIES = ("tiny", "tiny-SigLIP", "tiny-PE", "tiny-VideoPrism")


def model_of(variant: str) -> GLSCLConfig:
    return GLSCLConfig(
        clip=dataclasses.replace(VARIANTS[variant], vision_layers=1, text_layers=1),
        temporal_layers=1,
        head=GLSCLHead(lim_layers=1, lim_feed_forward=8, share_decoder=False, share_queries=False),
    )


HEADS_OR_HIDDEN_UNITS = ("attention/qkv_kernel", "mlp_in/kernel", "linear_1/kernel")
BACK_TO_THE_WIDTH = ("attention/out/kernel", "mlp_out/kernel", "linear_2/kernel")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def names(family):
    shapes = jax.eval_shape(lambda: init_params(GLSCL(model_of(family)), 0))
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]


def test_what_is_split_over_which_axis(names):
    for name in names:
        expected = (FSDP,)
        if name.endswith(HEADS_OR_HIDDEN_UNITS):
            expected = (FSDP, TENSOR)
        elif name.endswith(("attention/qkv_bias", "mlp_in/bias", "linear_1/bias")):
            expected = ((TENSOR, FSDP),)
        elif name.endswith(BACK_TO_THE_WIDTH):
            expected = (TENSOR, FSDP)
        elif name == "clip/text/token_embedding":
            expected = (FSDP, None)
        assert parameters.split_of(name) == expected, name
        otherwise = (None, FSDP) if name == "clip/text/token_embedding" else None
        assert parameters.otherwise_of(name) == otherwise, name
        # An optimiser's moments end in the same names.
        assert parameters.split_of(f"opt_state/0/mu/{name}") == expected, name


def test_stacks_and_what_is_none(names, family):
    stacked = {name[: parameters.stack_end(name)] for name in names if parameters.stack_end(name)}
    assert stacked == {
        "clip/text/transformer/blocks/",
        "clip/vision/transformer/blocks/",
        "lim/decoder/",
        "lim/video_decoder/",
        "temporal/transformer/blocks/",
        *(
            ["clip/vision/auxiliary/blocks/", "clip/vision/time/blocks/"]
            if family == "tiny-VideoPrism"
            else []
        ),
    }
    for name in ("blocks/kernel", "lim/decoder", "clip/myblocks/kernel", "a/blocks_2/kernel"):
        assert parameters.stack_end(name) is None


def test_what_lies_below_a_tower_s_blocks(names, family):
    below = {name for name in names if parameters.is_below_blocks(name)}
    of_images = ["clip/vision/class_embedding", "clip/vision/ln_pre/bias"]
    own = {
        "tiny-SigLIP": ["clip/vision/patch_bias"],
        "tiny-VideoPrism": ["clip/vision/patch_bias", "clip/text/class_embedding"],
    }
    positions = "clip/text/positional_embedding"
    assert below == {
        *([] if family == "tiny-VideoPrism" else [positions]),
        "clip/text/token_embedding",
        "clip/vision/patch_embedding",
        "clip/vision/positional_embedding",
        *own.get(family, [*of_images, "clip/vision/ln_pre/scale"]),
    }
    assert {parameters.tower_of(name) for name in names} == {"clip/text/", "clip/vision/", None}
    assert parameters.tower_of("temporal/positional_embedding") is None


def test_what_the_released_code_halves(names, family):
    whole = {name for name in names if name.startswith("clip/") and not parameters.is_half(name)}
    own = {
        "tiny": {"class_embedding"},
        "tiny-SigLIP": {"query", "logit_bias"},
        "tiny-PE": {"class_embedding", "query"},
        "tiny-VideoPrism": {"class_embedding", "query", "time_embedding", "dimension_scale"},
    }
    assert {name.rsplit("/", 1)[-1] for name in whole} == own[family] | {
        "bias",  # of LayerNorms
        "logit_scale",
        "positional_embedding",
        "scale",
        "token_embedding",
    }
    norms = [name for name in whole if name.endswith("/bias")]
    assert all("/ln" in name for name in norms)
    assert not any(parameters.is_half(name) for name in names if not name.startswith("clip/"))


def test_nothing_outside_the_encoders_matches_names_of_parameters():
    """Their names are spelt where the modules are: elsewhere nobody asks for a layer by pattern."""
    patterns = ("qkv_kernel", "mlp_in", "linear_1", "ln_pre", "patch_embedding", "video_decoder")
    allowed = {"optim_config.py"}  # a recipe's own choice of what is frozen, which a user changes
    for folder in ("runtime", "training", "profiling", "retrieval", "evaluation", "checkpoints"):
        for file in sorted((REPO / "glscl_jax" / folder).glob("*.py")):
            found = [x for x in patterns if any(x in text for text in spelt(file))]
            assert not found or file.name in allowed, (file, found)


def spelt(file):
    """The strings in a file that are no docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value
