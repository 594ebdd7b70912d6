"""Prepared data that the disk has changed: the file is named, or nothing of it was changed."""

import pathlib
import random
import shutil

import pytest

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import pipeline
from glscl_jax.input_pipeline.captions import caption_counts
from glscl_jax.input_pipeline.prepared_data import open_data
from glscl_jax.input_pipeline.records import Records
from glscl_jax.input_pipeline.tokenizer_files import read_tokenizer

JSON = ["dataset_info.json", "features.json", "metadata.json"]


@pytest.fixture
def folder(shapes, tmp_path):
    """A copy of the prepared data, to be hurt; the folder that TFDS wrote."""
    shutil.copytree(shapes / "data", tmp_path / "data")
    (found,) = (tmp_path / "data").glob("clips/*/*")
    return found


def read(folder) -> dict[str, list[bytes]]:
    data = open_data(folder.parents[2])
    assert data.identity
    found = {}
    for split, count in data.splits.items():
        with data.records(split) as records:
            found[split] = list(records.read(range(count)))
    return found


def told_of(folder, whole) -> str:
    """Why it is refused, in one line; "" if it is read, and then its records are the same."""
    try:
        found = read(folder)
    except UserError as error:
        return str(error)
    assert found == whole
    return ""


def changes(content: bytes, number: int):
    """Contents that are no longer whole, the worst first; then such with a changed bit."""
    yield from (b"", content[: len(content) // 2], bytes(len(content)))
    draw = random.Random(0)
    for place in draw.sample(range(len(content)), number):
        changed = bytearray(content)
        changed[place] ^= 1 << draw.randrange(8)
        yield bytes(changed)


@pytest.mark.parametrize("name", JSON)
def test_what_describes_it(folder, name):
    whole, path = read(folder), folder / name
    content, refused = path.read_bytes(), 0
    for number, changed in enumerate(changes(content, 25)):
        path.write_bytes(changed)
        told = told_of(folder, whole)
        # A letter of a shard's name may be what has changed.
        assert not told or name in told or " is gone: " in told, told
        assert "\n" not in told
        assert told or number > 2
        refused += bool(told)
    assert refused > 10


def test_the_records(folder):
    whole = read(folder)
    (path,) = folder.glob("clips-test.array_record*")
    content, refused = path.read_bytes(), 0
    # Of a file that ends with a block its reader says nothing at all.
    cuts = [content[: 1 << 16], content[:-1]]
    for changed in [*cuts, *changes(content, 25)]:
        path.write_bytes(changed)
        if told := told_of(folder, whole):
            assert f"{path} is damaged (" in told
            refused += 1
    assert refused > 5


def test_the_file_that_is_named_is_the_one(folder):
    """Of several, as a larger data set has them."""
    data = open_data(folder.parents[2])
    files = [split.file_instructions[0] for split in data.builder.info.splits.values()]
    for hurt in files:
        path = pathlib.Path(hurt.filename)
        content = path.read_bytes()
        path.write_bytes(content[: 1 << 16])
        with Records(files) as records, pytest.raises(UserError) as caught:
            records.read(range(len(records)))
        assert f"{path} is damaged" in str(caught.value)
        path.write_bytes(content)


def test_whoever_reads_says_so(folder):
    (path,) = folder.glob("clips-train.array_record*")
    content = bytearray(path.read_bytes())
    content[1000] ^= 1  # in the first of its records
    path.write_bytes(content)
    data = open_data(folder.parents[2])
    sizes = {"batch_size": 32, "num_frames": 2}
    told = f"{path} is damaged (Corrupted Riegeli/records file"
    steps = {"first_step": 0, "num_steps": 1}
    batches = pipeline.train_batches(
        data, "train", read_tokenizer("demo"), num_words=8, seed=0, **steps, **sizes
    )
    for reading in (batches, pipeline.eval_batches(data, "train", **sizes)):
        with pytest.raises(UserError) as caught:
            next(reading)
        assert str(caught.value).startswith(told)
    (folder / "captions-train.json").unlink()
    with pytest.raises(UserError) as caught:
        caption_counts(open_data(folder.parents[2]), "train")
    assert str(caught.value).startswith(told)
