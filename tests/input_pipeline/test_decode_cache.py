"""Decoded clips as files: what is read again is what was decoded, and what is stale goes."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from glscl_jax.input_pipeline import rendered
from glscl_jax.input_pipeline.annotations import Clip
from glscl_jax.input_pipeline.decoding import video
from glscl_jax.input_pipeline.prepared_data import Settings
from glscl_jax.input_pipeline.preparing import decode_cache
from tests import numbered_videos

SETTINGS = Settings("folder", 2.0, 32, 95, "")


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    rendered.write_video(rendered.render_clip(rendered.scenes(0, 4, 4)[0]), folder / "a.mp4")
    return folder


@pytest.fixture
def clips(source):
    """Segments of one video; the last starts beyond its end."""
    return [
        Clip(f"a.mp4#t={start}", source / "a.mp4", ("x",), start, None, "train")
        for start in (0.0, 0.5, 1000.0)
    ]


@pytest.fixture
def cache(source, tmp_path):
    return decode_cache.DecodeCache(tmp_path / "kept", source, SETTINGS)


def decode_all(cache, clips):
    there = cache.start(clips)
    for clip in clips:
        cache.decode(clip)
    return there


def test_what_is_kept_is_what_was_decoded(cache, clips, monkeypatch):
    clip = clips[1]
    assert cache.start([clip]) == frozenset()
    assert cache.lost([clip]).undone == (clip,)
    fresh = cache.decode(clip)
    with monkeypatch.context() as patch:
        patch.setattr(video, "read_frames", None)  # would fail if it were decoded again
        read = cache.decode(clip)
    assert cache.start([clip]) == {clip.clip_id}
    assert fresh.fault == read.fault == ""
    assert fresh.example.keys() == read.example.keys()
    for key, value in fresh.example.items():
        np.testing.assert_array_equal(read.example[key], value)
    assert read.example["frame_times"].dtype == fresh.example["frame_times"].dtype
    # Cut short by the machine, not by us: the clip is decoded anew.
    (path,) = cache.directory.glob("*.npz")
    whole = path.read_bytes()
    for size in (0, 100, len(whole) - 10):
        path.write_bytes(whole[:size])
        assert cache.decode(clip).example["frames"] == fresh.example["frames"]
        assert path.read_bytes() == whole


def test_what_failed_is_tried_again(cache, clips):
    assert decode_all(cache, clips) == frozenset()
    (failure,) = cache.lost(clips).failed
    assert failure.clip is clips[2]
    assert cache.finished() == 3
    assert cache.start(clips) == {clip.clip_id for clip in clips[:2]}
    assert cache.lost(clips).undone == (clips[2],)


def test_what_is_of_no_use_goes(cache, clips, source):
    decode_all(cache, clips)
    (cache.directory / "half.0123.part").touch()  # of a run that was killed
    assert cache.start(clips[:1]) == {clips[0].clip_id}
    assert len(list(cache.directory.iterdir())) == 1
    # A video that is another now, and frames of another size.
    smaller = dataclasses.replace(cache, settings=dataclasses.replace(SETTINGS, image_size=16))
    assert smaller.lost(clips[:1]).undone == (clips[0],)
    os.utime(source / "a.mp4", (1, 1))
    assert cache.start(clips) == frozenset()
    assert not list(cache.directory.iterdir())


def test_clips_that_say_other_things_of_the_same_frames_share_them(cache, clips):
    decode_all(cache, clips[:1])
    (frames,) = cache.directory.iterdir()
    before = frames.stat().st_mtime_ns
    other = dataclasses.replace(clips[0], captions=("said otherwise",))
    assert cache.start([other]) == {other.clip_id}
    assert cache.decode(other).example["captions"] == ["said otherwise"]
    assert frames.stat().st_mtime_ns == before


def test_a_full_disk_leaves_no_half_file(cache, clips, monkeypatch):
    cache.start(clips)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decode_cache, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        cache.decode(clips[0])
    assert not list(cache.directory.iterdir())
    cache.clear()
    assert not cache.directory.exists()


@pytest.mark.slow
def test_two_hours_are_not_held_as_they_are_decoded(tmp_path):
    """7,200 frames, which are 1.1 GB decoded, in a process of its own."""
    numbered_videos.write(tmp_path / "a.mp4", 7_200, rate=1, codec="mpeg4", gop=60)
    done = subprocess.run(
        [sys.executable, "-c", DECODES, str(tmp_path)], capture_output=True, text=True, check=True
    )
    count, before, peak = map(int, done.stdout.split())
    assert count == 7_200
    assert peak - before < 300 << 20, (peak - before) >> 20


DECODES = """
import pathlib, re, sys
from glscl_jax.input_pipeline.annotations import Clip
from tests import numbered_videos
from glscl_jax.input_pipeline.prepared_data import Settings
from glscl_jax.input_pipeline.preparing.decode_cache import DecodeCache

def bytes_of(name):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(name + r":\\s*(\\d+) kB", status)[1]) << 10

folder = pathlib.Path(sys.argv[1])
clip = Clip("a", folder / "a.mp4", ("said",), None, None, "train")
cache = DecodeCache(folder / "kept", folder, Settings("folder", 1.0, 224, 95, ""))
cache.start([clip])
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = bytes_of("VmRSS")
print(len(cache.decode(clip).example["frames"]), before, bytes_of("VmHWM"))
"""
