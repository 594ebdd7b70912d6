"""Files of other families' tokenizers: whose they are, and what is missing or wrong in them."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from glscl_jax.input_pipeline.tokenizer_files import load_tokenizer, read_tokenizer
from tests import trained_tokenizers
from tests.server import REPO
from tests.trained_tokenizers import ODD


def line(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_do_not_say_whose_they_are(directory, pieces, tmp_path):
    rules = directory("siglip_2") / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(rules.read_bytes())
    found = read_tokenizer(tmp_path, "siglip2")
    assert (found.kind, found.frame.end) == ("siglip2", (1,))
    np.testing.assert_array_equal(
        found(ODD, 9).ids, read_tokenizer(directory("siglip_2"))(ODD, 9).ids
    )
    assert read_tokenizer(pieces, "siglip").frame.end == (1,)
    assert "this model takes another tokenizer (clip)" in line(read_tokenizer, pieces)
    rules = directory("xlm") / "tokenizer.json"
    assert "name its directory" in line(read_tokenizer, rules)
    # The model beside it says the family.
    (tmp_path / "config.json").write_text('{"model_type": "metaclip_2"}')
    (tmp_path / "tokenizer.json").write_bytes(rules.read_bytes())
    assert read_tokenizer(tmp_path).kind == "xlm_v"


def test_a_siglip_2_s_rules_alone_beside_its_config(directory, tmp_path):
    """Its model_type is SigLIP's; whoever asks knows by the vocabulary which of the two it is."""
    rules = directory("siglip_2") / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(rules.read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    found = read_tokenizer(tmp_path, "siglip2")
    assert (found.kind, found.frame.end) == ("siglip2", (1,))
    expected = read_tokenizer(directory("siglip_2"))
    np.testing.assert_array_equal(found(ODD, 9).ids, expected(ODD, 9).ids)
    # SigLIP's own is its pieces.
    assert "spiece.model is not there" in line(read_tokenizer, tmp_path, "siglip")


def test_a_directory_without_its_tokenizer_s_file(directory, tmp_path):
    for family, wanted in {"siglip": "spiece.model", "xlm": "tokenizer.json"}.items():
        folder = tmp_path / family
        folder.mkdir()
        said = (directory(family) / "tokenizer_config.json").read_text()
        (folder / "tokenizer_config.json").write_text(said)
        message = line(read_tokenizer, folder)
        assert f"{wanted} is not there" in message
        assert str(folder) in message
    ours = read_tokenizer(directory("xlm"))
    for missing, told in {"captions": "lacks captions.json", "tokenizer": "lacks its"}.items():
        ours.save(tmp_path / "saved")
        (tmp_path / "saved" / f"{missing}.json").unlink()
        assert told in line(load_tokenizer, tmp_path / "saved")


@pytest.mark.parametrize("family", ["siglip", "siglip_2", "xlm"])
def test_damaged_files(directory, family, tmp_path):
    ours = read_tokenizer(directory(family))
    ours.save(tmp_path)
    name = ours.file
    whole = (tmp_path / name).read_bytes()
    for content in (b"", b"{", whole[: len(whole) // 2]):
        (tmp_path / name).write_bytes(content)
        assert f"{name}: cannot be read as a tokenizer's file" in line(load_tokenizer, tmp_path)
    published = tmp_path / "published"
    published.mkdir()
    for file in directory(family).iterdir():
        (published / file.name).write_bytes(file.read_bytes())
    (published / name).write_bytes(whole[: len(whole) // 2])
    assert f"{name}: cannot be read as a tokenizer's file" in line(read_tokenizer, published)
    (tmp_path / name).write_bytes(whole)
    for change in (
        {"kind": "other"},
        {"end": [-1]},
        {"end": "a"},
        {"cleaning": "none "},
        {"more": 1},
    ):
        ours.save(tmp_path)
        said = json.loads((tmp_path / "captions.json").read_text())
        (tmp_path / "captions.json").write_text(json.dumps(said | change))
        assert "captions.json is damaged" in line(load_tokenizer, tmp_path)
    (tmp_path / "captions.json").write_text("[")
    assert "captions.json is damaged" in line(load_tokenizer, tmp_path)


@pytest.mark.parametrize("kind", ["its own code", "beside a class of transformers"])
def test_code_in_a_directory_is_not_run(directory, kind, tmp_path, monkeypatch):
    # Nor is anybody asked whether it may be.
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    for file in directory("bert").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    ran = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    path = tmp_path / "tokenizer_config.json"
    told = json.loads(path.read_text()) if path.exists() else {}
    told["auto_map"] = {"AutoTokenizer": ["own.Own", "own.Own"]}
    told["tokenizer_class"] = "Own" if kind == "its own code" else "BertTokenizer"
    path.write_text(json.dumps(told))
    if kind == "its own code":
        assert "cannot be read as a tokenizer's file" in line(read_tokenizer, tmp_path)
    else:
        read_tokenizer(tmp_path)
    assert not ran.exists()


def test_siglip_s_files_of_another_tokenizer(tmp_path):
    path = trained_tokenizers.siglip(tmp_path / "a", pad_token="<pad>")
    assert read_tokenizer(path).frame.pad_id == 0
    path = trained_tokenizers.siglip(tmp_path / "b", eos_token="<end>")
    assert "has no piece '<end>', its eos_token" in line(read_tokenizer, path)
    path = trained_tokenizers.siglip(tmp_path / "c", do_lower_case=False)
    assert "do_lower_case is false" in line(read_tokenizer, path)
    path = trained_tokenizers.siglip(tmp_path / "d", additional_special_tokens=["<cat>"])
    assert "tokens of its own beside the pieces ('<cat>')" in line(read_tokenizer, path)


ODD_SETTINGS = [
    ("tokenizer_class", 5, "a name"),
    ("additional_special_tokens", 5, "a list of tokens"),
    ("additional_special_tokens", [["<cat>"]], "a list of tokens"),
    ("additional_special_tokens", [{"content": 5}], "a list of tokens"),
    ("added_tokens_decoder", [1], "tokens by their ids"),
    ("added_tokens_decoder", {"1": ["</s>"]}, "tokens by their ids"),
    ("added_tokens_decoder", {"one": "</s>"}, "tokens by their ids"),
    ("eos_token", ["</s>"], "a token"),
    ("pad_token", 1, "a token"),
    ("padding_side", "middle", "right or left"),
    ("do_lower_case", "false", "true or false"),
]


@pytest.mark.parametrize(("name", "value", "called"), ODD_SETTINGS)
@pytest.mark.parametrize("family", ["siglip", "siglip_2", "bert", "clip"])
def test_a_setting_of_another_type_is_a_line(directory, family, name, value, called, tmp_path):
    if family == "clip":
        CLIPTokenizer.from_merges(DEMO_MERGES).save(tmp_path / "a")
    else:
        shutil.copytree(directory(family), tmp_path / "a")
    path = tmp_path / "a" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    message = line(read_tokenizer, tmp_path / "a", family.replace("_", ""))
    assert f"{path}: {name} is {value!r}, not {called}: mend it" in message


def test_a_setting_that_is_null_is_left_to_the_class(tmp_path):
    found = read_tokenizer(trained_tokenizers.siglip(tmp_path / "a", eos_token=None))
    assert found.frame.end == (1,)


def test_sentencepiece_is_asked_for_where_it_is_needed(directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    assert "takes sentencepiece, which is not installed" in line(
        read_tokenizer, directory("siglip") / "spiece.model", "siglip"
    )


def test_ids_from_what_is_saved_need_no_heavy_import(directory, tmp_path):
    for family in ("siglip", "xlm"):
        read_tokenizer(directory(family)).save(tmp_path / family)
    program = f"""
import sys
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from glscl_jax.input_pipeline.tokenizer_files import load_tokenizer
assert not {{"sentencepiece", "transformers"}} & set(sys.modules)
for family in ("siglip", "xlm"):
    load_tokenizer({str(tmp_path)!r} + "/" + family)(["a man"], 8)
print(sorted({{"transformers", "tensorflow", "torch", "jax"}} & set(sys.modules)))
"""
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
