"""What is written is there whole or not at all, and on the disk before it counts."""

import errno
import os
import pathlib

import pytest

from glscl_jax import files


@pytest.fixture
def told(monkeypatch):
    """What was flushed and renamed, in order: file names, and (from, to)."""
    events = []
    really_flush, really_move = os.fsync, os.replace

    def flush(descriptor):
        events.append(pathlib.Path(f"/proc/self/fd/{descriptor}").readlink().name)
        really_flush(descriptor)

    def move(old, new, **options):
        events.append((pathlib.Path(old).name, pathlib.Path(new).name))
        really_move(old, new, **options)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", move)
    return events


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, told):
    files.write_text(tmp_path / "a.json", "one\r\n")
    assert told == ["a.json.part", ("a.json.part", "a.json"), tmp_path.name]
    assert (tmp_path / "a.json").read_bytes() == b"one\r\n"


def test_a_folder_is_on_the_disk_with_all_that_is_in_it(tmp_path, told):
    with files.unfinished(tmp_path / "model") as part:
        (part / "params").mkdir(parents=True)
        (part / "params" / "weights").write_bytes(b"0")
        (part / "elsewhere").symlink_to("/nowhere")  # is not followed
    *flushed, moved, last = told
    assert flushed == ["weights", "params", "model.part"]
    assert (moved, last) == (("model.part", "model"), tmp_path.name)
    assert (tmp_path / "model" / "params" / "weights").exists()


@pytest.mark.parametrize("many", [False, True])
def test_what_was_there_stays_where_writing_fails(tmp_path, many):
    path = tmp_path / "a.json"
    path.write_text("old")

    def interrupted():
        with files.unfinished(path, many_writers=many) as part:
            part.write_text("new, half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_does_not_take_it_is_an_error(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="Input/output error"):
        files.write_text(tmp_path / "a.json", "new")
    assert not list(tmp_path.iterdir())


def test_a_file_system_that_cannot_flush_folders_will_do(tmp_path, monkeypatch):
    really = os.fsync

    def flush(descriptor):
        if pathlib.Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        really(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    files.write_text(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "new"


def test_several_writers_do_not_meet(tmp_path):
    path = tmp_path / "counts.json"
    with files.unfinished(path, many_writers=True) as one:
        with files.unfinished(path, many_writers=True) as other:
            other.write_text("other")
        one.write_text("one")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]
