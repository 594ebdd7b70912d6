"""Folder in, data set out: whole or not at all, with every clip that failed named."""

import contextlib
import csv
import dataclasses
import io
import json
import os
import pathlib
import pty
import signal
import subprocess
import sys
import time
from concurrent import futures

import av
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import annotations, prepare, rendered
from glscl_jax.input_pipeline.decoding import video
from glscl_jax.input_pipeline.prepared_data import Settings, holds_data, open_data
from glscl_jax.input_pipeline.preparing import builder, decode_cache, decoding_pool
from tests import small_disk
from tests.server import REPO

PROGRAM = "glscl_jax.input_pipeline.prepare"


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Eight real clips of the demo with their captions: 4 train, 2 val, 2 test; one cut in two."""
    source = tmp_path_factory.mktemp("source")
    (source / "videos").mkdir()
    val_test_train = rendered.scenes(0, 4, 4)
    scenes = val_test_train[8:] + val_test_train[:2] + val_test_train[4:6]
    rows = [["video", "caption", "split", "start", "end"]]
    for scene in scenes:
        rendered.write_video(rendered.render_clip(scene), source / scene.video)
        rows.append([scene.video, scene.caption, scene.split, "", ""])
    rows.append([scenes[0].video, "said otherwise", "train", "", ""])
    rows.append([scenes[1].video, "the second half", "train", "1.5", "3"])
    with (source / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return source


def settings_of(clips, **changes):
    made = Settings("folder", 2.0, 48, 95, builder.annotations_digest(clips))
    return dataclasses.replace(made, **changes)


def run(source, data_dir, *, clips=None, allow_partial=False, max_failed_share=0.0, **changes):
    clips = annotations.read_folder(source) if clips is None else clips
    workers = changes.pop("workers", 2)
    return prepare.prepare(
        clips,
        source,
        data_dir,
        settings_of(clips, **changes),
        workers=workers,
        max_failed_share=max_failed_share,
        allow_partial=allow_partial,
    )


def files_of(data_dir):
    return {
        path.relative_to(data_dir): path.read_bytes()
        for path in data_dir.rglob("*")
        if path.is_file()
    }


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def failed_rows(data_dir):
    with (data_dir / "failed.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_records_hold_what_the_videos_show(videos, tmp_path):
    clips = annotations.read_folder(videos)
    report = run(videos, tmp_path / "new" / "data")
    assert report == prepare.PrepareReport({"train": 5, "val": 2, "test": 2}, ())
    data = open_data(tmp_path / "new" / "data")
    assert data.settings == settings_of(clips)
    assert data.splits == report.splits
    assert not (tmp_path / "new" / "data" / "failed.csv").exists()

    told = {}
    for split, count in data.splits.items():
        source = data.records(split)
        assert len(source) == count
        records = source.read(range(count)[::-1])
        # As a training pipeline does: in a TensorFlow graph.
        for record in tf.data.Dataset.from_tensor_slices(records).map(
            data.features.deserialize_example
        ):
            told[record["clip_id"].numpy().decode()] = (split, record)
    assert sorted(told) == sorted(clip.clip_id for clip in clips)
    for clip in clips:
        split, record = told[clip.clip_id]
        assert split == clip.split
        assert (videos / record["video"].numpy().decode()).samefile(clip.video)
        assert [c.decode() for c in record["captions"].numpy()] == list(clip.captions)
        frames = video.read_frames(clip.video, size=48, rate=2.0, start=clip.start, end=clip.end)
        np.testing.assert_allclose(record["frame_times"], frames.times, atol=1e-6)
        for stored, image in zip(record["frames"].numpy(), frames.images, strict=True):
            with Image.open(io.BytesIO(stored)) as jpeg:
                assert jpeg.format == "JPEG"
                # Chroma at full resolution: every component is sampled once per pixel.
                assert {layer[1:3] for layer in jpeg.layer} == {(1, 1)}
                difference = np.asarray(jpeg).astype(int) - image
            assert abs(difference).mean() < 2


def test_same_bytes_whatever_the_workers_and_the_order(videos, tmp_path):
    run(videos, tmp_path / "one", workers=1)
    run(videos, tmp_path / "four", workers=4)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "four")
    # Records and numbers of captions of each split, three files of metadata.
    assert len(files_of(tmp_path / "one")) == 9
    run(videos, tmp_path / "reverse", clips=annotations.read_folder(videos)[::-1])
    for path, data in files_of(tmp_path / "one").items():
        if path.name != "dataset_info.json":  # names the splits in their order
            assert (tmp_path / "reverse" / path).read_bytes() == data


@pytest.fixture
def faulty(videos, tmp_path):
    """The folder with three clips that cannot be read; returns it and their reasons."""
    source = tmp_path / "faulty"
    (source / "videos").mkdir(parents=True)
    for path in (videos / "videos").iterdir():
        (source / "videos" / path.name).write_bytes(path.read_bytes())
    reasons = {"gone.mp4": "no such file", "empty.mp4": "empty file", "text.mp4": "not a video"}
    (source / "empty.mp4").touch()
    (source / "text.mp4").write_text("hello")
    rows = [["video", "caption", "split"]]
    rows += [[name, f"a clip, {name}", "train"] for name in reasons]
    rows += [[f"videos/{p.name}", "fine", "train"] for p in sorted((videos / "videos").iterdir())]
    with (source / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return source, reasons


def test_bad_videos_are_left_out_and_listed(faulty, tmp_path):
    source, reasons = faulty
    data_dir = tmp_path / "data"
    report = run(source, data_dir, max_failed_share=0.3)
    assert report.splits == {"train": 8}
    assert report.partial == "8 of 11 train"
    assert [failure.clip.clip_id for failure in report.failures] == list(reasons)
    rows = failed_rows(data_dir)
    assert [row["clip"] for row in rows] == list(reasons)
    for row, reason in zip(rows, reasons.values(), strict=True):
        assert row["reason"].startswith(reason)
        assert pathlib.Path(row["video"]) == source / row["clip"]
        assert row["split"] == "train"
    # Mended, the list goes.
    for name in reasons:
        (source / name).write_bytes(next((source / "videos").iterdir()).read_bytes())
    assert run(source, data_dir) == prepare.PrepareReport({"train": 11}, ())
    assert not (data_dir / "failed.csv").exists()
    assert open_data(data_dir).settings.partial == ""


@pytest.mark.parametrize("share", [0.25, 0.0])
def test_too_many_failures_leave_nothing(faulty, tmp_path, share):
    data_dir = tmp_path / "data"
    message = rf"3 of 11 clips failed, .*{share:g} allows .*first .*gone\.mp4: no such file.*failed"
    with pytest.raises(UserError, match=message):
        run(faulty[0], data_dir, max_failed_share=share)
    assert [path.name for path in data_dir.iterdir()] == ["failed.csv"]
    assert len(failed_rows(data_dir)) == 3
    with pytest.raises(UserError, match="no prepared data set in it: make one with"):
        open_data(data_dir)


def test_what_the_doctor_found_can_be_accepted(faulty, tmp_path):
    report = run(faulty[0], tmp_path, max_failed_share=0.0, allow_partial=True)
    assert report.splits == {"train": 8}
    assert len(report.failures) == 3
    assert open_data(tmp_path).settings.partial == report.partial == "8 of 11 train"


def test_videos_that_break_off_are_kept_and_listed(videos, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    # The index in front, as on the web: the rest can then be missing without it.
    whole, cut = source / "whole.mp4", source / "cut.mp4"
    with av.open(whole, "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=12)
        stream.height = stream.width = 64
        stream.pix_fmt = "yuv420p"
        frames = np.random.default_rng(0).integers(0, 255, (36, 64, 64, 3), dtype=np.uint8)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (source / "captions.csv").write_text("video,caption\nwhole.mp4,x\ncut.mp4,x\n")
    report = run(source, tmp_path / "data")
    assert report.splits == {"train": 2}
    assert not report.failures
    assert not report.partial
    with (tmp_path / "data" / "damaged.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["clip"] == "cut.mp4"
    assert row["reason"] == report.damaged[0].reason
    assert "truncated" in row["reason"]


def test_a_split_that_fails_whole(faulty, tmp_path):
    source, reasons = faulty
    text = (source / "captions.csv").read_text()
    for name in reasons:
        text = text.replace(f'"a clip, {name}",train', f'"a clip, {name}",val')
    (source / "captions.csv").write_text(text)
    data_dir = tmp_path / "data"
    with pytest.raises(UserError, match=r"none of the 3 clips of split 'val' can be read"):
        run(source, data_dir, max_failed_share=0.5)
    assert names_in(data_dir) <= {"failed.csv", ".preparing"}  # what is decoded is kept
    assert not holds_data(data_dir)
    assert len(failed_rows(data_dir)) == 3


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


def test_the_program(faulty, tmp_path, forks):
    source, data_dir = faulty[0], tmp_path / "data"

    def call(*more):
        paths = f"--source={source}", f"--data_dir={data_dir}"
        done = forks(PROGRAM, *paths, "--max_failed_share=0.3", *more, check=False)
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    summary = (
        f"8 of 11 clips (train 8); 3 failed, listed in {data_dir / 'failed.csv'};"
        " partial: 8 of 11 train"
    )
    status, out, err = call("--image_size=32")
    assert (status, out.splitlines()[-1]) == (0, f"prepared {summary}")
    # Before that, what the doctor found.
    assert "gone.mp4" in out
    assert [line.split(", ")[0] for line in err.splitlines()] == [
        "checking: 11 of 11",
        "preparing: 11 of 11",
        "reading captions: 8 of 8",
    ]
    before = files_of(data_dir)
    assert call("--image_size=32") == (0, f"{data_dir} is prepared already: {summary}", "")
    status, out, err = call("--image_size=48")
    assert (status, out) == (2, "")
    assert err == (
        f"error: {data_dir} was made with --image_size 32, not 48:"
        " give another --data_dir, or --overwrite to replace it"
    )
    assert files_of(data_dir) == before


def test_the_closing_line_comes_through_beside_a_progress_bar(videos, tmp_path):
    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", PROGRAM, f"--source={videos}", f"--data_dir={tmp_path / 'data'}"],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    )
    os.close(terminal)
    # A full terminal would block the program, so it is read while it runs.
    with futures.ThreadPoolExecutor(1) as pool:
        shown = pool.submit(read_terminal, ours)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert out == "prepared 9 of 9 clips (train 5, val 2, test 2)\n"
    assert "9/9" in shown.result()


def read_terminal(descriptor):
    data = b""
    # Linux reports the end of a terminal as an error.
    with contextlib.suppress(OSError):
        while chunk := os.read(descriptor, 4096):
            data += chunk
    os.close(descriptor)
    return data.decode()


def test_settings_that_differ_are_named(videos, tmp_path):
    clips = annotations.read_folder(videos)
    made = settings_of(clips)
    prepare.check_settings(made, settings_of(clips), tmp_path)
    for name, value in [("frame_rate", 1.0), ("image_size", 8), ("jpeg_quality", 9)]:
        with pytest.raises(UserError, match=f"was made with --{name} .*, not {value}: .*overwrite"):
            prepare.check_settings(made, settings_of(clips, **{name: value}), tmp_path)
    other = settings_of([*clips[1:], dataclasses.replace(clips[0], captions=("new",))])
    with pytest.raises(UserError, match="was made from other annotations or splits"):
        prepare.check_settings(made, other, tmp_path)


def test_damaged_data_sets_are_named(videos, tmp_path):
    run(videos, tmp_path)
    with pytest.raises(UserError, match="no split 'dev' in the prepared data, only train, val, te"):
        open_data(tmp_path).records("dev")
    records = next(tmp_path.glob("clips/folder/*/clips-val*"))
    records.rename(tmp_path / "away")
    with pytest.raises(UserError, match=r"clips-val\S* is gone: prepare again with --overwrite"):
        open_data(tmp_path)
    (tmp_path / "away").rename(records)
    settings_file = next(tmp_path.glob("clips/folder/*/metadata.json"))
    settings_file.write_text(json.dumps({"dataset": "folder"}))
    with pytest.raises(UserError, match=r"metadata\.json: no settings of this version"):
        open_data(tmp_path)


def test_a_file_in_the_way(videos, tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(UserError, match=r"--data_dir \S*data: "):
        run(videos, tmp_path / "data")


def test_threads_run_ahead_only_so_far(videos, tmp_path):
    drawn = []
    clip = annotations.read_folder(videos)[0]

    def many():
        for number in range(100):
            drawn.append(number)
            yield clip

    cache = decode_cache.DecodeCache(tmp_path, videos, settings_of([]))
    with futures.ThreadPoolExecutor(2) as pool:
        decoded = decoding_pool._decoded(many(), cache, pool, 2)
        next(decoded)
        assert len(drawn) == 2 * decoding_pool._AHEAD_PER_WORKER + 1
        assert len(list(decoded)) == 99


def test_what_came_of_it_is_no_setting(videos, tmp_path):
    made = settings_of([])
    prepare.check_settings(dataclasses.replace(made, partial="1 of 2 test"), made, tmp_path)
    # A data set of before there were notes.
    run(videos, tmp_path)
    settings_file = next(tmp_path.glob("clips/folder/*/metadata.json"))
    assert "partial" not in json.loads(settings_file.read_text())
    assert open_data(tmp_path).settings.partial == ""


def test_one_writer_at_a_time(videos, tmp_path, forks):
    data_dir = tmp_path / "data"
    with prepare.claimed(data_dir):
        done = forks(PROGRAM, f"--source={videos}", f"--data_dir={data_dir}", check=False)
        assert done.returncode == 2
        assert done.stderr == (
            f"error: --data_dir {data_dir}: another prepare is writing there:"
            " wait for it, or name another\n"
        )
        with prepare.claimed(tmp_path / "another"):
            pass
    assert not list(data_dir.iterdir())
    # Of a run that was killed.
    (data_dir / prepare.LOCK_FILE).touch()
    assert run(videos, data_dir).splits
    assert not (data_dir / prepare.LOCK_FILE).exists()


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


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--data_dir=d", "--source=nowhere"], "nowhere: no such folder"),
        (["--data_dir=d", "--source=.", "--videos=nowhere"], "nowhere: no such folder"),
        (["--source=."], "--data_dir is missing"),
        (["--source=.", "--check"], "no captions.csv or captions.jsonl in it"),
        (
            ["--source=.", "--check", "--dataset=msvd"],
            "no train_list.txt or youtube_mapping.txt in it",
        ),
        (["--source=.", "--check", "--dataset=tvr"], "tvr"),
    ],
)
def test_wrong_arguments(refusal, flags, told):
    assert told in refusal(PROGRAM, *flags)
