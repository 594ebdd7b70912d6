"""A model to the hub and back, against a server on the loopback that answers as the hub does."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors

from convert import hub
from convert.checkpoint_output import settings
from glscl_jax.checkpoints.model_dir import parameters_sha256, save_params
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from glscl_jax.files import write_json
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from glscl_jax.retriever import load
from tests.builders import SMALL, random_params
from tests.convert import hub_server

REPO = "user/model"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A checkpoint as a run's: its config.json tells of folders, too."""
    path = tmp_path_factory.mktemp("hub") / "weights"
    config = dataclasses.replace(SMALL, temporal="None")
    params = random_params(config)
    save_params(path, params)
    write_json(path / "model.json", settings(config, tuple(params)))
    data = {"num_words": 16, "num_frames": 5, "frame_rate": 2.0, "dir": "/home/someone/data"}
    write_json(path / "config.json", {"data": data, "workdir": "/home/someone/run"})
    CLIPTokenizer.from_merges(DEMO_MERGES).save(path / "tokenizer")
    (path / "tokenizer" / "run_me.py").write_text("raise SystemExit")
    return path


@pytest.fixture
def server(monkeypatch, tmp_path):
    with hub_server.serving() as found:
        from huggingface_hub import constants

        template = found.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
        yield found


def test_there_and_back(weights, server, tmp_path, capsys):
    hub.push(weights, REPO)
    assert server.repos[REPO]["private"]
    files = server.repos[REPO]["files"]
    tokenizer = {f"tokenizer/{n}" for n in ("vocab.json", "merges.txt", "tokenizer_config.json")}
    expected = {"params.safetensors", "model.json", "config.json", "origin.json"} | tokenizer
    assert files.keys() == expected
    # Of where things lie here nothing goes along.
    assert not [name for name, content in files.items() if b"someone" in content]
    assert json.loads(files["config.json"]) == {
        "data": {"num_words": 16, "num_frames": 5, "frame_rate": 2.0}
    }
    files["run_me.py"] = files["params.bin"] = b"not asked for"
    hub.pull(REPO, tmp_path / "back")
    assert f"parameters, from {REPO}" in capsys.readouterr().out
    one, other = load(weights), load(tmp_path / "back")
    assert parameters_sha256(one.params) == parameters_sha256(other.params)
    assert (other.num_words, other.num_frames) == (16, 5)
    assert other.tokenizer.sha256 == one.tokenizer.sha256
    # An evaluation needs more than that.
    with pytest.raises(UserError, match=r"config.json is no run's whole config: give --config"):
        Workdir(tmp_path / "back").config()
    names = {path.name for path in (tmp_path / "back").rglob("*")}
    assert not names & {"run_me.py", "params.bin", "params.safetensors"}


def test_what_is_there_is_not_overwritten(weights, server, tmp_path):
    server.make(REPO, True, **{".gitattributes": b"", "other.bin": b""})
    with pytest.raises(UserError, match=r"user/model holds something already \(other\.bin\)"):
        hub.push(weights, REPO)
    server.make(REPO, False, **{".gitattributes": b""})
    with pytest.raises(UserError, match="user/model is public: add --public"):
        hub.push(weights, REPO)
    hub.push(weights, REPO, public=True)
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="there is there already"):
        hub.pull(REPO, tmp_path / "there")


def test_what_cannot_be_pulled(weights, server, tmp_path):
    with pytest.raises(UserError, match="no such repository, or it is private: log in"):
        hub.pull("user/nowhere", tmp_path / "out")
    server.make(REPO, True, **{"model.json": b"{}"})
    with pytest.raises(UserError, match=r"user/model has no params\.safetensors"):
        hub.pull(REPO, tmp_path / "out")
    server.repos.clear()
    hub.push(weights, REPO)
    files = server.repos[REPO]["files"]
    arrays = safetensors.load(files["params.safetensors"])
    name = "clip/text/token_embedding/embedding"
    name = name if name in arrays else min(arrays)
    files["params.safetensors"] = safetensors.save(arrays | {name: np.zeros(3, np.float32)})
    with pytest.raises(UserError, match=rf"is damaged: params\.safetensors has {name} \(3,\), not"):
        hub.pull(REPO, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_the_network_or_a_token(weights, server, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    with pytest.raises(UserError, match=r"log in with hf auth login, or set HF_TOKEN"):
        hub.push(weights, REPO)
    # A port on which nobody listens.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for call in (lambda: hub.push(weights, REPO), lambda: hub.pull(REPO, tmp_path / "out")):
        with pytest.raises(UserError, match="the hub cannot be reached") as told:
            call()
        assert "\n" not in str(told.value)


def test_bfloat16_goes_along(weights, server, tmp_path):
    whole = load(weights).params
    params = jax.tree.map(lambda x: np.asarray(x).astype(ml_dtypes.bfloat16), whole)
    half = tmp_path / "half"
    save_params(half, params)
    (half / "model.json").write_bytes((weights / "model.json").read_bytes())
    hub.push(half, REPO)
    hub.pull(REPO, tmp_path / "back")
    assert parameters_sha256(load(tmp_path / "back").params) == parameters_sha256(params)
