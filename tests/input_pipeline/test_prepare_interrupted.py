"""What was there stays until the new is whole, whatever ends `prepare`."""

import csv
import json
import signal
import time

import pytest

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.decoding import video
from glscl_jax.input_pipeline.prepared_data import open_data
from glscl_jax.input_pipeline.preparing import data_set
from tests import small_disk
from tests.input_pipeline.preparing import files_of, run

PROGRAM = "glscl_jax.input_pipeline.prepare"


def test_what_was_there_stays_until_the_new_is_whole(faulty, tmp_path, monkeypatch):
    data_dir = tmp_path / "data"
    own = data_dir / "clips" / "holiday.mp4"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    run(faulty[0], data_dir, max_failed_share=0.3)
    before = files_of(data_dir)
    with pytest.raises(UserError, match="3 of 11 clips failed"):
        run(faulty[0], data_dir, max_failed_share=0.2, image_size=32)
    assert files_of(data_dir) == before

    really, calls = video.read_frames, []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) > 15:  # the doctor has read each of the 11 once
            raise KeyboardInterrupt
        return really(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(video, "read_frames", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(faulty[0], data_dir, max_failed_share=0.3, image_size=32)
    decoded = files_of(data_dir).keys() - before.keys()
    assert {path.parent.as_posix() for path in decoded} == {".preparing/decoded"}
    assert {path: files_of(data_dir)[path] for path in before} == before

    run(faulty[0], data_dir, max_failed_share=0.3, image_size=32)
    assert open_data(data_dir).settings.image_size == 32
    assert files_of(data_dir).keys() == before.keys()
    assert own.read_bytes() == b"mine"


def test_killed_outright_it_goes_on_from_what_is_decoded(videos, forks, tmp_path, monkeypatch):
    source, data_dir, segments = tmp_path / "source", tmp_path / "data", 120
    source.mkdir()
    long = "a.mp4"
    (source / long).write_bytes(next((videos / "videos").iterdir()).read_bytes())
    # Many segments of one video, so that the run is long enough to be caught in the middle.
    rows = [["video", "caption", "start"]] + [[long, "x", i / 10000] for i in range(segments)]
    with (source / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    paths = f"--source={source}", f"--data_dir={data_dir}"
    process = forks.start(PROGRAM, *paths, "--frame_rate=12", "--image_size=64")
    decoded = data_dir / ".preparing" / "decoded"
    deadline = time.monotonic() + 60
    while not decoded.is_dir() or len(list(decoded.glob("*.npz"))) < segments // 10:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    there = len(list(decoded.glob("*.npz")))
    assert segments // 10 <= there < segments
    assert list(data_dir.glob(".preparing/clips/folder/*incomplete*"))
    with pytest.raises(UserError, match="preparing was cut short"):
        open_data(data_dir)

    really, sizes = video.read_frames, []

    def counted(*args, **kwargs):
        sizes.append(kwargs["size"])
        return really(*args, **kwargs)

    monkeypatch.setattr(video, "read_frames", counted)
    how = {"frame_rate": 12.0, "image_size": 64}
    run(source, data_dir, **how)
    assert sizes.count(64) == segments - there
    run(source, tmp_path / "at once", **how)
    assert files_of(data_dir) == files_of(tmp_path / "at once")


def test_a_file_in_the_way(videos, tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(UserError, match=r"--data_dir \S*data: "):
        run(videos, tmp_path / "data")


def test_one_writer_at_a_time(videos, tmp_path, forks):
    data_dir = tmp_path / "data"
    with data_set.claimed(data_dir):
        done = forks(PROGRAM, f"--source={videos}", f"--data_dir={data_dir}", check=False)
        assert done.returncode == 2
        assert done.stderr == (
            f"error: --data_dir {data_dir}: another prepare is writing there:"
            " wait for it, or name another\n"
        )
        with data_set.claimed(tmp_path / "another"):
            pass
    assert not list(data_dir.iterdir())
    # Of a run that was killed.
    (data_dir / data_set.LOCK_FILE).touch()
    assert run(videos, data_dir).splits
    assert not (data_dir / data_set.LOCK_FILE).exists()


@pytest.mark.parametrize("size", ["4k", pytest.param("200k", marks=pytest.mark.slow)])
@pytest.mark.skipif(not small_disk.possible(), reason="no user may mount a small disk here")
def test_a_full_disk_is_one_line(videos, tmp_path, size, forks):
    disk = tmp_path / "disk"
    disk.mkdir()
    flags = ("--data_dir", disk / "data", "--frame_rate=12", "--jpeg_quality=100")
    small = ("tests.small_disk", disk, size, disk / "data")
    done = forks(*small, PROGRAM, "--source", videos, *flags, check=False)
    assert done.returncode == 2, done.stderr
    error = done.stderr.splitlines()[-1]
    assert error == f"error: {disk / 'data'}: No space left on device: nothing was made; make room"
    # What was decoded until then, if anything, for when there is room.
    assert json.loads(done.stdout.splitlines()[-1]) in ([], [".preparing"])
