"""CLIP's tokenizer from files of any name; what is wrong with them is one line."""

import gzip
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, END, CLIPTokenizer
from glscl_jax.input_pipeline.tokenizer_files import load_tokenizer, read_tokenizer
from tests.bpe_oracle import HARD, OPENAI_MERGES
from tests.server import REPO


def test_any_name_opens(clip, saved, hugging_face, tmp_path):
    hugging_face.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    for name in (OPENAI_MERGES, str(saved), tmp_path):
        np.testing.assert_array_equal(read_tokenizer(name)(HARD, 77).ids, clip(HARD, 77).ids)
    (tmp_path / "tokenizer.json").unlink()
    for name in (tmp_path, tmp_path / "none.txt.gz", "no/such/directory"):
        with pytest.raises(UserError, match=r"no tokenizer found|no such file"):
            read_tokenizer(name)


def test_what_is_saved_stands_alone(clip, saved):
    loaded = load_tokenizer(saved)
    assert loaded.vocab_size == clip.vocab_size
    np.testing.assert_array_equal(loaded(HARD, 77).ids, clip(HARD, 77).ids)


def test_hugging_face_directories(clip, saved, hugging_face, tmp_path):
    hugging_face.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    for directory in (saved, tmp_path):
        found = read_tokenizer(directory)
        np.testing.assert_array_equal(found(HARD, 77).ids, clip(HARD, 77).ids)


def test_a_hub_name_comes_from_the_cache_when_offline(demo, tmp_path):
    commit = "0" * 40
    repository = tmp_path / "models--someone--clip"
    demo.save(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    program = """
        from glscl_jax.errors import UserError
        from glscl_jax.input_pipeline.clip_tokenizer import CLIPTokenizer
        from glscl_jax.input_pipeline.tokenizer import Tokenizer
        from glscl_jax.input_pipeline.tokenizer_files import load_tokenizer, read_tokenizer
        print(read_tokenizer("someone/clip")(["a red circle"], 6).ids.tolist())
        try:
            read_tokenizer("someone/else")
        except UserError as error:
            print(error)
    """
    out = run(program, HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="1").splitlines()
    assert out[0] == str(demo(["a red circle"], 6).ids.tolist())
    assert out[1].startswith("someone/else: no tokenizer found; name a directory")
    assert len(out) == 2


def run(program, **environment):
    lines = [line.removeprefix(" " * 8) for line in program.splitlines()]
    command = [sys.executable, "-c", "\n".join(lines)]
    env = os.environ | environment
    done = subprocess.run(
        command, cwd=REPO, env=env, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def test_captions_need_no_heavy_import():
    heavy = run("""
        import sys
        import glscl_jax.input_pipeline.tokenizer_files
        print(sorted({"transformers", "tensorflow", "torch", "jax"} & set(sys.modules)))
    """)
    assert heavy.strip() == "[]"


@pytest.mark.parametrize("name", ["", "no/such/directory"])
def test_pretrained_is_not_there(name, tmp_path):
    # An empty directory makes transformers build an empty tokenizer without an error.
    with pytest.raises(UserError, match="no tokenizer found"):
        read_tokenizer(tmp_path / name)


@pytest.mark.parametrize("name", ["merges.txt", "merges.txt.gz"])
def test_lines_that_end_as_windows_ends_them(demo, tmp_path, name):
    content = DEMO_MERGES.read_bytes().replace(b"\n", b"\r\n")
    assert content.count(b"\r\n") > 80
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    captions = ["a red circle moves left", "é 42"]
    expected = demo(captions, 20).ids
    np.testing.assert_array_equal(CLIPTokenizer.from_merges(path)(captions, 20).ids, expected)


def test_bad_merges_files(tmp_path):
    def error_of(text, name="merges.txt"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        with pytest.raises(UserError) as caught:
            CLIPTokenizer.from_merges(path)
        assert "\n" not in str(caught.value)
        return str(caught.value).replace(str(path), "FILE")

    assert error_of("header\na b\na b c\n").startswith("FILE:3: a merge is two symbols")
    assert error_of("header\na b\n\nc d\n").startswith("FILE:3: a merge is two symbols")
    assert error_of("header\na b\nb c\na bc\nab c\n") == (
        "FILE: 'abc' is made twice; remove one of the two merges"
    )
    assert error_of("header\nab c\n").startswith("FILE: merges do not fit the vocabulary")
    assert error_of(b"\xff\xfe\x00").startswith("FILE: cannot be read")
    assert error_of(b"not gzip", "merges.gz").startswith("FILE: cannot be read")
    whole = gzip.compress(b"header\na b\n")
    assert error_of(whole[:-9], "merges.gz").startswith("FILE: cannot be read")
    with pytest.raises(UserError, match=r"none\.txt: no such file"):
        CLIPTokenizer.from_merges(tmp_path / "none.txt")


def test_damaged_directories(demo, tmp_path):
    def error_after(change):
        demo.save(tmp_path)
        path = tmp_path / "vocab.json"
        vocab = json.loads(path.read_text(encoding="utf-8"))
        change(vocab)
        path.write_text(json.dumps(vocab), encoding="utf-8")
        with pytest.raises(UserError) as caught:
            load_tokenizer(tmp_path)
        return str(caught.value)

    last = demo.vocab_size - 1
    assert "it lacks 'é</w>'" in error_after(lambda vocab: vocab.pop("é</w>"))
    assert "each once" in error_after(lambda vocab: vocab.update({"a": 1}))
    # The text tower looks for the end token by the highest id.
    assert "highest id" in error_after(lambda vocab: vocab.update({END: 0, "!": last}))
    demo.save(tmp_path)
    (tmp_path / "vocab.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read"):
        load_tokenizer(tmp_path)
    (tmp_path / "merges.txt").unlink()
    demo.save(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"merges\.txt: no such file"):
        load_tokenizer(tmp_path)
