"""Names and layouts of published checkpoints, both ways, and what is said when they do not fit."""

import dataclasses

import numpy as np
import pytest
from flax import traverse_util
from hypothesis import given, settings
from hypothesis import strategies as st

from convert.naming import published_names, rules, sizes
from convert.naming.name_map import LAYOUTS, NameMismatch, Row, Table, check_names
from convert.readers import torch_file
from glscl_jax.errors import UserError
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.models.glscl import GLSCLConfig
from glscl_jax.models.heads.glscl import GLSCLHead
from tests.builders import MODELS, UNLIKE, random_params


def assert_same_bits(ours: dict, theirs: dict):
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype, name
        assert array.shape == theirs[name].shape, name
        assert array.tobytes() == theirs[name].tobytes(), name


@pytest.fixture(scope="module")
def small() -> dict[str, np.ndarray]:
    """The state dict of a small GLSCL, without what the original saves and never uses."""
    return rules.to_torch_names(random_params(MODELS["transformer"]))


@pytest.mark.parametrize("name", MODELS)
def test_every_model_goes_to_torch_names_and_back(name):
    config = MODELS[name]
    params = random_params(config)
    tensors = rules.to_torch_names(params)
    back = rules.from_torch_names(tensors, config=config)
    assert back.table is published_names.GLSCL
    assert back.ignored == ()
    assert_same_bits(
        traverse_util.flatten_dict(back.params, sep="/"),
        traverse_util.flatten_dict(params, sep="/"),
    )


@pytest.mark.parametrize("prefix", ["", "clip."])
def test_clip_goes_to_torch_names_and_back(prefix):
    params = random_params(UNLIKE)
    tensors = rules.to_torch_names(params, published_names.OPENAI)
    tensors = {prefix + name: tensor for name, tensor in tensors.items()}
    back = rules.from_torch_names(tensors)
    assert back.config == UNLIKE
    assert_same_bits(
        traverse_util.flatten_dict(back.params, sep="/"),
        traverse_util.flatten_dict(params, sep="/"),
    )


@pytest.mark.parametrize("file", ["tiny_clip_state_dict.pt", "tiny_glscl_checkpoint.pt"])
def test_published_files_survive_the_round_trip(golden, file):
    pytest.importorskip("torch", reason="PyTorch is missing: see requirements-torch.txt")
    tensors = torch_file.read_state_dict(golden / file)
    converted = rules.from_torch_names(tensors, source=file)
    back = rules.to_torch_names(converted.params, converted.table)
    assert not back.keys() & set(converted.ignored)
    assert_same_bits(back, {n: t for n, t in tensors.items() if n not in converted.ignored})


def test_the_sizes_and_the_unused_tensors_of_a_published_checkpoint(golden):
    pytest.importorskip("torch", reason="PyTorch is missing: see requirements-torch.txt")
    tensors = torch_file.read_state_dict(golden / "tiny_glscl_checkpoint.pt")
    converted = rules.from_torch_names(tensors)
    clip = CLIPConfig(32, 8, 128, 2, 128, 4, 128, 32, 256)
    assert converted.config == GLSCLConfig(clip=clip, head=GLSCLHead(queries=4, lim_layers=2))
    unused = {name.split(".")[0] for name in converted.ignored}
    assert unused == {
        "weight_fc",
        "decoder_layer_noun",
        "decoder_layer_spatial",
        "transformer_decoder_spatial",
        "noun_queries",
    }
    # The same file can be read as a model that shares nothing; then nothing of those is unused.
    apart = dataclasses.replace(
        converted.config,
        head=dataclasses.replace(converted.config.head, share_queries=False, share_decoder=False),
    )
    converted = rules.from_torch_names(tensors, config=apart)
    assert not any(name.startswith(("noun", "transformer")) for name in converted.ignored)
    np.testing.assert_array_equal(converted.params["lim"]["text_queries"], tensors["noun_queries"])


def test_layouts_against_plain_indexing(small):
    params = rules.from_torch_names(small).params
    vision, temporal = params["clip"]["vision"], params["temporal"]
    conv = small["clip.visual.conv1.weight"]
    for out, channel, row, column in [(0, 0, 0, 0), (63, 2, 7, 1), (5, 1, 3, 6)]:
        ours = vision["patch_embedding"][row, column, channel, out]
        assert ours == conv[out, channel, row, column]
    for layer in range(4):
        linear = small[f"transformerClip.resblocks.{layer}.mlp.c_fc.weight"]
        kernel = temporal["transformer"]["blocks"]["mlp_in"]["kernel"]
        assert kernel[layer, 3, 200] == linear[200, 3]
        norm = temporal["transformer"]["blocks"]["ln_1"]["scale"]
        np.testing.assert_array_equal(
            norm[layer], small[f"transformerClip.resblocks.{layer}.ln_1.weight"]
        )
    # `x @ projection` in both, so not transposed.
    np.testing.assert_array_equal(vision["projection"], small["clip.visual.proj"])


OPENAIS = ("tiny", "ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336")


def test_places_say_where_each_tensor_lies():
    shapes = sizes.parameter_shapes(MODELS["transformer"])
    places = published_names.GLSCL.places(shapes)
    place = places["clip.transformer.resblocks.1.attn.in_proj_weight"]
    assert place.path == "clip/text/transformer/blocks/attention/qkv_kernel"
    assert (place.layer, place.layout) == (1, "linear")
    assert places["spatial_queries"].layer is None
    # Nothing of the model is left without a name.
    assert {place.path for place in places.values()} == shapes.keys()


@pytest.mark.parametrize("name", [*OPENAIS, *MODELS])
def test_sizes_are_read_off_names_and_shapes(name):
    if name in OPENAIS:
        config, table = VARIANTS[name], published_names.OPENAI
    else:
        config, table = MODELS[name], published_names.GLSCL
    shapes = sizes.parameter_shapes(config)
    # Views of a single zero: ViT-L/14 takes no memory this way.
    tensors = {
        name: place.view(np.broadcast_to(np.float32(0), shapes[place.path]))
        for name, place in table.places(shapes).items()
    }
    assert rules.detect(tensors) is table
    inferred = rules.infer_config(tensors, table)
    if isinstance(config, GLSCLConfig):
        # Zeros show no training: see `infer_config`.
        config = dataclasses.replace(
            config, head=dataclasses.replace(config.head, share_queries=True, share_decoder=True)
        )
    assert inferred == config


def test_everything_that_does_not_fit_is_named_at_once(small):
    broken = dict(small)
    del broken["spatial_queries"]
    broken["clip.visual.ln_pre.wieght"] = broken.pop("clip.visual.ln_pre.weight")
    broken["zzzz"] = np.zeros(2)
    broken["clip.text_projection"] = np.zeros((3, 4))
    with pytest.raises(NameMismatch) as caught:
        rules.from_torch_names(broken, config=MODELS["transformer"], source="broken.pt")
    assert caught.value.missing == ["clip.visual.ln_pre.weight", "spatial_queries"]
    assert caught.value.unexpected == {
        "clip.visual.ln_pre.wieght": "clip.visual.ln_pre.weight",
        "zzzz": None,
    }
    assert caught.value.misshaped == {"clip.text_projection": ((3, 4), (128, 64))}
    first, *rest = str(caught.value).splitlines()
    assert first == "broken.pt does not fit: 2 missing, 2 unexpected, 1 misshaped"
    assert len(rest) == 5
    assert isinstance(caught.value, UserError)


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_no_tensor_can_be_lost_added_or_bent(small, data):
    expected = {name: tensor.shape for name, tensor in small.items()}
    some = st.sets(st.sampled_from(sorted(expected)), max_size=4)
    lost, added, bent = (data.draw(some) for _ in range(3))
    found = {name: shape for name, shape in expected.items() if name not in lost}
    found |= {f"{name}_": expected[name] for name in added}
    found |= {name: (*expected[name], 7) for name in bent - lost}
    if not lost and not added and not bent:
        assert check_names("it", found, expected) == ()
        return
    with pytest.raises(NameMismatch) as caught:
        check_names("it", found, expected)
    assert caught.value.missing == sorted(lost)
    assert caught.value.unexpected.keys() == {f"{name}_" for name in added}
    assert caught.value.misshaped.keys() == bent - lost


def test_params_that_do_not_fit_are_named_at_once():
    params = random_params(MODELS["transformer"])
    del params["lim"]["decoder"]["norm_1"]["bias"]
    params["clip"]["head"] = np.zeros(3)
    params["clip"]["vision"]["projection"] = np.zeros((64, 63))
    with pytest.raises(NameMismatch) as caught:
        rules.to_torch_names(params)
    assert caught.value.missing == ["lim/decoder/norm_1/bias"]
    assert list(caught.value.unexpected) == ["clip/head"]
    assert list(caught.value.misshaped) == ["clip/vision/projection"]


def test_a_table_writes_only_what_it_has_names_for():
    # Asked for OpenAI's names of a whole GLSCL, it must not drop the rest.
    with pytest.raises(NameMismatch):
        rules.to_torch_names(random_params(MODELS["transformer"]), published_names.OPENAI)


def test_a_layer_missing_in_the_middle_is_noticed(small):
    gap = {
        n: t for n, t in small.items() if not n.startswith("clip.visual.transformer.resblocks.1")
    }
    with pytest.raises(NameMismatch) as caught:
        rules.from_torch_names(gap)
    assert len(caught.value.missing) == 12


def test_foreign_files_are_refused():
    with pytest.raises(UserError, match=r"resnet\.pt has the names of no known format"):
        rules.from_torch_names({"layer1.0.bn1.weight": np.zeros(3)}, source="resnet.pt")
    with pytest.raises(UserError, match="holds nothing"):
        rules.from_torch_names({})
    # CLIP's ResNets have some of the names, but no class token.
    resnet = {
        "visual.conv1.weight": np.zeros((32, 3, 3, 3)),
        "visual.attnpool.positional_embedding": np.zeros((50, 64)),
        "token_embedding.weight": np.zeros((9, 64)),
    }
    with pytest.raises(UserError, match=r"rn50\.pt has no visual\.positional_embedding"):
        rules.from_torch_names(resnet, source="rn50.pt")


def test_sizes_that_no_model_has_are_refused(small):
    for name, shape, message in [
        ("clip.visual.positional_embedding", (6, 64), "make no square"),
        ("clip.text_projection", (128, 63), "no multiple of 64"),
    ]:
        with pytest.raises(UserError, match=f"odd.pt: .*{message}"):
            rules.from_torch_names({**small, name: np.zeros(shape)}, source="odd.pt")


def test_the_sizes_that_openai_saves_beside_the_weights_are_ignored():
    tensors = rules.to_torch_names(random_params(UNLIKE), published_names.OPENAI)
    extra = {"input_resolution": np.int64(16), "vocab_size": np.int64(31)}
    converted = rules.from_torch_names({**tensors, **extra})
    assert converted.ignored == ("input_resolution", "vocab_size")


def test_half_precision_is_widened_without_loss():
    tensors = rules.to_torch_names(random_params(UNLIKE), published_names.OPENAI)
    halves = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    converted = rules.from_torch_names(halves)
    back = rules.to_torch_names(converted.params, published_names.OPENAI)
    assert_same_bits({n: t.astype(np.float16) for n, t in back.items()}, halves)
    assert all(tensor.dtype == np.float32 for tensor in back.values())


def test_weights_that_are_not_finite_are_named(small):
    odd = {**small, "clip.visual.proj": np.full((64, 64), np.nan, np.float32)}
    assert rules.from_torch_names(odd).nonfinite == ("clip.visual.proj",)


def test_quantized_weights_are_refused(small):
    odd = {**small, "clip.visual.proj": np.ones((64, 64), np.int8)}
    with pytest.raises(UserError, match=r"clip\.visual\.proj is of type int8"):
        rules.from_torch_names(odd)


def test_each_tensor_is_read_once(small):
    class Once:
        def __init__(self, array):
            self.array, self.shape = array, array.shape

        def __array__(self, dtype=None, copy=None):
            array, self.array = self.array, None
            return array

    params = rules.from_torch_names({name: Once(tensor) for name, tensor in small.items()}).params
    assert_same_bits(rules.to_torch_names(params), small)


def test_distributed_runs_prefix_every_name(small):
    prefixed = {f"module.{name}": tensor for name, tensor in small.items()}
    converted = rules.from_torch_names({**prefixed, "module.weight_fc.0.bias": np.zeros(3)})
    assert converted.ignored == ("weight_fc.0.bias",)
    assert_same_bits(rules.to_torch_names(converted.params, converted.table), small)


# `UNLIKE` as a SigLIP is built.
PROBED = dataclasses.replace(
    UNLIKE,
    patch_bias=True,
    class_token=False,
    pre_norm=False,
    vision_pooling="probe",
    vision_projection="none",
    text_projection="biased",
    logit_bias=True,
)


OF_VIDEOS = CLIPConfig(
    image_size=6,
    patch_size=2,
    vision_width=64,
    vision_layers=2,
    text_width=64,
    text_layers=1,
    embed_dim=64,
    context_length=64,
    vocab_size=11,
    patch_bias=True,
    class_token=False,
    pre_norm=False,
    vision_pooling="query",
    vision_projection="none",
    time_layers=1,
    time_positions=5,
    auxiliary_layers=3,
    text_pooling="class",
    text_positions="sinusoidal",
    text_projection="none",
)


def test_what_a_format_has_no_name_for_is_not_dropped():
    params = random_params(PROBED)
    with pytest.raises(UserError, match=r"no name for clip/logit_bias, clip/text/projection/bias"):
        rules.to_torch_names(params, published_names.HUGGING_FACE)


@pytest.mark.parametrize("table", published_names.FORMATS, ids=lambda table: table.title)
def test_every_format_there_and_back(table):
    config = MODELS["lstm, own queries"] if len(table.parts) > 1 else UNLIKE
    if table in (published_names.OPEN_CLIP_TIMM, published_names.SIGLIP):
        config = PROBED
    if table in (published_names.HUGGING_FACE_VIDEOPRISM, published_names.NPZ):
        config = OF_VIDEOS
    params = {part: x for part, x in random_params(config).items() if part in table.parts}
    for path, value in table.fresh.items():
        part, name = path.split("/")
        params[part][name] = np.float32(value)
    tensors = rules.to_torch_names(params, table)
    converted = rules.from_torch_names(tensors)
    assert converted.table is table
    clip = converted.config if len(table.parts) == 1 else converted.config.clip
    assert clip == (UNLIKE if len(table.parts) > 1 else config)
    assert_same_bits(
        traverse_util.flatten_dict(converted.params, sep="/"),
        traverse_util.flatten_dict(params, sep="/"),
    )


def test_what_pytorch_keeps_apart_can_be_one_array():
    # As Hugging Face's CLIP has its attention: three matrices a layer.
    row = Row("layers.{layer}.{part}_proj.weight", "blocks/qkv_kernel", "linear", ("q", "k", "v"))
    table = Table("split", (row,), (), sizes=lambda shapes: shapes)
    array = np.arange(2 * 4 * 12, dtype=np.float32).reshape(2, 4, 12)
    places = table.places({"blocks/qkv_kernel": array.shape})
    assert len(places) == 6
    keys = places["layers.1.k_proj.weight"].view(array)
    np.testing.assert_array_equal(keys, array[1, :, 4:8].T)
    tensors = {name: place.view(array) for name, place in places.items()}
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    assert table.flax_shapes(shapes) == {"blocks/qkv_kernel": array.shape}
    filled = np.zeros_like(array)
    for name, place in places.items():
        place.view(filled)[...] = tensors[name]
    np.testing.assert_array_equal(filled, array)


@given(st.sampled_from(sorted(LAYOUTS)), st.lists(st.integers(1, 5), min_size=4, max_size=4))
def test_shapes_are_told_from_either_side(layout, shape):
    axes = [axis for axis in LAYOUTS[layout] if axis is not None]
    shape = tuple(shape[: len(axes) or 3])
    table = Table("one", (Row("theirs", "ours", layout),), (), sizes=lambda shapes: shapes)
    theirs = table.places({"ours": shape})["theirs"].view(np.zeros(shape)).shape
    assert table.flax_shapes({"theirs": theirs}) == {"ours": shape}
