"""What a verification runs, what it says it assumes, and what it sees."""

import json

import pytest

from convert.conversion import Options, convert_clip
from convert.naming.published_names import OPEN_CLIP, OPENAI
from convert.readers import open_clip as reader
from convert.verification import torch_open_clip, verify
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES
from tests.clip_sources import (
    SMALL,
    VOCABULARY,
    copied,
    hugging_face_directory,
    open_clip_directory,
    open_clip_settings,
    random_tensors,
    refused,
    save,
    torch,
    torch_glscl,
)

GIVEN = {"tokenizer": str(DEMO_MERGES), "activation": "gelu"}
ASSUMED = "heads 64 wide, a causal text mask, the sentence at the highest id"


def origin_of(path, tmp_path, **options) -> dict:
    convert_clip(str(path), str(tmp_path / "out"), Options(verify=True, **options))
    return json.loads((tmp_path / "out" / "origin.json").read_text())


def test_texts_fill_the_context_and_end_as_the_tokenizer_ends_them():
    inputs = verify.make_inputs(SMALL, VOCABULARY)
    assert inputs.mask.sum(axis=1).tolist() == [20, 10, 2]
    padded = verify.make_inputs(SMALL.__class__(**vars(SMALL) | {"vocab_size": 900}), VOCABULARY)
    for ids in (inputs.ids, padded.ids):
        assert (ids[:, 0] == VOCABULARY.start_id).all()
        assert (ids.max(axis=1) == VOCABULARY.end_id).all()


def test_a_plain_file_says_what_is_assumed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch_open_clip, "_library", lambda: None)
    path = save(tmp_path / "model.pt", random_tensors())
    origin = origin_of(path, tmp_path, **GIVEN)
    said = capsys.readouterr().out
    assert f"assumed, as model.pt does not say it: activation gelu, {ASSUMED}" in said
    assert "open_clip is not installed, or has no architecture of these sizes" in said
    assert origin["assumed"][1] == "heads 64 wide"
    assert origin["verification"]["library"] == "torch.nn modules"
    assert "verified" not in said


def test_a_directory_assumes_nothing(tmp_path, capsys):
    path = hugging_face_directory(tmp_path / "clip")
    assert origin_of(path, tmp_path)["assumed"] == []
    assert "assumed" not in capsys.readouterr().out


def test_transformers_takes_the_sentence_itself(tmp_path, monkeypatch):
    """A config that names another end token is seen by the verification, too."""
    path = hugging_face_directory(tmp_path / "whole")
    config = json.loads((path / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 7
    wrong = copied(path, tmp_path / "clip", config=config)
    monkeypatch.setattr("convert.conversion._check_end", lambda *_: None)
    message = refused(wrong, tmp_path, verify=True, tokenizer=str(DEMO_MERGES))
    assert "at 'text embedding'" in message


# ---- open_clip itself -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library():
    found = torch_open_clip._library()
    if found is None:
        pytest.skip("open_clip is not installed: see requirements-twins.txt")
    return found


def open_clip_state(library, path, apart=False, **settings):
    """A state dict of open_clip's own model."""
    make = library.CustomTextCLIP if apart else library.CLIP
    model = make(**open_clip_settings() | settings)
    torch.save(torch_glscl.randomise(model, seed=0).state_dict(), path)
    return path


@pytest.mark.parametrize("size", [None, 32])
def test_directories_run_in_open_clip(library, tmp_path, size):
    path = open_clip_directory(tmp_path / "clip", {"quick_gelu": True})
    origin = origin_of(path, tmp_path, tokenizer=str(DEMO_MERGES), image_size=size)
    assert origin["verification"]["library"] == f"open_clip {library.__version__}'s clip"
    assert len(origin["verification"]["float32"]) == 8
    assert origin["assumed"] == []


@pytest.mark.parametrize("table", [OPENAI, OPEN_CLIP], ids=["one", "apart"])
def test_files_run_in_the_architecture_of_their_sizes(library, tmp_path, monkeypatch, table):
    settings = open_clip_settings()
    other = settings | {"embed_dim": 32}
    timm = settings | {"vision_cfg": settings["vision_cfg"] | {"timm_model_name": "vit"}}
    quick = settings | {"quick_gelu": True}
    known = {"Other": other, "Timm": timm, "Quick": quick, "Small": settings}
    monkeypatch.setattr(library, "list_models", lambda: list(known))
    monkeypatch.setattr(library, "get_model_config", known.get)
    path = save(tmp_path / "model.pt", random_tensors(table))
    origin = origin_of(path, tmp_path, **GIVEN)
    assert origin["verification"]["library"] == f"open_clip {library.__version__}'s Small"


def test_what_open_clip_computes_otherwise_is_seen(library, tmp_path, monkeypatch):
    settings = open_clip_settings()
    changes = {"text_cfg": {"no_causal_mask": True}, "vision_cfg": {"head_width": 32}}
    monkeypatch.setattr(reader, "tower_settings", lambda *_: {})
    stages = {"text_cfg": "'text: block 1'", "vision_cfg": "'vision: block 1'"}
    path = save(tmp_path / "model.pt", random_tensors())
    for part, change in changes.items():
        odd = settings | {part: settings[part] | change}
        monkeypatch.setattr(library, "list_models", lambda: ["Odd"])
        monkeypatch.setattr(library, "get_model_config", lambda name, odd=odd: odd)
        assert f"at {stages[part]}" in refused(path, tmp_path, verify=True, **GIVEN)


def test_the_librarys_own_architectures_are_found(library):
    sizes = SMALL.__class__(activation="gelu")
    found = dict(torch_open_clip._fitting(library, sizes))
    assert "ViT-B-32" in found
    quick = dict(torch_open_clip._fitting(library, SMALL.__class__()))
    assert "ViT-B-32-quickgelu" in quick
    assert not found.keys() & quick.keys()
