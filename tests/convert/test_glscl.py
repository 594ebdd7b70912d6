"""Whole GLSCL checkpoints in and out: the golden one, and small random ones of every kind."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import traverse_util

from convert.conversion import Options, convert_clip, convert_glscl
from convert.export import convert_back
from convert.naming import rules
from convert.naming.published_names import CLIP4CLIP
from convert.naming.published_names import GLSCL as NAMES
from convert.readers import torch_file
from convert.verification import verify
from glscl_jax.checkpoints.model_dir import load_model
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES
from glscl_jax.models.glscl import GLSCL, GLSCLConfig
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.runtime import sharding
from tests.builders import SMALL_CLIP
from tests.conftest import one_line_error

torch = pytest.importorskip("torch", reason="PyTorch is missing: see requirements-torch.txt")
transformers = pytest.importorskip("transformers")
from safetensors import numpy as safetensors  # noqa: E402

from convert.verification import torch_glscl  # noqa: E402

CHECKPOINT = "tiny_glscl_checkpoint.pt"
SMALL = GLSCLConfig(
    clip=dataclasses.replace(SMALL_CLIP, image_size=16, context_length=20),
    temporal_layers=2,
    head=GLSCLHead(queries=3, lim_layers=2, lim_feed_forward=96),
)


@pytest.fixture(scope="module")
def converted(golden, tmp_path_factory):
    """The golden checkpoint, converted and verified."""
    out = tmp_path_factory.mktemp("weights") / "glscl"
    convert_glscl(str(golden / CHECKPOINT), str(out), Options(verify=True))
    return out


def random_checkpoint(path, config=SMALL, prefix="", parts=NAMES.parts, **extra):
    """A state dict as the released code saves it, of torch.nn modules."""
    module = torch_glscl.randomise(torch_glscl.GLSCL(config, parts), seed=0)
    state = {prefix + name: tensor for name, tensor in module.state_dict().items()}
    state |= {prefix + name: torch.full((2, 3), value) for name, value in extra.items()}
    torch.save(state, path)
    return path


def read(path):
    return load_model(path, sharding.replicated(sharding.make_mesh(jax.devices()[:1])))


def params_of(path):
    """The parameters that a state dict stands for, past the programs."""
    return rules.from_torch_names(torch_file.read_state_dict(path)).params


def assert_same_params(one, other):
    one, other = (traverse_util.flatten_dict(jax.device_get(x), sep="/") for x in (one, other))
    assert one.keys() == other.keys()
    for path in one:
        np.testing.assert_array_equal(one[path], other[path], err_msg=path)


def options(**changes) -> Options:
    return Options(**{"tokenizer": str(DEMO_MERGES)} | changes)


def test_the_golden_checkpoint_scores_as_the_original(golden, converted):
    loaded = read(converted)
    config = loaded.config
    assert (config.head.queries, config.head.lim_layers, config.temporal_layers) == (4, 2, 4)
    assert (config.head.temperature, config.head.lim_weight) == (3.0, 0.5)
    with np.load(golden / "tiny.npz") as stored:
        numbers = dict(stored)
    text, video, _ = jax.jit(GLSCL(config).apply)(
        {"params": loaded.params},
        numbers["input/text_ids"],
        numbers["input/text_mask"],
        numbers["input/video"].transpose(0, 1, 3, 4, 2),
        numbers["input/video_mask"],
    )
    score = GLSCLHead(3.0, 0.5).score(text, video)
    np.testing.assert_allclose(score, numbers["eval/sim"], rtol=0, atol=2e-5)


def test_the_origin_of_the_golden_checkpoint(converted):
    origin = json.loads((converted / "origin.json").read_text())
    assert origin["source"] == CHECKPOINT
    assert list(origin["sha256"]) == [CHECKPOINT]
    assert len([name for name in origin["unused"] if name.startswith("weight_fc.")]) == 4
    stages = origin["verification"]["float32"]
    assert max(stages.values()) < 1e-5
    assert list(stages)[-5:] == [
        "text embedding",
        "frame features",
        "text queries",
        "video queries",
        "score",
    ]
    assert "vision: block 2" in stages
    assert "text: block 4" in stages


def test_pytorch_round_trip(golden, converted, tmp_path):
    convert_back(str(converted), str(tmp_path / "glscl.bin"), "pytorch", whole=True)
    before = torch.load(golden / CHECKPOINT, weights_only=True)
    after = torch.load(tmp_path / "glscl.bin", weights_only=True)
    unused = set(json.loads((converted / "origin.json").read_text())["unused"])
    assert after.keys() == before.keys() - unused
    for name, tensor in after.items():
        assert tensor.numpy().tobytes() == before[name].numpy().tobytes(), name
    # In modules of torch.nn, by name and nothing missing.
    module = torch_glscl.GLSCL(read(converted).config)
    assert not module.load_state_dict(after, strict=False).missing_keys


def test_its_clip_goes_back_alone(golden, converted, tmp_path, capsys):
    convert_back(str(converted), str(tmp_path / "clip.pt"), "pytorch", whole=False)
    assert "left out, as it has no place there: lim, temporal" in capsys.readouterr().out
    # The golden CLIP holds the same weights under OpenAI's names.
    before = torch.load(golden / "tiny_clip_state_dict.pt", weights_only=True)
    after = torch.load(tmp_path / "clip.pt", weights_only=True)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    convert_back(str(converted), str(tmp_path / "clip"), "huggingface", whole=True)
    model = transformers.CLIPModel.from_pretrained(tmp_path / "clip")
    assert torch.equal(model.logit_scale, before["logit_scale"])
    tensors = safetensors.load_file(tmp_path / "clip" / "model.safetensors")
    assert_same_params(
        rules.from_torch_names(tensors).params, {"clip": read(converted).params["clip"]}
    )


@pytest.mark.parametrize(
    "changes",
    [
        ("seqLSTM", {"share_queries": False}),
        ("None", {"share_decoder": False}),
    ],
    ids=["lstm, own queries", "none, own decoder"],
)
def test_what_the_tensors_show_is_inferred(tmp_path, changes):
    kind, own = changes
    head = dataclasses.replace(SMALL.head, **own)
    config = dataclasses.replace(SMALL, temporal=kind, head=head)
    path = random_checkpoint(tmp_path / "model.bin.3", config)
    convert_glscl(str(path), str(tmp_path / "out"), options(verify=True))
    loaded = read(tmp_path / "out")
    if config.temporal != "seqTransf":
        config = dataclasses.replace(config, temporal_layers=GLSCLConfig().temporal_layers)
    assert loaded.config == config
    assert_same_params(loaded.params, params_of(path))


def test_what_the_tensors_do_not_show_is_given(tmp_path):
    path = random_checkpoint(
        tmp_path / "model.bin", prefix="module.", **{"weight_fc.0.weight": 1.0}
    )
    given = {"temperature": 5.0, "lim_weight": 0.25, "lim_heads": 4}
    # With other heads the queries are others: verified as well.
    convert_glscl(str(path), str(tmp_path / "out"), options(head=given, verify=True))
    loaded = read(tmp_path / "out")
    assert loaded.config == dataclasses.replace(
        SMALL, head=dataclasses.replace(SMALL.head, **given)
    )
    origin = json.loads((tmp_path / "out" / "origin.json").read_text())
    assert origin["unused"] == ["module.weight_fc.0.weight"]
    with pytest.raises(UserError, match="--lim_heads 7 does not divide 64"):
        convert_glscl(str(path), str(tmp_path / "other"), options(head={"lim_heads": 7}))


def test_half_precision_is_asked_what_is_in_use(tmp_path):
    config = dataclasses.replace(
        SMALL, head=dataclasses.replace(SMALL.head, share_queries=False, share_decoder=True)
    )
    path = random_checkpoint(tmp_path / "model.bin", config)
    state = torch.load(path, weights_only=True)
    state["noun_queries"] = torch.rand(3, 64) + 1e-4
    torch.save({name: tensor.half() for name, tensor in state.items()}, path)
    with pytest.raises(UserError, match=r"give --share_queries or --noshare_queries$"):
        convert_glscl(str(path), str(tmp_path / "out"), options())
    for shared in (True, False):
        out = tmp_path / f"shared {shared}"
        convert_glscl(str(path), str(out), options(head={"share_queries": shared}))
        assert read(out).config.head.share_queries == shared


def test_clip4clip_has_no_lim(tmp_path, capsys):
    path = random_checkpoint(tmp_path / "model.bin", parts=CLIP4CLIP.parts)
    convert_glscl(str(path), str(tmp_path / "out"), options(verify=True))
    assert "no LIM: training starts it fresh" in capsys.readouterr().out
    loaded = read(tmp_path / "out")
    assert sorted(loaded.params) == ["clip", "temporal"]
    assert_same_params(loaded.params, params_of(path))
    model = json.loads((tmp_path / "out" / "model.json").read_text())
    assert list(model) == ["clip", "temporal", "temporal_layers"]
    convert_back(str(tmp_path / "out"), str(tmp_path / "back.bin"), "pytorch", whole=True)
    before, after = (torch.load(x, weights_only=True) for x in (path, tmp_path / "back.bin"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_wrong_program(golden, converted, tmp_path):
    out = str(tmp_path / "out")
    with pytest.raises(UserError, match=r"CLIP alone: convert it with python -m convert\.clip"):
        convert_glscl(str(golden / "tiny_clip_state_dict.pt"), out)
    with pytest.raises(UserError, match=r"a GLSCL checkpoint: .* python -m convert\.glscl"):
        convert_clip(str(golden / CHECKPOINT), out)
    assert not list(tmp_path.iterdir())


def test_clip_alone_has_no_way_back_as_a_whole(golden, tmp_path):
    source, out = golden / "tiny_clip_state_dict.pt", tmp_path / "clip"
    convert_clip(str(source), str(out), Options(activation="quick_gelu"))
    with pytest.raises(UserError, match=r"holds CLIP alone: use python -m convert\.clip"):
        convert_back(str(out), str(tmp_path / "back"), "pytorch", whole=True)
    with pytest.raises(UserError, match=r"no checkpoint directory"):
        convert_back(str(tmp_path), str(tmp_path / "back"), "huggingface", whole=True)
    assert not (tmp_path / "back").exists()


def test_names_that_do_not_fit_are_listed(tmp_path):
    path = random_checkpoint(tmp_path / "model.bin", cross_encoder=0.0)
    with pytest.raises(UserError, match="unexpected: cross_encoder"):
        convert_glscl(str(path), str(tmp_path / "out"), options())
    assert [x.name for x in tmp_path.iterdir()] == ["model.bin"]


def test_a_verification_that_fails_names_its_stage():
    same = {"a": np.ones(3, np.float32), "b": np.full(3, 50.0, np.float32)}
    # At 50 a rounding is fifty times as large as at 1.
    off = {"a": same["a"] + 5e-5, "b": same["b"] + 4e-3}
    verify.check(verify.compare_stages(same, off), "it")
    for wrong in (3e-4, np.nan):
        compared = verify.compare_stages(same, off | {"a": same["a"] + wrong})
        with pytest.raises(UserError, match=r"it: .* at 'a' \(allowed: 1e-04\); nothing"):
            verify.check(compared, "it")
    assert "5.0e-05" in verify.table(verify.compare_stages(same, off))
    for other in ({"a": same["a"]}, same | {"a": np.ones(2)}):
        with pytest.raises(ValueError, match="against"):
            verify.compare_stages(same, other)


def test_the_program(forks, golden, tmp_path):
    out = tmp_path / "out"
    finished = forks(
        "convert.glscl", golden / CHECKPOINT, out, "--temperature=2", "--noshare_queries"
    )
    assert "saved in the source but never used" in finished.stdout
    assert "weight_fc (4)" in finished.stdout
    model = json.loads((out / "model.json").read_text())
    assert (model["head"]["temperature"], model["head"]["share_queries"]) == (2.0, False)
    wrong = forks(
        "convert.glscl", out, tmp_path / "x", "--to=pytorch", "--lim_weight=1", check=False
    )
    assert one_line_error(wrong) == "error: --lim_weight says nothing beside --to: leave it out"
