"""VideoPrism's npz files and transformers' directories, there and back, with random weights."""

import dataclasses
import json
import zipfile

import numpy as np
import pytest

from convert.conversion import Options, convert_clip
from convert.export import convert_back
from convert.naming import rules
from convert.naming.sizes import parameter_shapes
from convert.naming.videoprism_names import NPZ, POSITIONS
from convert.readers import videoprism
from convert.readers.hugging_face import transformers_config, transformers_model
from convert.verification import torch_videoprism
from glscl_jax.models.encoders.sinusoids import sinusoids
from glscl_jax.models.encoders.variants import VARIANTS
from tests.clip_sources import read, refused, safetensors, torch, torch_glscl

FORWARD, GRADIENT = 2e-5, 1e-4
CLIP = dataclasses.replace(
    VARIANTS["tiny-VideoPrism"], vision_layers=1, text_layers=1, vocab_size=700
)


@pytest.fixture(scope="module")
def arrays():
    """What a file of the authors' would hold, by name."""
    random = np.random.default_rng(0)
    shapes = parameter_shapes(CLIP)
    tensors = {
        name: random.normal(size=place.view(np.broadcast_to(0, shapes[place.path])).shape)
        for name, place in NPZ.places(shapes).items()
    }
    tensors = {name: np.float32(x * x.shape[-1] ** -0.5) for name, x in tensors.items()}
    return videoprism.unfold(tensors, CLIP)


@pytest.fixture
def file(arrays, tmp_path):
    np.savez(tmp_path / "lvt.npz", **arrays)
    return tmp_path / "lvt.npz"


def changed(file, arrays, changes):
    """The file with some arrays changed, or left out where they are None."""
    arrays = {name: x for name, x in (arrays | changes).items() if x is not None}
    np.savez(file, **arrays)
    return file


def assert_verified(out):
    figures = json.loads((out / "origin.json").read_text())["verification"]
    assert figures["library"] == "transformers.VideoPrismClipModel"
    ends = [figures["float32"][f"{what} embedding"] for what in ("image", "text")]
    assert 0 < max(ends) < FORWARD
    assert {"vision: block 1", "time: block 2", "auxiliary: block 1"} <= figures["float32"].keys()
    assert set(figures["gradients"]) == {"gradient of images", "gradient of texts"}
    assert 0 < max(figures["gradients"].values()) < GRADIENT


def test_names_and_shapes_are_those_of_the_published_files(arrays):
    """As google-deepmind/videoprism's modules name them: heads of 32 and 64, patches of 16."""
    stack = "params/vision_encoder/temporal_encoder/transformers_stack/x_layers"
    text = "params/text_encoder/unimodal_transformer/x_layers"
    pooler = "params/contrastive_vision_pooler"
    expected = {
        "params/vision_encoder/patch_projection/linear/kernel": (768, 128),
        "params/vision_encoder/patch_projection/linear/bias": (128,),
        "params/vision_encoder/spatial_pos_emb/emb_var": (4, 128),
        "params/vision_encoder/temporal_pos_emb/emb_var": (4, 128),
        "params/vision_encoder/spatial_ln/scale": (128,),
        "params/vision_encoder/temporal_ln/bias": (128,),
        f"{stack}/layer_norm/scale": (2, 128),
        f"{stack}/self_attention/query/w": (2, 128, 4, 32),
        f"{stack}/self_attention/value/b": (2, 4, 32),
        f"{stack}/self_attention/post/w": (2, 128, 4, 32),
        f"{stack}/self_attention/post/b": (2, 128),
        f"{stack}/ff_layer/layer_norm/bias": (2, 128),
        f"{stack}/ff_layer/ffn_layer1/linear/kernel": (2, 128, 512),
        f"{stack}/ff_layer/ffn_layer2/linear/kernel": (2, 512, 128),
        f"{stack}/ff_layer/ffn_layer2/linear/bias": (2, 128),
        "params/vision_encoder/spatial_encoder/transformers_stack/x_layers/self_attention/key/w": (
            1,
            128,
            4,
            32,
        ),
        "params/auxiliary_encoder/transformers_stack/x_layers/layer_norm/scale": (1, 128),
        f"{pooler}/pooling_attention_query": (1, 128),
        f"{pooler}/pooling_attention/query/w": (128, 4, 128),
        f"{pooler}/pooling_attention/key/b": (4, 128),
        f"{pooler}/pooling_attention/post/w": (128, 4, 128),
        f"{pooler}/pooling_attention/per_dim_scale/per_dim_scale": (128,),
        f"{pooler}/pooling_attention_layer_norm/scale": (128,),
        "params/text_encoder/token_emb/emb_var": (700, 128),
        "params/text_encoder/cls_emb": (1, 1, 128),
        "params/text_encoder/unimodal_ln/scale": (128,),
        f"{text}/self_attention/query/w": (1, 128, 2, 64),
    }
    assert {name: arrays[name].shape for name in expected} == expected
    # 16 of each of four stacks, and 24 that lie in none.
    assert len(arrays) == 4 * 16 + 24


def test_files_of_the_authors(tmp_path, file, arrays, capsys):
    convert_clip(str(file), str(tmp_path / "ours"), Options(verify=True))
    assert read(tmp_path / "ours").config.clip == CLIP
    assert_verified(tmp_path / "ours")
    assert "has no clip/logit_scale: as a fresh model begins with" in capsys.readouterr().out
    scale = read(tmp_path / "ours").params["clip"]["logit_scale"]
    np.testing.assert_allclose(np.exp(scale), 1 / 0.07, rtol=1e-6)
    convert_back(str(tmp_path / "ours"), str(tmp_path / "back.npz"), "npz", whole=False)
    assert "left out, as it has no place there: clip/logit_scale" in capsys.readouterr().out
    with np.load(tmp_path / "back.npz", allow_pickle=False) as back:
        assert back.keys() == arrays.keys()
        for name in arrays:
            assert back[name].shape == arrays[name].shape
            assert back[name].tobytes() == arrays[name].tobytes(), name


@pytest.mark.slow
def test_directories_of_transformers(tmp_path):
    settings = transformers_config(CLIP)
    twin = torch_glscl.randomise(transformers_model(settings)(settings), seed=0)
    twin.save_pretrained(tmp_path / "theirs")
    convert_clip(str(tmp_path / "theirs"), str(tmp_path / "ours"), Options(verify=True))
    assert read(tmp_path / "ours").config.clip == CLIP
    assert_verified(tmp_path / "ours")
    convert_back(str(tmp_path / "ours"), str(tmp_path / "back"), "huggingface", whole=False)
    one, other = (
        safetensors.load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back")
    )
    for name, _ in twin.named_parameters():
        assert one[name].tobytes() == other[name].tobytes(), name
    # It computes with the positions of the authors' code then, and no longer with its own.
    loaded = transformers_model(settings).from_pretrained(tmp_path / "back")
    positions = loaded.text_model.embeddings.position_embedding.numpy()
    assert np.array_equal(positions, sinusoids(64, 128))
    assert np.abs(positions - one[POSITIONS]).max() > 0.1


@pytest.mark.slow
def test_a_wrong_place_in_a_table_shows(file, tmp_path, monkeypatch):
    """The twin's names are written apart from the tables: one that is crossed does not verify."""
    crossed = [
        dataclasses.replace(row, parts=row.parts and ("key", "query", "value"))
        if "temporal_encoder" in row.torch
        else row
        for row in NPZ.rows
    ]
    monkeypatch.setattr(rules, "detect", lambda *_: dataclasses.replace(NPZ, rows=tuple(crossed)))
    message = refused(file, tmp_path, verify=True)
    assert "does not compute the same" in message
    assert "'time: block 1'" in message


def test_heads_of_any_width_are_read_off(arrays):
    found = videoprism.settings(arrays, "lvt.npz")
    assert (found["vision_head_width"], found["text_head_width"]) == (32, 64)
    assert found["attention_cap"] == 50.0
    odd = {name: x for name, x in arrays.items() if "auxiliary" not in name}
    name = "params/auxiliary_encoder/transformers_stack/x_layers/self_attention/query/w"
    odd[name] = arrays[name].reshape(1, 128, 2, 64)
    with pytest.raises(videoprism.UserError, match="heads of different numbers"):
        videoprism.settings(odd, "lvt.npz")


@pytest.mark.parametrize(
    ("arrays_there", "message"),
    [
        ({"params/img/embedding/kernel": 1}, "is an npz file of another model"),
        ({"params/patch_projection/linear/kernel": 1}, "without a text tower"),
        (
            {
                "params/vision_encoder/spatial_encoder/transformers_stack/x_layers_0/a": 1,
                "params/text_encoder/cls_emb": 1,
            },
            "not stacked",
        ),
        (
            {
                "params/vision_encoder/spatial_ln/scale": 1,
                "params/text_encoder/unimodal_transformer/x_layers/pre_layer_norm/scale": 1,
            },
            "a giant one",
        ),
    ],
)
def test_other_models_are_one_line(tmp_path, arrays_there, message):
    np.savez(tmp_path / "other.npz", **{x: np.zeros(1, np.float32) for x in arrays_there})
    said = refused(tmp_path / "other.npz", tmp_path)
    assert message in said
    assert "\n" not in said


def test_missing_unexpected_and_misshaped_keys_are_all_named(file, arrays, tmp_path):
    stack = "params/vision_encoder/spatial_encoder/transformers_stack/x_layers"
    changes = {
        "params/text_encoder/cls_emb": None,
        f"{stack}/self_attention/post/b": None,
        "params/text_encoder/second_emb": np.zeros(3, np.float32),
        f"{stack}/self_attention/key/w": arrays[f"{stack}/self_attention/key/w"][..., :31],
    }
    said = refused(changed(file, arrays, changes), tmp_path)
    assert "2 missing, 1 unexpected, 1 misshaped" in said
    for name in changes:
        assert name in said
    some = f"{stack}/layer_norm/scale"
    assert some in refused(changed(file, arrays, {some: None}), tmp_path)


def test_objects_are_not_opened_and_damage_is_one_line(file, arrays, tmp_path):
    objects = {"params/text_encoder/cls_emb": np.array([{}], object)}
    assert "Python's objects" in refused(changed(file, arrays, objects), tmp_path)
    np.savez(file, **arrays)
    with zipfile.ZipFile(file) as archive:
        place = archive.getinfo("params/text_encoder/token_emb/emb_var.npy").header_offset
    content = bytearray(file.read_bytes())
    content[place + 5000] ^= 255
    file.write_bytes(content)
    assert "a damaged npz file" in refused(file, tmp_path)


def test_what_other_formats_cannot_say(tmp_path, file):
    convert_clip(str(file), str(tmp_path / "ours"), Options())
    with pytest.raises(videoprism.UserError, match="give --to=huggingface, or --to=npz"):
        convert_back(str(tmp_path / "ours"), str(tmp_path / "back.pt"), "pytorch", whole=False)
    with pytest.raises(videoprism.UserError, match="is no VideoPrism"):
        videoprism.check_writable(VARIANTS["tiny"], "weights/tiny")
    other = dataclasses.replace(CLIP, attention_cap=30.0)
    with pytest.raises(videoprism.UserError, match=r"attention_cap is 30\.0"):
        videoprism.check_writable(other, "weights/other")


def test_a_file_of_transformers_does_not_say_its_heads(tmp_path):
    settings = transformers_config(CLIP)
    model = transformers_model(settings)(settings)
    torch.save(model.state_dict(), tmp_path / "model.bin")
    said = refused(tmp_path / "model.bin", tmp_path)
    assert "convert the directory with its config" in said


def test_the_twin_s_names_are_transformers_own(arrays):
    settings = transformers_config(CLIP)
    named = torch_videoprism._named_as_transformers(videoprism.fold(arrays))
    parameters = dict(transformers_model(settings)(settings).named_parameters())
    assert {name: x.shape for name, x in named.items()} == {
        name: tuple(x.shape) for name, x in parameters.items()
    }
