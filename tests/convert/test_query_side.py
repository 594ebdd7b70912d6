"""An exported text side, run where this library cannot be imported, against the model's own."""

import dataclasses
import inspect
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import export

from convert import onnx_text, query_example, query_side
from glscl_jax import retriever
from glscl_jax.checkpoints.model_dir import save_params
from glscl_jax.errors import UserError
from glscl_jax.files import write_json
from glscl_jax.input_pipeline import cleaning
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from glscl_jax.input_pipeline.tokenizer_files import read_tokenizer
from glscl_jax.models.glscl import model_settings
from glscl_jax.models.heads.head import HEADS
from glscl_jax.models.heads.mean import MeanHead
from glscl_jax.models.heads.wti import WTIHead
from tests import trained_tokenizers
from tests.builders import SMALL, params_of

SHORT = dataclasses.replace(SMALL, temporal="None")
MODELS = {"glscl": SHORT.head, "mean": MeanHead(), "wti": WTIHead()}
WORDS = 16
ONE = jax.ShapeDtypeStruct((1,), np.int32)
CAPTIONS = (
    "a red square",
    "  A Red\n\tCIRCLE goes Left!! ",
    "rock &amp;amp; roll\N{RIGHT SINGLE QUOTATION MARK}s “café” İ ΟΔΟΣ",
    "a man " * 30,
    "",
    "it's 42",
)
# The folder of a model on sys.path, and nothing of this library.
ALONE = """
import json, pathlib, runpy, sys
import numpy as np
sys.modules |= {"glscl_jax": None, "convert": None}
base, captions = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
for folder in sorted(base.iterdir()):
    sys.path.insert(0, str(folder))
    used = runpy.run_path(folder / "query.py")
    if "TOKENS" in sys.argv:
        np.save(folder / "found.npy", used["tokenize"](captions))
    else:
        np.savez(folder / "found.npz", **used["features"](captions))
    sys.path.pop(0)
assert "ftfy" in sys.modules
"""


def write_model(path, head):
    """A checkpoint of random weights, trained with so many words."""
    config = dataclasses.replace(SHORT, head=head)
    params = jax.tree.map(lambda x: np.asarray(np.asarray(x) / 4), params_of(config, 0))
    save_params(path, params)
    write_json(path / "model.json", model_settings(config))
    write_json(path / "config.json", {"data": {"num_words": WORDS, "num_frames": 2}})
    CLIPTokenizer.from_merges(DEMO_MERGES).save(path / "tokenizer")
    return path


def run_alone(folder, captions, *more):
    """Runs the query.py of each folder in a process without this library."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, folder, json.dumps(captions), *more],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(models by name, the folder of their text sides), and what query.py found there."""
    base = tmp_path_factory.mktemp("query_side")
    (base / "out").mkdir()
    models = {}
    for name, head in MODELS.items():
        path = write_model(base / name, head)
        query_side.export_queries(path, base / "out" / name)
        models[name] = retriever.load(path)
    run_alone(base / "out", CAPTIONS)
    return models, base / "out"


@pytest.mark.parametrize("name", MODELS)
def test_it_computes_the_model_s_own_features(exported, name):
    models, folder = exported
    model, found = models[name], dict(np.load(folder / name / "found.npz"))
    with pytest.warns(UserWarning, match="2 of 6 captions are cut"):
        expected = model.encode_captions(list(CAPTIONS))
    vector = found.pop("text_vector", None)
    assert found.keys() == vars(expected).keys()
    for output, array in vars(expected).items():
        assert found[output].dtype == array.dtype
        np.testing.assert_allclose(found[output], array, atol=1e-5)
    expected = model.head.text_vector(expected)
    assert (vector is None) == (expected is None) == (name == "wti")
    if vector is not None:
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_the_card_says_what_goes_in_and_what_comes_out(exported):
    models, folder = exported
    card = json.loads((folder / "glscl" / "card.json").read_text())
    found = np.load(folder / "glscl" / "found.npz")
    assert card["inputs"]["text_ids"] == {"shape": ["A", WORDS], "dtype": "int32"}
    assert {name: ["A", *x.shape[1:]] for name, x in found.items()} == {
        name: told["shape"] for name, told in card["outputs"].items()
    }
    assert card["program"]["platforms"] == ["cpu", "cuda", "tpu"]
    assert card["model"]["head"]["name"] == "glscl"
    # Of the model it holds no more than is read: nothing of the frames' tower.
    names = set(np.load(folder / "glscl" / "text.npz"))
    assert names
    assert not [name for name in names if "vision" in name]
    assert {name for name in np.load(folder / "mean" / "text.npz") if "lim" in name} == set()
    assert models["glscl"].num_words == WORDS


@pytest.mark.parametrize("name", sorted(set(HEADS) - set(MODELS)))
def test_every_head_is_exported(tmp_path, name):
    model = retriever.load(write_model(tmp_path / name, HEADS[name]()))
    made = query_side.program(model)
    assert made.exported.platforms == query_side.PLATFORMS
    assert made.exported.in_avals[-1].shape[1:] == (WORDS,)


@pytest.mark.parametrize("length", [8, 16])
def test_tokenizers_of_all_families(tmp_path, length):
    families, out = ("siglip", "siglip_2", "xlm", "bert", "videoprism"), tmp_path / "out"
    captions = [
        *CAPTIONS[:4],
        CAPTIONS[5],
        "▁a▁b ▁",
        "日本 ½ e\N{COMBINING ACUTE ACCENT}",
        " a_dog-b",
    ]
    made = {}
    for family in families:
        source = getattr(trained_tokenizers, family)(tmp_path / f"{family}.model")
        kind = "videoprism" if family == "videoprism" else "siglip"
        made[family] = read_tokenizer(source, kind)
    made["clip"] = CLIPTokenizer.from_merges(DEMO_MERGES)
    for family, tokenizer in made.items():
        write_tokenizer(out / family, tokenizer, length)
    run_alone(out, captions, "TOKENS")
    for family, tokenizer in made.items():
        ids, mask = np.load(out / family / "found.npy")
        expected = tokenizer(captions, length)
        np.testing.assert_array_equal(ids, expected.ids, family)
        np.testing.assert_array_equal(mask, expected.mask, family)


def write_tokenizer(folder, tokenizer, length):
    """A text side that is all tokenizer: it computes nothing."""
    folder.mkdir(parents=True)
    portable = tokenizer.portable(length)
    nothing = export.export(jax.jit(lambda parameters, ids, mask: {}))({}, *[ONE] * 2)
    (folder / query_side.PROGRAM).write_bytes(nothing.serialize())
    np.savez(folder / query_side.PARAMETERS)
    (folder / portable.file).write_bytes(portable.content)
    (folder / query_side.CLEANING).write_text(inspect.getsource(cleaning))
    (folder / query_side.EXAMPLE).write_text(query_example.source(portable))
    how = {"length": length, "file": portable.file, "cleaning": portable.cleaning}
    how |= {"before": portable.before, **dataclasses.asdict(tokenizer.frame)}
    write_json(folder / query_side.CARD, {"tokenizer": how})


def test_what_cannot_be_exported(tmp_path, refusal):
    path = write_model(tmp_path / "model", MeanHead())
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="there is there already: name another OUT"):
        query_side.export_queries(path, tmp_path / "there")
    told = refusal("convert.queries", tmp_path / "nowhere", tmp_path / "out")
    assert "nowhere" in told
    for file in (path / "tokenizer").iterdir():
        file.unlink()
    (path / "tokenizer").rmdir()
    with pytest.raises(UserError, match="has no tokenizer: convert its source again"):
        query_side.export_queries(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", MODELS)
def test_as_onnx_of_one_sentence_at_a_time(exported, tmp_path, name, capsys):
    told = "--onnx needs jax2onnx and onnxruntime: pip install -r requirements-onnx.txt"
    pytest.importorskip("jax2onnx", reason=told)
    onnxruntime = pytest.importorskip("onnxruntime", reason=told)
    models, folder = exported
    query_side.export_queries(folder.parent / name, tmp_path / "out", onnx=True)
    assert "text.onnx: onnxruntime's features are the model's to" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "out" / "text.onnx")
    tokens = models[name].tokenizer(["a red circle"], WORDS)
    given = {"text_ids": tokens.ids, "text_mask": tokens.mask}
    names = [one.name for one in session.get_outputs()]
    given = {key: np.asarray(x, np.int32) for key, x in given.items()}
    found = dict(zip(names, session.run(None, given), strict=True))
    expected = models[name].encode_captions(["a red circle"])
    assert found.keys() - {"text_vector"} == vars(expected).keys()
    for output, array in vars(expected).items():
        np.testing.assert_allclose(found[output], array, atol=1e-5)


def test_onnx_that_differs_is_refused(exported, tmp_path, monkeypatch):
    pytest.importorskip("jax2onnx", reason="--onnx needs it: requirements-onnx.txt")
    monkeypatch.setattr(onnx_text, "_difference", lambda *given: float("nan"))
    with pytest.raises(UserError, match=r"features differ from the model's by nan, more than"):
        query_side.export_queries(exported[1].parent / "mean", tmp_path / "out", onnx=True)
    assert not (tmp_path / "out").exists()


def test_onnx_without_its_packages_is_a_line(exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    told = "--onnx needs jax2onnx, which is not installed: pip install -r requirements-onnx.txt"
    with pytest.raises(UserError, match=told):
        query_side.export_queries(exported[1].parent / "mean", tmp_path / "out", onnx=True)
    assert not (tmp_path / "out").exists()
