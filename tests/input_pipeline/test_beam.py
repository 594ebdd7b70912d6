"""The builder on Apache Beam, in several processes; and going on after a run was killed.

Beam's pins are its own: the tests that need it are run in another virtual environment,

    python -m venv beam && beam/bin/pip install -r requirements.txt -r requirements-beam.txt pytest
    beam/bin/python -m pytest tests/input_pipeline/test_beam*.py
"""

import contextlib
import csv
import importlib.util
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import annotations, rendered
from glscl_jax.input_pipeline.data_dir import DECODED, STAGING
from glscl_jax.input_pipeline.prepared_data import Settings, holds_data, open_data
from glscl_jax.input_pipeline.preparing import beam, builder, data_set, decode_cache
from glscl_jax.runtime import progress
from tests.conftest import REPO, one_line_error

HAS_BEAM = importlib.util.find_spec("apache_beam") is not None
needs_beam = pytest.mark.skipif(not HAS_BEAM, reason="no Apache Beam: see requirements-beam.txt")
PROCESSES = "--beam_runner=DirectRunner", "--workers=2"
THREADS = "--direct_running_mode=multi_threading"
SEGMENTS = 160


def write_captions(folder, rows):
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["video", "caption", "split", "start"], *rows])
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Eight real clips, three of them for testing, and a segment of the first."""
    folder = tmp_path_factory.mktemp("videos")
    rows = []
    for number, scene in enumerate(rendered.scenes(0, 4, 4)[:8]):
        rendered.write_video(rendered.render_clip(scene), folder / f"{number}.mp4")
        rows.append([f"{number}.mp4", scene.caption, "test" if number > 4 else "train", ""])
    return write_captions(folder, [*rows, ["0.mp4", "its second half", "train", 1.5]])


@pytest.fixture
def segments(videos, tmp_path):
    """Many clips of one video, so that a run is long enough to be caught in the middle."""
    folder = tmp_path / "segments"
    folder.mkdir()
    (folder / "a.mp4").write_bytes((videos / "0.mp4").read_bytes())
    splits = "train", "train", "test"
    rows = [["a.mp4", "x", splits[i % 3], i / 10000] for i in range(SEGMENTS)]
    return write_captions(folder, rows)


def settings_of(clips, rate=2.0, size=48):
    return Settings("folder", rate, size, 95, builder.annotations_digest(clips))


def run(source, data_dir, engine=None, rate=2.0, size=48, share=0.0):
    """As the program, in this process."""
    clips = annotations.read_folder(source)
    return data_set.prepare(
        clips,
        source,
        data_dir,
        settings_of(clips, rate, size),
        workers=2,
        max_failed_share=share,
        engine=engine,
    )


def start(source, data_dir, *flags):
    program = [sys.executable, "-m", "glscl_jax.input_pipeline.prepare"]
    return subprocess.Popen(
        [*program, f"--source={source}", f"--data_dir={data_dir}", *flags],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=200)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def files_of(data_dir):
    return {p.relative_to(data_dir): p.read_bytes() for p in data_dir.rglob("*") if p.is_file()}


def records(data_dir):
    """Split -> the records in their order, whatever the shards."""
    data = open_data(data_dir)
    return {split: data.records(split).read(range(count)) for split, count in data.splits.items()}


def decoded_files(data_dir):
    """Work item -> when it was written."""
    written = {}
    for path in (data_dir / STAGING / DECODED).glob("*.npz"):
        with contextlib.suppress(FileNotFoundError):  # a run that ends takes them away
            written[path.name] = path.stat().st_mtime_ns
    return written


@needs_beam
def test_several_processes_make_the_same_files(videos, tmp_path):
    done = finish(start(videos, tmp_path / "beam", "--frame_rate=2", "--image_size=48", *PROCESSES))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "prepared 9 of 9 clips (train 6, test 3)\n"
    assert "preparing: 9 of 9, " in done.stderr
    run(videos, tmp_path / "local")
    assert files_of(tmp_path / "beam") == files_of(tmp_path / "local")


@needs_beam
def test_the_same_records_in_the_same_order_in_any_number_of_shards(videos, tmp_path):
    # What a large data set has: TFDS makes shards of at least 64 MiB.
    engine = beam.engine("DirectRunner", THREADS, 2) | {"num_shards": 3}
    run(videos, tmp_path / "sharded", engine)
    run(videos, tmp_path / "local")
    # Of three shards one can be empty, and is then left out.
    assert len(list(tmp_path.glob("sharded/clips/folder/*/clips-train*"))) > 1
    assert records(tmp_path / "sharded") == records(tmp_path / "local")


@needs_beam
def test_killed_half_way_it_goes_on(segments, tmp_path):
    data_dir, flags = tmp_path / "data", ("--frame_rate=12", *PROCESSES)
    process = start(segments, data_dir, *flags)
    deadline = time.monotonic() + 100
    while len(decoded_files(data_dir)) < SEGMENTS // 8:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with pytest.raises(UserError, match="preparing was cut short"):
        open_data(data_dir)
    # Its workers notice a little later.
    before, settled = None, decoded_files(data_dir)
    while before != settled:
        time.sleep(1)
        before, settled = settled, decoded_files(data_dir)

    # What is there is neither decoded nor written again.
    process = start(segments, data_dir, *flags)
    latest = {}
    while process.poll() is None:
        latest |= decoded_files(data_dir)
        time.sleep(0.01)
    done = finish(process)
    assert done.returncode == 0, done.stderr
    told = f"what a run before left: {len(settled)} of {SEGMENTS} clips are decoded already"
    assert told in done.stdout
    assert settled.items() <= latest.items()
    left = SEGMENTS - len(settled)
    assert f"preparing: {left} of {left}, " in done.stderr or not left
    run(segments, tmp_path / "local", rate=12.0, size=224)
    assert files_of(data_dir) == files_of(tmp_path / "local")


def last_child(pid):
    """The process at the end of a chain of children: a worker's own, past its shell."""
    children = [pid]
    while children:
        pid = children[0]
        threads = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
        children = [int(child) for path in threads for child in path.read_text().split()]
    return pid


@needs_beam
def test_a_worker_that_is_killed_is_one_line(segments, tmp_path):
    # As a machine out of memory does it. The runner by itself would wait forever.
    process = start(segments, tmp_path, "--frame_rate=12", *PROCESSES)
    while len(decoded_files(tmp_path)) < SEGMENTS // 8:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(last_child(process.pid), signal.SIGKILL)
    error = one_line_error(finish(process))
    assert error == (
        "error: Apache Beam: Worker subprocess exited with return code 137: nothing was made;"
        " mend that, and the next run goes on from what is decoded"
    )
    assert not holds_data(tmp_path)
    assert len(decoded_files(tmp_path)) >= SEGMENTS // 8


@pytest.fixture
def faulty(videos, tmp_path):
    """Eight clips, one of which has no frame, as the doctor cannot see: it starts too late."""
    folder = tmp_path / "faulty"
    folder.mkdir()
    (folder / "a.mp4").write_bytes((videos / "0.mp4").read_bytes())
    return write_captions(folder, [["a.mp4", "x", "train", s] for s in (0, 0.1, 0.2, 0.3, 1000)])


@needs_beam
def test_what_fails_is_listed_and_counted(faulty, tmp_path):
    data_dir, engine = tmp_path / "data", beam.engine("DirectRunner", THREADS, 2)
    with pytest.raises(UserError, match=r"1 of 5 clips failed, .*first .*a\.mp4: .*failed\.csv"):
        run(faulty, data_dir, engine)
    report = run(faulty, data_dir, engine, share=0.2)
    assert report.splits == {"train": 4}
    assert report.partial == "4 of 5 train"
    with (data_dir / "failed.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["clip"] == "a.mp4#t=1000"
    assert {path.name for path in data_dir.iterdir()} == {"clips", "failed.csv"}


@needs_beam
def test_a_split_that_fails_whole(faulty, tmp_path):
    with (faulty / "captions.csv").open("a") as file:
        file.write("a.mp4,x,test,2000\n")
    with pytest.raises(UserError, match=r"none of the 1 clips of split 'test' can be read \(first"):
        run(faulty, tmp_path, beam.engine("DirectRunner", THREADS, 2), share=1.0)


@needs_beam
@pytest.mark.parametrize("after", [3, 10])
def test_a_worker_that_fails_is_one_line(videos, tmp_path, monkeypatch, after):
    # In threads, so that the fault can be planted; while it decodes, and while it writes.
    really, calls = decode_cache.DecodeCache.decode, []

    def failing(cache, clip):
        calls.append(clip)
        if len(calls) > after:
            raise PermissionError(13, "Permission denied", "decoded/x.npz")
        return really(cache, clip)

    engine = beam.engine("DirectRunner", THREADS, 2)
    with monkeypatch.context() as patch:
        patch.setattr(decode_cache.DecodeCache, "decode", failing)
        with pytest.raises(UserError) as error:
            run(videos, tmp_path, engine)
    assert "PermissionError: [Errno 13] Permission denied: 'decoded/x.npz': " in str(error.value)
    assert "\n" not in str(error.value)
    assert "while running" not in str(error.value)
    assert not holds_data(tmp_path)
    # Mended, it goes on from what was decoded.
    there = len(decoded_files(tmp_path))
    assert there == 9 if after > 9 else there <= after  # the other thread may be at one
    run(videos, tmp_path, engine)
    assert open_data(tmp_path).splits == {"train": 6, "test": 3}


@needs_beam
@pytest.mark.parametrize("runner", ["DataflowRunner", "PortableRunner"])
def test_an_engine_that_is_not_there_is_one_line(videos, tmp_path, runner):
    engine = beam.engine(runner, "--job_endpoint=localhost:1 --job_server_timeout=1", 1)
    with pytest.raises(UserError, match=r"^Apache Beam: \w+Error: .*nothing was made") as error:
        run(videos, tmp_path, engine)
    assert "\n" not in str(error.value)


def test_progress_is_what_the_files_say(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
    monkeypatch.setattr(beam, "_WATCH_SECONDS", 0.01)
    cache = decode_cache.DecodeCache(tmp_path, tmp_path, settings_of([]))
    for number in range(3):
        (tmp_path / f"{number}.npz").touch()

    def shown(line):
        for _ in range(6000):
            text = capsys.readouterr().err
            if line in text:
                return text
            time.sleep(0.01)
        raise AssertionError(line)

    with beam._watched(cache, total=6, there=2):
        # The third of the six is new: it is the rate's first.
        assert re.search(r"preparing: 1 of 4, [\d,]+ clips/s, \d:\d\d left", shown("1 of 4"))
        (tmp_path / "3.fault").touch()
        (tmp_path / "4.npz").touch()
        shown("preparing: 3 of 4, ")
        (tmp_path / "5.npz").touch()
    assert "preparing: 4 of 4, " in capsys.readouterr().err
