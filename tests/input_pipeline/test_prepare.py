"""Folder in, data set out: whole or not at all, with every clip that failed named."""

import csv
import dataclasses
import io
import json
import pathlib
from concurrent import futures

import av
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import annotations, prepare
from glscl_jax.input_pipeline.decoding import video
from glscl_jax.input_pipeline.prepared_data import holds_data, open_data
from glscl_jax.input_pipeline.preparing import data_set, decode_cache, decoding_pool
from tests.input_pipeline.preparing import failed_rows, files_of, names_in, run, settings_of


def test_records_hold_what_the_videos_show(videos, tmp_path):
    clips = annotations.read_folder(videos)
    report = run(videos, tmp_path / "new" / "data")
    assert report == data_set.PrepareReport({"train": 5, "val": 2, "test": 2}, ())
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
    assert run(source, data_dir) == data_set.PrepareReport({"train": 11}, ())
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
