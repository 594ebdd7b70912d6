"""Pickles of captions are read as data: none runs code, and what is none says so."""

import pathlib
import pickle
import random

import pytest

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import READERS, plain_pickle
from tests import benchmark_files


class Command:
    """Pickled, it is a call that leaves a trace."""

    def __init__(self, call, *arguments):
        self.made = call, arguments

    def __reduce__(self):
        return self.made


def test_a_hostile_pickle_runs_nothing(copied, tmp_path):
    folder = copied("msvd")
    benchmark_files.as_pickle(folder)
    path, trace = folder / "raw-captions.pkl", tmp_path / "trace"
    calls = [
        (pathlib.Path.touch, trace),
        (exec, f"open({str(trace)!r}, 'w')"),
        (getattr, trace, "touch"),
    ]
    for call in calls:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            path.write_bytes(pickle.dumps({"a": [[Command(*call)]]}, protocol))
            with pytest.raises(UserError, match=r"raw-captions\.pkl: it names .* could run code"):
                READERS["msvd"](folder)
    assert not trace.exists()


BAD_PICKLES = {
    "codec": (
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.",
        "the codec",
    ),
    "registered class": (b"\x80\x02\x82\x01.", "registered class"),
    "outside object": (b"\x80\x02U\x01aQ.", "what is not in it"),
    "list": (pickle.dumps([1]), "a pickle of list, not of dict"),
    # Asks for a memo of 2 ** 31 entries.
    "memory": (b"\x80\x02]r\xff\xff\xff\x7f.", "a pickle of list"),
    "empty": (b"", "not a pickle"),
    "text": (b"hello", "not a pickle"),
    "Latin-1": (b"\x80\x02}U\x01\xe9]s.", "not a pickle .*can't decode"),
}


@pytest.mark.parametrize(("data", "message"), BAD_PICKLES.values(), ids=BAD_PICKLES.keys())
def test_pickles_that_are_not_captions(tmp_path, data, message):
    path = tmp_path / "raw-captions.pkl"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        plain_pickle.load(path)
    assert "\n" not in str(error.value)


def test_damaged_pickles_are_one_line(tmp_path):
    whole = pickle.dumps({f"v{i}": [["a", "dog"], ["one", "cat"]] for i in range(5)}, 2)
    path, draw = tmp_path / "raw-captions.pkl", random.Random(0)
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data[: draw.randint(1, len(data))])
        try:
            told = f"read: {type(plain_pickle.load(path)).__name__}"
        except UserError as error:
            told = str(error)
        assert told == "read: dict" or str(path) in told
        assert "\n" not in told


@pytest.mark.parametrize(
    "data",
    [
        # Python 3's way to write bytes for Python 2, and Python 2's own strings.
        pickle.dumps({b"id": [(b"a", b"dog")]}, 2),
        b"\x80\x02}U\x02id](U\x01aU\x03dog\x86es.",
    ],
)
def test_bytes_of_old_pickles_are_text(tmp_path, data):
    path = tmp_path / "raw-captions.pkl"
    path.write_bytes(data)
    assert plain_pickle.load(path) == {"id": [["a", "dog"]]}
