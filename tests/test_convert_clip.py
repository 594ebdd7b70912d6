"""CLIP in and out, on small models of the real libraries with random weights."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import traverse_util

from convert import conversion, hugging_face, rules, safetensors_file, sizes, source, verify
from convert.back import convert_back
from convert.conversion import Options, convert_clip
from convert.tables import HUGGING_FACE, OPEN_CLIP, OPENAI
from glscl_jax import sharding
from glscl_jax.checkpoint import load_model
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.tokenizer import DEMO_MERGES, Tokenizer
from glscl_jax.models.clip import CLIPConfig
from tests.conftest import REPO, one_line_error

torch = pytest.importorskip("torch", reason="PyTorch is missing: see requirements-torch.txt")
transformers = pytest.importorskip("transformers")
from safetensors import numpy as safetensors  # noqa: E402

from convert import torch_glscl  # noqa: E402

VOCABULARY = Tokenizer.from_merges(DEMO_MERGES)
SMALL = CLIPConfig(
    image_size=16,
    patch_size=8,
    vision_width=64,
    vision_layers=2,
    text_width=128,
    text_layers=1,
    embed_dim=64,
    context_length=20,
    vocab_size=VOCABULARY.vocab_size,
)
GELU = {"hidden_act": "gelu"}


def random_model(**text_and_vision) -> "transformers.CLIPModel":
    """transformers' own model, every tensor random."""
    torch.manual_seed(0)
    config = hugging_face.transformers_config(SMALL)
    for tower in (config.text_config, config.vision_config):
        tower.update(text_and_vision)
    return torch_glscl.randomise(transformers.CLIPModel(config), seed=0)


def random_tensors(table=OPENAI, config=SMALL, seed=0) -> dict[str, np.ndarray]:
    """A state dict of numbers that float16 has exactly."""
    random = np.random.default_rng(seed)
    arrays = {
        path: random.normal(size=shape, scale=0.2).astype(np.float16).astype(np.float32)
        for path, shape in sizes.parameter_shapes(config).items()
    }
    return rules.to_torch_names(traverse_util.unflatten_dict(arrays, sep="/"), table)


def save(path, tensors):
    torch.save({name: torch.from_numpy(np.asarray(x)) for name, x in tensors.items()}, path)
    return path


def scripted(tensors) -> "torch.jit.ScriptModule":
    """A TorchScript module with these names, as OpenAI's files: float16, sizes beside."""
    root = torch.nn.Module()
    for name, array in tensors.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, torch.nn.Module())
            module = module.get_submodule(part)
        tensor = torch.from_numpy(array).half()
        module.register_parameter(last, torch.nn.Parameter(tensor))
    for name, value in {"input_resolution": 16, "context_length": 20, "vocab_size": 600}.items():
        root.register_buffer(name, torch.tensor(value))
    return torch.jit.script(root)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A Hugging Face directory with its tokenizer."""
    path = tmp_path_factory.mktemp("hub") / "clip"
    random_model().save_pretrained(path)
    VOCABULARY.save(path)
    return path


@pytest.fixture(scope="module")
def converted(directory, tmp_path_factory):
    out = tmp_path_factory.mktemp("weights") / "clip"
    convert_clip(str(directory), str(out), Options(verify=True))
    return out


def read(path):
    return load_model(path, sharding.replicated(sharding.make_mesh(jax.devices()[:1])))


def assert_same_params(one, other):
    one, other = (traverse_util.flatten_dict(jax.device_get(x), sep="/") for x in (one, other))
    assert one.keys() == other.keys()
    for path in one:
        assert one[path].dtype == other[path].dtype, path
        np.testing.assert_array_equal(one[path], other[path], err_msg=path)


def refused(path, tmp_path, **options) -> str:
    """The message; nothing may be left behind."""
    out = tmp_path / "refused" / "weights"
    with pytest.raises(UserError) as caught:
        convert_clip(str(path), str(out), Options(**options))
    assert not out.parent.exists() or not list(out.parent.iterdir())
    return str(caught.value)


# ---- What comes out --------------------------------------------------------------------------


def test_a_hugging_face_directory(directory, converted):
    loaded = read(converted)
    assert loaded.config.clip == SMALL
    tensors = random_model().state_dict()
    params = rules.from_torch_names({n: t.detach().numpy() for n, t in tensors.items()}).params
    assert_same_params(loaded.params, params)
    # A CLIP alone has a CLIP's settings alone.
    assert list(json.loads((converted / "model.json").read_text())) == ["clip"]
    captions = ["a red circle moves left", "émigré &amp; 42"]
    tokenizer = Tokenizer.load(converted / "tokenizer")
    np.testing.assert_array_equal(tokenizer(captions, 20).ids, VOCABULARY(captions, 20).ids)


def test_the_origin_is_told(directory, converted):
    origin = json.loads((converted / "origin.json").read_text())
    assert origin["source"] == "clip"
    assert origin["format"] == "Hugging Face directory, names of Hugging Face CLIP"
    assert origin["sha256"] == source.sha256(
        [directory / "config.json", directory / "model.safetensors"]
    )
    assert origin["converter"].startswith("glscl-jax ")
    assert origin["date"].endswith("+00:00")
    assert origin["dtype"] == "float32"
    assert origin["verification"]["library"] == "transformers.CLIPModel"
    stages = origin["verification"]["float32"]
    assert list(stages) == [
        "logit scale",
        "vision: patch embedding",
        "vision: block 1",
        "vision: block 2",
        "image embedding",
        "text: token embedding",
        "text: block 1",
        "text embedding",
    ]
    assert 0 < max(stages.values()) < 1e-5


def test_sharded_safetensors(converted, tmp_path):
    random_model().save_pretrained(tmp_path / "clip", max_shard_size="300KB")
    assert (tmp_path / "clip" / "model.safetensors.index.json").exists()
    VOCABULARY.save(tmp_path / "clip")
    convert_clip(str(tmp_path / "clip"), str(tmp_path / "out"))
    assert_same_params(read(tmp_path / "out").params, read(converted).params)
    files = json.loads((tmp_path / "out" / "origin.json").read_text())["sha256"]
    assert len([name for name in files if name.startswith("model-0000")]) > 2


@pytest.mark.parametrize("fused", ["qkv_proj.{}", "in_proj_{}"])
def test_fused_attention(directory, converted, tmp_path, fused):
    tensors = safetensors.load_file(directory / "model.safetensors")
    for name in [n for n in tensors if ".q_proj." in n]:
        layer, kind = name.split("q_proj.")
        parts = [tensors.pop(f"{layer}{part}_proj.{kind}") for part in "qkv"]
        tensors[layer + fused.format(kind)] = np.concatenate(parts)
    path = tmp_path / "clip"
    path.mkdir()
    (path / "config.json").write_bytes((directory / "config.json").read_bytes())
    safetensors.save_file(tensors, path / "model.safetensors")
    verified = Options(verify=fused == "qkv_proj.{}", tokenizer=str(DEMO_MERGES))
    convert_clip(str(path), str(tmp_path / "out"), verified)
    assert_same_params(read(tmp_path / "out").params, read(converted).params)


def test_old_directories_hold_a_pytorch_file(converted, tmp_path):
    path = tmp_path / "clip"
    random_model().config.save_pretrained(path)
    # Of before the causal mask's and positions' buffers were left out.
    extra = {"text_model.embeddings.position_ids": torch.arange(20)[None]}
    torch.save(random_model().state_dict() | extra, path / "pytorch_model.bin")
    convert_clip(str(path), str(tmp_path / "out"), Options(tokenizer=str(DEMO_MERGES)))
    assert_same_params(read(tmp_path / "out").params, read(converted).params)


def test_a_file_with_hugging_face_names(directory, converted, tmp_path):
    path = directory / "model.safetensors"
    assert "--activation" in refused(path, tmp_path)
    given = Options(verify=True, activation="quick_gelu", tokenizer=str(DEMO_MERGES))
    convert_clip(str(path), str(tmp_path / "out"), given)
    assert_same_params(read(tmp_path / "out").params, read(converted).params)


@pytest.mark.filterwarnings("ignore")
def test_openai_archive_and_state_dict(tmp_path, capsys):
    tensors = random_tensors()
    module = scripted(tensors)
    torch.jit.save(module, tmp_path / "script.pt")
    torch.save(module.state_dict(), tmp_path / "state.pt")
    expected = rules.from_torch_names(tensors)
    for name, container in (("script", "TorchScript archive"), ("state", "PyTorch file")):
        options = Options(tokenizer=str(DEMO_MERGES), verify=name == "script")
        convert_clip(str(tmp_path / f"{name}.pt"), str(tmp_path / name), options)
        assert_same_params(read(tmp_path / name).params, expected.params)
        origin = json.loads((tmp_path / name / "origin.json").read_text())
        assert origin["format"].startswith(container)
        assert origin["unused"] == ["context_length", "input_resolution", "vocab_size"]
    assert "context_length (1)" in capsys.readouterr().out


@pytest.mark.parametrize("container", ["state dict", "safetensors", "training checkpoint", "apart"])
def test_open_clip(tmp_path, container):
    table = OPEN_CLIP if container == "apart" else OPENAI
    tensors, path = random_tensors(table), tmp_path / "open_clip_file"
    if container == "safetensors":
        safetensors.save_file(tensors, path)
    elif container == "training checkpoint":
        state = {f"module.{name}": torch.from_numpy(x) for name, x in tensors.items()}
        torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {}}, path)
    else:
        save(path, tensors)
    # The tensors do not show the activation.
    assert "--activation" in refused(path, tmp_path)
    verified = Options("apart" in container, tokenizer=str(DEMO_MERGES), activation="gelu")
    convert_clip(str(path), str(tmp_path / "weights"), verified)
    loaded = read(tmp_path / "weights")
    assert loaded.config.clip.activation == "gelu"
    assert_same_params(loaded.params, rules.from_torch_names(tensors).params)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("apart", [True, False])
def test_open_clips_own_model(tmp_path, quick, apart):
    reason = "open_clip, which needs torchvision, is not installed"
    models = pytest.importorskip("open_clip.model", reason=reason)
    settings = open_clip_settings()
    make = models.CustomTextCLIP if apart else models.CLIP
    model = make(**settings, quick_gelu=quick).eval()
    torch.save(torch_glscl.randomise(model, seed=0).state_dict(), tmp_path / "model.pt")
    made = Options(tokenizer=str(DEMO_MERGES), activation="quick_gelu" if quick else "gelu")
    convert_clip(str(tmp_path / "model.pt"), str(tmp_path / "out"), made)
    loaded = read(tmp_path / "out")
    inputs = verify.make_inputs(loaded.config.clip)
    ours = verify.stages(loaded.params, loaded.config.clip, inputs)
    ids = np.pad(inputs.ids, ((0, 0), (0, 20 - inputs.ids.shape[1])))
    with torch.no_grad():
        images = model.encode_image(torch.from_numpy(inputs.images).permute(0, 3, 1, 2))
        texts = model.encode_text(torch.from_numpy(ids))
    np.testing.assert_allclose(ours["image embedding"], images, rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours["text embedding"], texts, rtol=0, atol=1e-5)


@pytest.mark.parametrize("quick", [True, False])
def test_open_clip_directories_say_their_activation(tmp_path, quick):
    path = open_clip_directory(tmp_path / "clip", {"quick_gelu": quick} if quick else {})
    convert_clip(str(path), str(tmp_path / "out"), Options(tokenizer=str(DEMO_MERGES)))
    assert read(tmp_path / "out").config.clip.activation == ("quick_gelu" if quick else "gelu")


def open_clip_settings() -> dict:
    """`SMALL` in open_clip's words."""
    return {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 16, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {
            "context_length": 20,
            "vocab_size": 600,
            "width": 128,
            "heads": 2,
            "layers": 1,
        },
    }


def open_clip_directory(path, changes, vision=None, images=None):
    path.mkdir()
    safetensors.save_file(random_tensors(), path / "open_clip_model.safetensors")
    model = open_clip_settings()
    model["vision_cfg"] |= vision or {}
    content = {"model_cfg": model | changes, "preprocess_cfg": images or {}}
    (path / "open_clip_config.json").write_text(json.dumps(content))
    return path


def test_exact_gelu_computes_the_same_as_transformers(tmp_path):
    random_model(**GELU).save_pretrained(tmp_path / "clip")
    verified = Options(verify=True, tokenizer=str(DEMO_MERGES))
    convert_clip(str(tmp_path / "clip"), str(tmp_path / "out"), verified)
    assert read(tmp_path / "out").config.clip.activation == "gelu"


def test_another_image_size(directory, tmp_path):
    # Verified against what transformers interpolates.
    convert_clip(str(directory), str(tmp_path / "out"), Options(verify=True, image_size=32))
    loaded = read(tmp_path / "out")
    assert loaded.config.clip.image_size == 32
    assert loaded.params["clip"]["vision"]["positional_embedding"].shape == (17, 64)
    said = json.loads((tmp_path / "out" / "origin.json").read_text())["image_size"]
    assert (said["source"], said["here"]) == (16, 32)
    assert "bicubic" in said["by"]
    assert "no multiple of the patch size, 8" in refused(directory, tmp_path, image_size=20)


def test_bfloat16(directory, converted, tmp_path, capsys):
    convert_clip(str(directory), str(tmp_path / "out"), Options(dtype="bfloat16", verify=True))
    assert "as stored, rounded" in capsys.readouterr().out
    rounded = jax.tree.map(lambda x: x.astype("bfloat16"), read(converted).params)
    assert_same_params(read(tmp_path / "out").params, rounded)
    figures = json.loads((tmp_path / "out" / "origin.json").read_text())["verification"]
    assert max(figures["float32"].values()) < 1e-5 < max(figures["as stored"].values()) < 1


# ---- And back --------------------------------------------------------------------------------


def test_huggingface_round_trip(directory, converted, tmp_path):
    convert_back(str(converted), str(tmp_path / "clip"), "huggingface", whole=False)
    before, after = (
        safetensors.load_file(path / "model.safetensors") for path in (directory, tmp_path / "clip")
    )
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    model = transformers.CLIPModel.from_pretrained(tmp_path / "clip", dtype="auto")
    ids, images = torch.tensor([[598, 5, 599]]), torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        ours, theirs = (m.eval()(ids, images).logits_per_image for m in (model, random_model()))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(tmp_path / "clip")
    caption = "a red circle"
    assert tokenizer(caption)["input_ids"] == VOCABULARY([caption], 20).ids[0][:5].tolist()


def test_pytorch_round_trip(tmp_path):
    tensors = random_tensors()
    options = Options(tokenizer=str(DEMO_MERGES), activation="quick_gelu")
    convert_clip(str(save(tmp_path / "a.pt", tensors)), str(tmp_path / "weights"), options)
    convert_back(str(tmp_path / "weights"), str(tmp_path / "b.pt"), "pytorch", whole=False)
    after = torch.load(tmp_path / "b.pt", weights_only=True)
    assert after.keys() == tensors.keys()
    assert all(after[n].numpy().tobytes() == tensors[n].tobytes() for n in tensors)
    with pytest.raises(UserError, match=r"is there already"):
        convert_back(str(tmp_path / "weights"), str(tmp_path / "b.pt"), "pytorch", whole=False)


# ---- Bad input -------------------------------------------------------------------------------


def test_broken_files(directory, tmp_path):
    path = tmp_path / "file"
    assert "no such file" in refused(path, tmp_path)
    whole = (directory / "model.safetensors").read_bytes()
    state = save(tmp_path / "state.pt", random_tensors()).read_bytes()
    for content, message in (
        (b"", "is empty"),
        (b"weights", "no PyTorch file"),
        (state[: len(state) // 2], "no complete PyTorch file|no PyTorch file"),
        (whole[:-100], "cut short"),
        (whole[:500], "damaged safetensors"),
        (whole[:8] + b"{" + b"x" * 600, "damaged safetensors"),
    ):
        path.write_bytes(content)
        assert any(x in refused(path, tmp_path) for x in message.split("|")), content[:9]


def test_broken_directories(directory, tmp_path):
    assert "neither a Hugging Face directory" in refused(tmp_path, tmp_path / "out")
    random_model().save_pretrained(tmp_path / "clip", max_shard_size="300KB")
    shard = next((tmp_path / "clip").glob("model-00002*"))
    shard.rename(tmp_path / shard.name)
    assert shard.name in refused(tmp_path / "clip", tmp_path)
    index = tmp_path / "clip" / "model.safetensors.index.json"
    # Nothing outside the directory is read.
    index.write_text(index.read_text().replace(shard.name, f"../{shard.name}"))
    assert "another directory" in refused(tmp_path / "clip", tmp_path)
    index.write_text("[]")
    assert "an index of files" in refused(tmp_path / "clip", tmp_path)


class Command:
    """Pickled, it is a call of os.system: what a hostile file would hold."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_hostile_pickle_runs_nothing(tmp_path):
    trace = tmp_path / "trace"
    torch.save({"visual.proj": Command(f"touch {trace}")}, tmp_path / "clip.pt")
    assert "could run code" in refused(tmp_path / "clip.pt", tmp_path)
    folder = tmp_path / "clip"
    random_model().config.save_pretrained(folder)
    (tmp_path / "clip.pt").rename(folder / "pytorch_model.bin")
    assert "could run code" in refused(folder, tmp_path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("visual.layer1.0.conv1.weight", "a ResNet CLIP"),
        ("visual.attnpool.positional_embedding", "a ResNet CLIP"),
        ("vision_model.head.probe", "a SigLIP model"),
        ("logit_bias", "a SigLIP model"),
        ("visual.trunk.patch_embed.proj.weight", "a timm model"),
        ("text.transformer.embeddings.word_embeddings.weight", "a BERT-like text tower"),
        ("text_decoder.ln_final.weight", "a CoCa"),
    ],
)
def test_other_models_are_called_by_their_names(tmp_path, name, kind):
    tensors = random_tensors() | {name: np.zeros(3, np.float32)}
    message = refused(save(tmp_path / "model.pt", tensors), tmp_path, activation="gelu")
    assert kind in message
    assert name in message


def test_half_models_are_called_by_their_names(tmp_path):
    text = {n: x for n, x in random_tensors().items() if not n.startswith("visual.")}
    assert "a text model without" in refused(save(tmp_path / "text.pt", text), tmp_path)
    transformers.CLIPTextModel(random_model().config.text_config).save_pretrained(tmp_path / "text")
    assert "a text model without" in refused(tmp_path / "text", tmp_path)
    config = random_model().config.vision_config
    transformers.CLIPVisionModel(config).save_pretrained(tmp_path / "vision")
    assert "a vision model without" in refused(tmp_path / "vision", tmp_path)


def test_siglip_and_bert_directories_are_called_by_their_names(directory, tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "model.safetensors").write_bytes((directory / "model.safetensors").read_bytes())
    transformers.SiglipConfig().save_pretrained(path)
    assert "a SigLIP model" in refused(path, tmp_path)
    (path / "config.json").write_text('{"model_type": "bert"}')
    assert "'bert'" in refused(path, tmp_path)
    (path / "config.json").write_text("{")
    assert "config.json is damaged" in refused(path, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new'"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps 1e-06 is not 1e-05"),
        ({"num_attention_heads": 4}, "4 heads of width 128 are not 64 wide"),
    ],
)
def test_settings_that_the_model_does_not_have(directory, tmp_path, changes, message):
    config = json.loads((directory / "config.json").read_text())
    config["text_config"] |= changes
    path = tmp_path / "clip"
    path.mkdir()
    (path / "model.safetensors").write_bytes((directory / "model.safetensors").read_bytes())
    (path / "config.json").write_text(json.dumps(config))
    assert message in refused(path, tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"changes": {"custom": 1}}, "custom 1"),
        ({"changes": {}, "vision": {"no_ln_pre": True}}, "vision_cfg.no_ln_pre True"),
        ({"changes": {}, "vision": {"head_width": 80}}, "vision_cfg.head_width 80"),
        ({"changes": {}, "vision": {"layers": [3, 4]}}, "no ViT"),
        ({"changes": {}, "images": {"mean": [0.5, 0.5, 0.5]}}, "normalised by [0.5, 0.5, 0.5]"),
    ],
)
def test_open_clip_settings_that_the_model_does_not_have(tmp_path, settings, message):
    assert message in refused(open_clip_directory(tmp_path / "clip", **settings), tmp_path)


def test_images_normalised_otherwise(directory, tmp_path):
    path = tmp_path / "clip"
    path.mkdir()
    for name in ("config.json", "model.safetensors"):
        (path / name).write_bytes((directory / name).read_bytes())
    (path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    assert "normalised by [0.5, 0.5, 0.5]" in refused(path, tmp_path)


@pytest.mark.parametrize(("width", "name"), [(1280, "ViT-H"), (1408, "ViT-g"), (1664, "ViT-bigG")])
def test_heads_of_another_width(tmp_path, width, name):
    # Nothing but what the sizes are read from.
    tensors = {
        "visual.conv1.weight": np.zeros((width, 3, 1, 1), np.float16),
        "visual.positional_embedding": np.zeros((2, width), np.float16),
        "visual.transformer.resblocks.0.ln_1.weight": np.zeros(width, np.float16),
        "transformer.resblocks.0.ln_1.weight": np.zeros(64, np.float16),
        "token_embedding.weight": np.zeros((3, 64), np.float16),
        "positional_embedding": np.zeros((2, 64), np.float16),
        "text_projection": np.zeros((64, 64), np.float16),
    }
    path = save(tmp_path / "model.pt", tensors)
    assert name in refused(path, tmp_path, activation="gelu")


def test_widths_that_no_head_fits(tmp_path):
    tensors = random_tensors() | {"text_projection": np.zeros((128, 63), np.float32)}
    message = refused(save(tmp_path / "model.pt", tensors), tmp_path, activation="gelu")
    assert "embed_dim 63 is no multiple of 64" in message


def test_names_that_do_not_fit_are_listed(tmp_path):
    tensors = random_tensors()
    tensors["visual.ln_pre.wieght"] = tensors.pop("visual.ln_pre.weight")
    options = {"activation": "gelu", "tokenizer": str(DEMO_MERGES)}
    message = refused(save(tmp_path / "model.pt", tensors), tmp_path, **options)
    assert "unexpected: visual.ln_pre.wieght (nearest expected: visual.ln_pre.weight)" in message


def test_weights_that_are_not_finite(tmp_path):
    tensors = random_tensors()
    tensors["visual.proj"][3, 4], tensors["ln_final.bias"][0] = np.nan, np.inf
    path = save(tmp_path / "model.pt", tensors)
    options = {"activation": "gelu", "tokenizer": str(DEMO_MERGES)}
    message = refused(path, tmp_path, **options)
    assert "visual.proj" in message
    assert "ln_final.bias" in message
    convert_clip(str(path), str(tmp_path / "out"), Options(allow_nonfinite=True, **options))
    origin = json.loads((tmp_path / "out" / "origin.json").read_text())
    assert set(origin["nonfinite"]) == {"visual.proj", "ln_final.bias"}


def test_nothing_is_overwritten(directory, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="is there already"):
        convert_clip(str(directory), str(tmp_path / "out"))
    assert not list((tmp_path / "out").iterdir())


def test_a_failed_write_leaves_nothing(directory, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Tokenizer, "save", fail)
    assert "No space left on device" in refused(directory, tmp_path)


def test_without_pytorch(directory, tmp_path, monkeypatch):
    path = save(tmp_path / "model.pt", random_tensors())
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("convert.torch_stages", "convert.torch_glscl"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr("convert.torch_stages", raising=False)
    assert "requirements-torch.txt" in refused(path, tmp_path)
    assert "requirements-torch.txt" in refused(directory, tmp_path, verify=True)


def test_safetensors_need_no_pytorch(directory, converted, tmp_path):
    code = "import sys; sys.modules['torch'] = None; from convert.conversion import convert_clip; "
    code += "convert_clip(*sys.argv[1:])"
    out = tmp_path / "out"
    subprocess.run([sys.executable, "-c", code, directory, out], cwd=REPO, check=True)
    assert_same_params(read(out).params, read(converted).params)


def test_a_conversion_that_computes_something_else(directory, tmp_path, monkeypatch):
    # As if a projection had been left untransposed; 64 x 64, so that its shape fits.
    wrong = rules.from_torch_names

    def untransposed(*args):
        made = wrong(*args)
        vision = made.params["clip"]["vision"]
        vision["projection"] = np.ascontiguousarray(vision["projection"].T)
        return made

    monkeypatch.setattr(conversion.rules, "from_torch_names", untransposed)
    message = refused(directory, tmp_path, verify=True)
    assert "differs by" in message
    assert "'image embedding'" in message


@pytest.mark.parametrize("what", ["larger", "missing", "none"])
def test_tokenizers_that_do_not_fit(tmp_path, what, monkeypatch, capsys):
    path = save(tmp_path / "model.pt", random_tensors())
    if what == "larger":
        (tmp_path / "merges.txt").write_text(DEMO_MERGES.read_text() + "! !</w>\n")
        options = {"activation": "gelu", "tokenizer": str(tmp_path / "merges.txt")}
        assert "has 601 ids, the model 600" in refused(path, tmp_path, **options)
    elif what == "missing":
        # The model could have CLIP's own, and there is no hub.
        monkeypatch.setattr(conversion, "CLIP_VOCABULARY", SMALL.vocab_size)
        monkeypatch.setattr(conversion, "CLIP_TOKENIZER", str(tmp_path / "hub"))
        assert "bpe_simple_vocab_16e6.txt.gz" in refused(path, tmp_path, activation="gelu")
    else:
        # The model's vocabulary is not CLIP's: none is guessed.
        convert_clip(str(path), str(tmp_path / "out"), Options(activation="gelu"))
        assert "give the model's own with --tokenizer" in capsys.readouterr().out
        assert not (tmp_path / "out" / "tokenizer").exists()


# ---- The program -----------------------------------------------------------------------------


def test_the_program(run_program, directory, tmp_path):
    out = tmp_path / "out"
    finished = run_program("convert.clip", directory, out)
    assert "parameters in float32, from Hugging Face directory" in finished.stdout
    assert (out / "params").is_dir()
    back = run_program("convert.clip", out, tmp_path / "clip.pt", "--to=pytorch")
    assert "names of OpenAI CLIP" in back.stdout
    assert torch.load(tmp_path / "clip.pt", weights_only=True)["visual.proj"].shape == (64, 64)


def test_the_programs_arguments(run_program):
    one = run_program("convert.clip", "clip.pt", check=False)
    assert one_line_error(one) == "error: OUT is missing: give SOURCE OUT (--help says more)"
    help_text = run_program("convert.clip", "--help", check=False).stdout
    assert "python -m convert.clip ViT-B-32.pt" in help_text
    assert all(
        flag in help_text for flag in ("--activation", "--[no]verify", "--to", "--tokenizer")
    )


def test_safetensors_are_read_as_the_library_reads_them(directory):
    theirs = safetensors.load_file(directory / "model.safetensors")
    ours = safetensors_file.read(directory / "model.safetensors")
    assert theirs.keys() == ours.keys()
    for name, tensor in ours.items():
        assert tensor.shape == theirs[name].shape
        np.testing.assert_array_equal(np.asarray(tensor), theirs[name])
    assert rules.detect(ours) is HUGGING_FACE
