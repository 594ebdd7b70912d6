"""The data doctor finds what was broken on purpose, and nothing in what is whole."""

import csv
import dataclasses
import errno
import os
import pathlib
import shutil

import av
import numpy as np
import pytest

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import rendered
from glscl_jax.input_pipeline.annotations import BENCHMARKS, READERS, Clip
from glscl_jax.input_pipeline.annotations.benchmark import Count
from glscl_jax.input_pipeline.prepared_data import Settings
from glscl_jax.input_pipeline.preparing import builder, data_set, doctor
from tests import benchmark_files, numbered_videos
from tests.conftest import one_line_error


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> pathlib.Path:
    return benchmark_files.write("msvd", tmp_path_factory.mktemp("whole") / "msvd")


@pytest.fixture
def broken(whole, tmp_path):
    """The benchmark with one fault of each kind; returns it and the names of its videos."""
    folder = shutil.copytree(whole, tmp_path / "msvd")
    videos = sorted((folder / "YouTubeClips").iterdir())
    videos[0].unlink()
    videos[1].write_bytes(b"RIFF but no video")
    videos[2].write_bytes(b"")
    shutil.copy(videos[3], videos[4])
    shutil.copy(videos[5], folder / "stray.avi")
    # The same size, other bytes: no duplicate.
    videos[6].write_bytes(videos[3].read_bytes()[:-1] + b"\1")
    (folder / "notes.txt").touch()
    return folder, [path.name for path in videos]


def examine(folder, dataset="msvd"):
    clips = READERS[dataset](folder)
    return clips, doctor.examine(clips, folder, dataset, workers=2)


def names(paths):
    return [path.name for path in paths]


def test_nothing_to_say(whole, monkeypatch):
    counts = tuple(
        Count((split,), (n, n), (3 * n, 3 * n))
        for split, n in [("train", 12), ("val", 4), ("test", 4)]
    )
    published = dataclasses.replace(BENCHMARKS["msvd"], counts=counts)
    monkeypatch.setitem(BENCHMARKS, "msvd", published)
    clips, found = examine(whole)
    assert not found.remarkable
    assert found.partial({"train": 12, "val": 4, "test": 4}) == ""
    assert found.median == pytest.approx(benchmark_files.SECONDS, abs=0.1)
    data_set.check_findings(found, len(clips), max_failed_share=0.0, allow_partial=False)
    # A split that nobody published is counted all the same.
    monkeypatch.setitem(BENCHMARKS, "msvd", dataclasses.replace(published, counts=counts[::-1][:2]))
    assert [row.published is None for row in examine(whole)[1].rows] == [False, False, True]


def test_every_fault_is_found(broken):
    folder, videos = broken
    clips, found = examine(folder)
    assert [f"{name}.avi" for name in found.missing] == videos[:1]
    assert sorted(names(path for path, _ in found.unreadable)) == sorted(videos[1:3])
    assert {reason for _, reason in found.unreadable} > {"empty file"}
    assert names(found.strays) == ["stray.avi"]
    (same,) = found.duplicates
    assert names(clip.video for clip in same) == videos[3:5]
    assert not found.outliers
    assert len(found.failures) == 3
    told = {row.name: row for row in found.rows}
    assert sum(row.videos for row in told.values()) == len(clips) == 20
    assert sum(row.present for row in told.values()) == 19
    assert sum(row.readable for row in told.values()) == 17
    table = found.table()
    for name in [videos[0].removesuffix(".avi"), *videos[1:5], "stray.avi", "48,774", "4,290"]:
        assert name in table
    assert videos[7] not in table
    assert "Venugopalan" in table


def test_long_lists_are_cut(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "msvd")
    for path in (folder / "YouTubeClips").iterdir():
        path.unlink()
    found = examine(folder)[1]
    assert len(found.missing) == 20
    assert "ids without files: 20" in found.table()
    assert "  and 15 more" in found.table()
    assert found.median is None


def test_durations(tmp_path):
    scene = benchmark_files._scenes()["train"][0]
    clips = []
    for number, seconds in enumerate([3, 3, 3, 0.25, 40]):
        path = tmp_path / f"{number}.mp4"
        repeats = max(1, round(seconds / benchmark_files.SECONDS))
        write_for(scene, path, repeats, seconds)
        clips.append(Clip(path.name, path, ("x",), None, None, "train"))
    found = doctor.examine(clips, tmp_path, "folder", workers=2)
    assert names(path for path, _ in found.outliers) == ["3.mp4", "4.mp4"]
    assert "4.mp4: 39.0 s, where 3.0 s is usual" in found.table()
    assert not found.mismatches


def write_for(scene, path, repeats, seconds):
    """A scene shown over and over, or its beginning."""
    frames = np.concatenate([rendered.render_clip(scene)] * repeats)
    if seconds < benchmark_files.SECONDS:
        frames = frames[: round(seconds * rendered.FRAME_RATE)]
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=rendered.FRAME_RATE)
        stream.height = stream.width = rendered.SIZE
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def test_a_benchmark_that_differs_stops(broken):
    clips, found = examine(broken[0])
    with pytest.raises(UserError, match=r"train has 12 videos, published 1,200 \(and .*more diff"):
        data_set.check_findings(found, len(clips), max_failed_share=1.0, allow_partial=False)
    data_set.check_findings(found, len(clips), max_failed_share=0.0, allow_partial=True)


@pytest.fixture
def windowed(tmp_path):
    """A video of 2 s; of its clips two begin within it, one where it ends and one beyond."""
    folder = tmp_path / "own"
    folder.mkdir()
    rendered.write_video(np.zeros((2 * rendered.FRAME_RATE, 32, 32, 3), np.uint8), folder / "a.mp4")
    starts = ("", "1.8", "2", "1000")
    rows = [f"a.mp4,says {start or 0},{start}" for start in starts]
    (folder / "captions.csv").write_text("\n".join(["video,caption,start", *rows]) + "\n")
    return folder


def test_windows_that_begin_beyond_their_video(windowed, monkeypatch):
    clips, found = examine(windowed, "folder")
    assert [failure.clip.clip_id for failure in found.late] == ["a.mp4#t=2", "a.mp4#t=1000"]
    assert found.failures == found.late
    assert "clips beyond:      2\n  a.mp4#t=2: no frame from 2 s on: the vid" in found.table()
    with pytest.raises(UserError, match="2 of 4 clips failed"):
        data_set.check_findings(found, len(clips), max_failed_share=0.4, allow_partial=False)
    # A header that says too little is not believed, one that says nothing neither.
    for told in (0.5, None):
        monkeypatch.setattr(doctor.video, "duration", lambda *_, told=told: told)
        assert examine(windowed, "folder")[1].late == found.late


def test_one_s_own_videos_stop_by_their_share(broken):
    clips, found = examine(broken[0])
    found = dataclasses.replace(
        found, rows=tuple(dataclasses.replace(r, published=None) for r in found.rows)
    )
    data_set.check_findings(found, len(clips), max_failed_share=0.15, allow_partial=False)
    with pytest.raises(UserError, match="3 of 20 clips failed"):
        data_set.check_findings(found, len(clips), max_failed_share=0.14, allow_partial=False)


def test_the_program(broken, forks):
    folder, videos = broken
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    arguments = ["--dataset=msvd", f"--source={folder}", "--check"]
    done = forks("glscl_jax.input_pipeline.prepare", *arguments, check=False)
    assert "go on with --allow_partial" in one_line_error(done)
    assert "duplicate videos:  1" in done.stdout
    assert videos[1] in done.stdout
    done = forks("glscl_jax.input_pipeline.prepare", *arguments, "--allow-partial")
    assert "unreadable files:  2" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_what_the_system_refuses_is_one_file_s(tmp_path, monkeypatch):
    """In `--check` and in `prepare`: reading fails, a name that none can have, no decoder."""
    source = tmp_path / "videos"
    source.mkdir()
    for name in ("good", "broken", "stale"):
        numbered_videos.write(source / f"{name}.mp4", 30)
    data = (source / "good.mp4").read_bytes()
    (source / "odd.mp4").write_bytes(data.replace(b"avc1", b"zzzz"))
    (source / "loop.mp4").symlink_to(source / "loop.mp4")
    named = {
        "broken.mp4": os.strerror(errno.EIO),
        "stale.mp4": os.strerror(errno.ESTALE),
        "odd.mp4": "FFmpeg has no decoder for its video",
        "loop.mp4": "",  # one system says so, another that there is no file
        "x" * 300 + ".mp4": os.strerror(errno.ENAMETOOLONG),
    }
    clips = [
        Clip(name, source / name, ("said",), None, None, "train") for name in ["good.mp4", *named]
    ]
    opened, stat = av.open, pathlib.Path.stat

    def opening(url, *arguments, **settings):
        if url.endswith("broken.mp4"):
            raise av.OSError(errno.EIO, os.strerror(errno.EIO), url)
        return opened(url, *arguments, **settings)

    def looking(path, **settings):
        if path.name == "stale.mp4":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return stat(path, **settings)

    monkeypatch.setattr(av, "open", opening)
    monkeypatch.setattr(pathlib.Path, "stat", looking)

    def told(failures):
        reasons = {failure.clip.clip_id: failure.reason for failure in failures}
        assert reasons.keys() == named.keys()
        assert all(reason in reasons[name] for name, reason in named.items())
        return reasons

    found = doctor.examine(clips, source, "folder", workers=2)
    told(found.failures)
    assert "broken.mp4: not a video that can be read (Input/output error)" in found.table()
    settings = Settings("folder", 1.0, 32, 95, builder.annotations_digest(clips))
    made = data_set.prepare(
        clips, source, tmp_path / "data", settings, workers=2, max_failed_share=1.0
    )
    assert made.splits == {"train": 1}
    reasons = told(made.failures)
    with (tmp_path / "data" / "failed.csv").open(newline="") as file:
        assert {row["clip"]: row["reason"] for row in csv.DictReader(file)} == reasons
