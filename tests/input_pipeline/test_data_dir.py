"""A data set takes another's place: wherever that is cut off, one of them is whole."""

import csv
import os
import pathlib
import shutil
import signal

import pytest

from glscl_jax.input_pipeline import annotations, data_dir, rendered
from glscl_jax.input_pipeline.prepared_data import Settings, open_data
from glscl_jax.input_pipeline.preparing import builder, data_set

OLD, NEW = 32, 48  # The size of their frames.


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    (folder / "videos").mkdir()
    scenes = rendered.scenes(0, 4, 4)[-4:]
    for scene in scenes:
        rendered.write_video(rendered.render_clip(scene), folder / scene.video)
    with (folder / "captions.csv").open("w", newline="") as file:
        rows = [[scene.video, scene.caption, "train"] for scene in scenes]
        csv.writer(file).writerows([["video", "caption", "split"], *rows])
    return folder


def prepared(source: pathlib.Path, folder: pathlib.Path, size: int) -> None:
    clips = annotations.READERS["folder"](source, source)
    settings = Settings("folder", 2.0, size, 95, builder.annotations_digest(clips))
    data_set.prepare(clips, source, folder, settings, workers=1, max_failed_share=0)


@pytest.fixture(scope="module")
def both(source, tmp_path_factory):
    """A data directory whose data set is old, with a new one that is written and not in place."""
    folder = tmp_path_factory.mktemp("both")
    prepared(source, folder / "old", OLD)
    prepared(source, folder / "new", NEW)
    staging = folder / "old" / data_dir.STAGING
    staging.mkdir()
    (folder / "new" / "clips").rename(staging / "clips")
    return folder / "old"


def size_read(folder: pathlib.Path) -> int:
    """The size of the frames of the data set that is found, which is read whole."""
    data = open_data(folder)
    with data.records("train") as records:
        assert len(records.read(range(4))) == 4
    return data.settings.image_size


def killed_after(moves: int, folder: pathlib.Path) -> bool:
    """Puts the new one in place in a process that is killed before it renames once more."""
    child = os.fork()
    if not child:
        really, done = os.replace, []

        def move(old, new, **options):
            if len(done) == moves:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(really(old, new, **options))

        os.replace = move
        try:
            data_dir.put_in_place(folder)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_killed_between_two_renames_neither_is_lost(both, source, tmp_path):
    moves = 0
    while True:
        folder = tmp_path / f"after{moves}"
        shutil.copytree(both, folder)
        if not killed_after(moves, folder):
            break
        # One rename is what counts; until the moves are finished the new one is found where it is.
        assert size_read(folder) == (NEW if moves else OLD)
        data_dir.finish(folder)
        data_dir.discard_unfinished(folder)
        assert size_read(folder) == (NEW if moves else OLD)
        assert [path.name for path in folder.iterdir()] == ["clips"]
        moves += 1
    assert moves == 3  # ready, old away, new there
    assert size_read(folder) == NEW


def test_the_next_that_prepares_finishes_the_moves(both, source, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(both, folder)
    assert killed_after(2, folder)
    assert not list((folder / "clips").glob("*/*"))
    prepared(source, folder, OLD)
    assert size_read(folder) == OLD
    assert [path.name for path in folder.iterdir()] == ["clips"]


def test_what_is_ready_is_not_thrown_away_where_a_move_fails(both, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    shutil.copytree(both, folder)
    really = os.replace

    def move(old, new, **options):
        if pathlib.Path(new).parent.name == "folder":  # DIR/clips/folder/VERSION
            raise PermissionError("the folder was taken away")
        really(old, new, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", move)
        with pytest.raises(PermissionError):
            data_dir.put_in_place(folder)
    data_dir.discard_unfinished(folder)
    assert size_read(folder) == NEW
