"""CLIP in and out, on small models of the real libraries with random weights."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from convert import conversion
from convert.conversion import Options, convert_clip
from convert.export import convert_back
from convert.naming import rules
from convert.naming.published_names import OPEN_CLIP, OPENAI
from convert.readers import source
from convert.verification import torch_stand_in, verify
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from glscl_jax.input_pipeline.tokenizer_files import load_tokenizer
from tests.clip_sources import (
    GELU,
    SMALL,
    VOCABULARY,
    assert_same_params,
    hugging_face_directory,
    open_clip_directory,
    open_clip_settings,
    random_model,
    random_tensors,
    read,
    refused,
    safetensors,
    save,
    scripted,
    torch,
    torch_glscl,
    transformers,
)
from tests.conftest import REPO, one_line_error


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return hugging_face_directory(tmp_path_factory.mktemp("hub") / "clip")


@pytest.fixture(scope="module")
def converted(directory, tmp_path_factory):
    out = tmp_path_factory.mktemp("weights") / "clip"
    convert_clip(str(directory), str(out), Options(verify=True))
    return out


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
    tokenizer = load_tokenizer(converted / "tokenizer")
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
    models = torch_stand_in.import_library("open_clip.model")
    if models is None:
        pytest.skip("open_clip is not installed: see requirements-twins.txt")
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
    # The same weights at other places in memory: PyTorch's sums may go in another order.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
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


# ---- What stops it ----------------------------------------------------------------------------


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

    monkeypatch.setattr(CLIPTokenizer, "save", fail)
    assert "No space left on device" in refused(directory, tmp_path)


def test_without_pytorch(directory, tmp_path, monkeypatch):
    path = save(tmp_path / "model.pt", random_tensors())
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("convert.verification.torch_stages", "convert.verification.torch_glscl"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr("convert.verification.torch_stages", raising=False)
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


def test_the_program(forks, directory, tmp_path):
    out = tmp_path / "out"
    finished = forks("convert.clip", directory, out)
    assert "parameters in float32, from Hugging Face directory" in finished.stdout
    assert (out / "params").is_dir()
    back = forks("convert.clip", out, tmp_path / "clip.pt", "--to=pytorch")
    assert "names of OpenAI CLIP" in back.stdout
    assert torch.load(tmp_path / "clip.pt", weights_only=True)["visual.proj"].shape == (64, 64)


def test_the_programs_arguments(forks):
    one = forks("convert.clip", "clip.pt", check=False)
    assert one_line_error(one) == "error: OUT is missing: give SOURCE OUT (--help says more)"
    help_text = forks("convert.clip", "--help", check=False).stdout
    assert "python -m convert.clip ViT-B-32.pt" in help_text
    assert all(
        flag in help_text for flag in ("--activation", "--[no]verify", "--to", "--tokenizer")
    )
