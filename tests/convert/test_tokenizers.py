"""Models of other families with their own tokenizers: converted, read, trained and given back."""

import dataclasses
import json

import numpy as np
import pytest

import glscl_jax
from configs import common
from convert.conversion import Options, convert_clip
from convert.export import convert_back
from convert.readers import hugging_face
from convert.readers.hugging_face import transformers_config, transformers_model
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.training import inherited, inputs, recipe
from tests import trained_tokenizers
from tests.clip_sources import (
    VOCABULARY,
    read,
    refused,
    safetensors,
    torch,
    torch_glscl,
    transformers,
)

CAPTIONS = [
    "a man plays the guitar",
    "A Dog, runs... on the BEACH!",
    "",
    "😀 日本 café",
    "two people are talking about cars while it rains slowly " * 5,
]
# A family's small model, its tokenizer, and the kind that this is.
FAMILIES = {
    "siglip": ("tiny-SigLIP", "siglip"),
    "siglip_2": ("tiny-SigLIP", "siglip2"),
    "xlm": ("tiny-MetaCLIP2", "xlm_v"),
}


def published(path, family, fresh=False):
    """A model of random weights as the family's authors publish theirs, with its tokenizer.

    With `fresh` they are such as training starts from.
    """
    clip = dataclasses.replace(VARIANTS[FAMILIES[family][0]], text_layers=1, vocab_size=700)
    settings = transformers_config(clip)
    torch.manual_seed(0)
    model = transformers_model(settings)(settings)
    (model if fresh else torch_glscl.randomise(model, seed=0)).save_pretrained(path)
    getattr(trained_tokenizers, family)(path)
    return path


def text_features(path, captions) -> np.ndarray:
    """transformers' own, by its own tokenizer of the same directory."""
    model = transformers.AutoModel.from_pretrained(path).eval()
    kind = model.config.model_type
    said = json.loads((path / "tokenizer_config.json").read_text())["tokenizer_class"]
    # As SigLIP 2's files are read here: in lower case, which Gemma's class alone does not do.
    opener = transformers.Siglip2Tokenizer if "Gemma" in said else transformers.AutoTokenizer
    inputs = opener.from_pretrained(path)(
        captions,
        padding="max_length",
        truncation=True,
        max_length=model.config.text_config.max_position_embeddings,
        return_tensors="pt",
    )
    masked = {} if kind == "siglip" else {"attention_mask": inputs["attention_mask"]}
    with torch.no_grad():
        pooled = model.text_model(inputs["input_ids"], **masked).pooler_output
        found = pooled if kind == "siglip" else model.text_projection(pooled)
    return found.numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_captions_have_the_embeddings_of_the_family_s_own_library(tmp_path, family, capsys):
    path = published(tmp_path / "theirs", family)
    convert_clip(str(path), str(tmp_path / "ours"), Options(verify=True))
    assert "5 captions have the same ids in transformers." in capsys.readouterr().out
    loaded = glscl_jax.load(tmp_path / "ours")
    assert loaded.tokenizer.kind == loaded.config.clip.tokenizer == FAMILIES[family][1]
    assert loaded.num_words == loaded.config.clip.context_length
    with pytest.warns(UserWarning, match="1 of 5 captions are cut"):
        found = loaded.encode_captions(CAPTIONS).sentence
    np.testing.assert_allclose(found, text_features(path, CAPTIONS), rtol=0, atol=2e-5)
    distances = np.linalg.norm(found[:, None] - found[None], axis=-1)
    assert distances[~np.eye(5, dtype=bool)].min() > 1e-2
    # And the way back: the directory's tokenizer is the model's.
    convert_back(str(tmp_path / "ours"), str(tmp_path / "back"), "huggingface", whole=False)
    np.testing.assert_allclose(text_features(tmp_path / "back", CAPTIONS), found, rtol=0, atol=2e-5)
    said = json.loads((tmp_path / "back" / "tokenizer_config.json").read_text())
    assert said["model_max_length"] == loaded.num_words
    text = transformers.AutoConfig.from_pretrained(tmp_path / "back").text_config
    assert text.eos_token_id == loaded.tokenizer.end_id
    assert text.pad_token_id == loaded.tokenizer.frame.pad_id


OTHERS = [
    ("siglip", "clip", "CLIP's byte pairs"),
    ("siglip", "bert", "a tokenizer.json by its own rules"),
    ("siglip", "xlm", "XLM-V's tokenizer"),
    ("siglip", "siglip_2", None),
    ("siglip", "siglip", None),
    ("videoprism", "xlm", "XLM-V's tokenizer"),
    ("videoprism", "siglip", "SigLIP's pieces"),
    ("videoprism", "videoprism", None),
    ("xlm", "xlm", None),
]


@pytest.mark.parametrize(("family", "beside", "told"), OTHERS)
def test_another_family_s_tokenizer_beside_the_weights_is_said(
    tmp_path, family, beside, told, monkeypatch, capsys
):
    variants = {"videoprism": "tiny-VideoPrism"} | {name: FAMILIES[name][0] for name in FAMILIES}
    clip = dataclasses.replace(VARIANTS[variants[family]], text_layers=1, vocab_size=700)
    settings = transformers_config(clip)
    path = tmp_path / "theirs"
    transformers_model(settings)(settings).save_pretrained(path)
    if beside == "clip":
        VOCABULARY.save(path)
    elif beside == "videoprism":
        trained_tokenizers.pieces(path / "spiece.model")
    else:
        getattr(trained_tokenizers, beside)(path)
    convert_clip(str(path), str(tmp_path / "ours"), Options())
    printed = capsys.readouterr().out
    if told is None:
        assert "its tokenizer is" not in printed
    else:
        (said,) = (row for row in printed.splitlines() if "its tokenizer is" in row)
        assert f"{path}: its tokenizer is {told}" in said
        assert "it is taken as the model's own" in said


def test_a_siglip_2_with_its_rules_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(hugging_face, "_GEMMAS", 700)
    path = published(tmp_path / "theirs", "siglip_2")
    expected = text_features(path, CAPTIONS)
    (path / "tokenizer_config.json").unlink()
    convert_clip(str(path), str(tmp_path / "ours"), Options())
    loaded = glscl_jax.load(tmp_path / "ours")
    assert loaded.tokenizer.kind == loaded.config.clip.tokenizer == "siglip2"
    with pytest.warns(UserWarning, match="1 of 5 captions are cut"):
        found = loaded.encode_captions(CAPTIONS).sentence
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_verification_sees_another_tokenizer(tmp_path, monkeypatch):
    from convert import conversion
    from glscl_jax.input_pipeline.tokenizer import Frame

    path, reader = published(tmp_path / "theirs", "xlm"), conversion.read_tokenizer

    def without_start(*arguments):
        found = reader(*arguments)
        found.frame = Frame((), found.frame.end, found.frame.pad_id)
        return found

    monkeypatch.setattr(conversion, "read_tokenizer", without_start)
    message = refused(path, tmp_path, verify=True)
    assert "transformers.XLMRobertaTokenizer makes other ids of 'a man plays the guitar'" in message


def test_without_a_tokenizer_it_is_said_whose_is_missing(tmp_path, capsys):
    path = published(tmp_path / "theirs", "xlm")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).unlink()
    convert_clip(str(path), str(tmp_path / "ours"), Options())
    assert "the model takes XLM-V's tokenizer" in capsys.readouterr().out
    assert read(tmp_path / "ours").config.clip.tokenizer == "xlm_v"
    with pytest.raises(UserError, match="has no tokenizer: convert its source again"):
        glscl_jax.load(tmp_path / "ours").encode_captions("a man")
    # Nor does training start from it with CLIP's.
    source = inherited.read_source(tmp_path / "ours")
    config = common.base()
    config.data.tokenizer = "demo"
    config = inherited.resolve(config, source, inherited.Chosen.of(config))
    asked = inputs.Asked(config, config, recipe.read(config), source, inherited.Chosen.of(config))
    with pytest.raises(UserError, match="is of another vocabulary: it has CLIP's byte pairs"):
        inputs.open_tokenizer(asked)
    given = trained_tokenizers.xlm(tmp_path / "tokenizer")
    with config.unlocked():
        config.data.tokenizer = str(given)
    assert inputs.open_tokenizer(asked).kind == "xlm_v"
    convert_clip(str(path), str(tmp_path / "whole"), Options(tokenizer=str(given)))
    assert glscl_jax.load(tmp_path / "whole").encode_captions("a man").sentence.shape == (1, 128)


def test_tokenizers_of_another_vocabulary(tmp_path):
    path = published(tmp_path / "theirs", "xlm")
    message = refused(path, tmp_path, tokenizer=str(DEMO_MERGES))
    assert "is of another vocabulary: it has CLIP's byte pairs, and the model takes XLM" in message
    other = trained_tokenizers.siglip_2(tmp_path / "gemma")
    assert "it has Gemma's tokenizer" in refused(path, tmp_path, tokenizer=str(other))
    # More ids than the embedding has rows.
    said = json.loads((other / "tokenizer.json").read_text())
    said["added_tokens"].append(said["added_tokens"][0] | {"id": 700, "content": "<more>"})
    said["model"]["vocab"]["<more>"] = 700
    (other / "tokenizer.json").write_text(json.dumps(said))
    siglip = published(tmp_path / "siglip", "siglip_2")
    assert "has 701 ids, the model 700" in refused(siglip, tmp_path, tokenizer=str(other))
    # And one that ends captions otherwise than the model looks for.
    config = json.loads((path / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 5
    (path / "config.json").write_text(json.dumps(config))
    assert "takes a sentence from token 5 and its tokenizer ends captions with 2" in refused(
        path, tmp_path
    )


def test_a_directory_that_lacks_its_tokenizer_s_file(tmp_path):
    path = published(tmp_path / "theirs", "siglip_2")
    (path / "tokenizer.json").unlink()
    assert "tokenizer.json is not there: add it" in refused(path, tmp_path)
    (path / "tokenizer.json").write_text("{")
    assert "tokenizer.json: cannot be read as a tokenizer's file" in refused(path, tmp_path)


def test_open_clip_s_directories_take_their_tokenizer(tmp_path):
    """A model of OpenAI's build with XLM-V's tokenizer, as open_clip's worldwide models are."""
    from tests.clip_sources import SMALL, open_clip_directory, random_tensors

    text = {"hf_tokenizer_name": "facebook/xlm-v-base", "pool_type": "eos", "eos_id": 2}
    path = open_clip_directory(tmp_path / "theirs", {}, text=text)
    assert safetensors.load_file(path / "open_clip_model.safetensors").keys() == (
        random_tensors().keys()
    )
    assert "its tokenizer, facebook/xlm-v-base, is not beside it" in refused(path, tmp_path)
    trained_tokenizers.xlm(path)
    convert_clip(str(path), str(tmp_path / "ours"), Options())
    loaded = glscl_jax.load(tmp_path / "ours")
    assert (loaded.tokenizer.kind, loaded.config.clip.tokenizer) == ("xlm_v", "xlm_v")
    # Cleaned as open_clip does it.
    one, other = loaded.tokenize(["rock &amp; roll", "rock & roll"]).ids
    np.testing.assert_array_equal(one, other)
    assert loaded.num_words == SMALL.context_length
    settings = json.loads((path / "open_clip_config.json").read_text())
    settings["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"language": "en"}
    (path / "open_clip_config.json").write_text(json.dumps(settings))
    assert "its tokenizer is used as none here" in refused(path, tmp_path)
    # Of the highest id, where the end token is not, nothing can be taken.
    settings["model_cfg"]["text_cfg"] = settings["model_cfg"]["text_cfg"] | {
        "pool_type": "argmax",
        "tokenizer_kwargs": {},
    }
    (path / "open_clip_config.json").write_text(json.dumps(settings))
    assert "takes a sentence from a caption's highest id" in refused(path, tmp_path)


@pytest.mark.slow
def test_training_and_evaluation_with_a_family_s_tokenizer(shapes, forks, tmp_path):
    """From a small SigLIP 2, whose texts are as long as its context and see their padding."""
    path = published(tmp_path / "theirs", "siglip_2", fresh=True)
    convert_clip(str(path), str(tmp_path / "ours"), Options())
    forks(
        "glscl_jax.input_pipeline.prepare",
        "--dataset=folder",
        f"--source={shapes / 'videos'}",
        f"--data_dir={tmp_path / 'data'}",
        "--frame_rate=2",
        f"--for={tmp_path / 'ours'}",
    )
    arguments = (
        "--config=configs/folder.py",
        f"--workdir={tmp_path / 'run'}",
        f"--config.init_from={tmp_path / 'ours'}",
        f"--config.data.dir={tmp_path / 'data'}",
        "--config.data.frame_rate=2",
        "--config.data.num_frames=2",
        "--config.batch_size=16",
        "--config.eval_batch_size=8",
        "--config.num_steps=30",
        "--config.log_every=2",
        "--config.optim.learning_rate=2e-3",
        "--config.optim.coef_lr=1.0",
        "--config.model.temporal_layers=1",
        "--config.model.head.lim_layers=1",
        "--config.model.head.lim_feed_forward=64",
    )
    done = forks("glscl_jax.train", *arguments)
    assert "16 words" in done.stdout
    # Words of colours that no other family's vocabulary was trained on are many tokens.
    assert "train captions" in done.stdout
    assert "are cut" in done.stdout
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = map(json.loads, lines)
    losses = [row["loss/total"] for row in rows if "loss/total" in row]
    assert len(losses) == 15
    assert np.mean(losses[-3:]) < 0.95 * np.mean(losses[:3])
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["num_words"] == 16
    assert config["model"]["clip"]["tokenizer"] == "siglip2"
    loaded = glscl_jax.load(tmp_path / "run")
    assert loaded.tokenizer.sha256 == glscl_jax.load(tmp_path / "ours").tokenizer.sha256
    forks("glscl_jax.evaluate", f"--checkpoint={tmp_path / 'run'}", "--noreport")
    # Another tokenizer's ids would be other words.
    other = trained_tokenizers.xlm(tmp_path / "other")
    failed = forks(
        "glscl_jax.train",
        *arguments,
        f"--workdir={tmp_path / 'second'}",
        f"--config.data.tokenizer={other}",
        check=False,
    )
    assert failed.returncode
    assert "is another than that of config.init_from" in failed.stderr
