"""How videos are cut, read, and told from what was there before."""

import itertools
import os

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.decoding.video import read_frames, read_windows
from glscl_jax.search import video_folder
from glscl_jax.search.video_folder import Known
from glscl_jax.search.window_reader import Reading, read_all
from glscl_jax.search.windows import Cut
from tests.search.conftest import write_video


@hypothesis.given(window=st.floats(0.5, 20), share=st.floats(0.1, 1), length=st.floats(0.04, 200))
def test_windows_cover_a_video_and_none_is_of_no_use(window, share, length):
    cut = Cut(window, window * share)
    found = cut.windows(length)
    assert found[0].start == 0
    assert found[-1].end == length
    for one, two in itertools.pairwise(found):
        assert one.start < two.start <= one.end + 1e-9 < length
    assert all(0 < one.end - one.start <= window + 1e-9 for one in found)


def test_a_whole_video_is_one_window():
    (one,) = Cut(0).windows(123.4)
    assert (one.start, one.end) == (0, 123.4)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((10, 11), "--stride 11 is more than --window 10"),
        ((10, 0), "--stride is 0: give a finite number, above 0"),
        ((-1, 1), "--window is -1: give a finite number, 0 or more"),
        ((float("nan"), 1), "--window is nan"),
    ],
)
def test_what_cannot_be_cut_is_refused(given, told):
    with pytest.raises(UserError, match=told):
        Cut(*given)


def test_a_window_has_the_frames_of_a_clip(tmp_path):
    path = write_video(tmp_path / "a.mp4", 0)
    windows = [(0.0, 2.0), (1.25, 3.25), (4.0, 5.0), (7.0, 8.0)]
    found = list(read_windows(path, lambda length: windows, size=32, rate=3.0))
    assert [window for window, _ in found] == windows
    for (start, end), frames in found[:3]:
        alone = read_frames(path, size=32, rate=3.0, start=start, end=end)
        np.testing.assert_array_equal(frames.images, alone.images)
        np.testing.assert_array_equal(frames.times, alone.times)
    assert "no frame from 7 s on" in str(found[3][1])


def test_windows_are_read_in_order_and_times_are_of_the_video(videos):
    how = Reading(Cut(2, 1), size=16, rate=2.0, num_frames=3)
    wanted = [(video, None) for video in video_folder.videos_of(videos)]
    found = list(read_all(wanted, how, workers=3))
    told = [(one.video.name, one.window and one.window.start) for one in found]
    starts = [("a.mp4", 0), ("a.mp4", 1), ("a.mp4", 2), ("a.mp4", 3)]
    assert told == [
        *starts,
        ("bad.mp4", None),
        ("d.mp4", 0),
        ("deep/b'c.mp4", 0),
        ("deep/b'c.mp4", 1),
    ]
    np.testing.assert_allclose(found[2].times, [2, 3, 4], atol=1e-6)
    assert "not a video" in found[4].fault
    # What is there already is not read again.
    half = Known(0, 0, "", 4, frozenset({0.0, 2.0}))
    again = list(read_all([(wanted[0][0], half)], how, workers=1))
    assert [one.window.start for one in again] == [1, 3]


def test_changes_are_told_by_size_time_and_bytes(videos):
    found = video_folder.videos_of(videos)
    known = {
        one.name: Known(one.size, one.modified, one.sha256(), 1, frozenset({0.0})) for one in found
    }
    assert video_folder.changes(found, known).unchanged == 4
    # Another time and the same bytes; other bytes of the same size; gone; half of it there.
    os.utime(videos / "a.mp4", ns=(1, 1))
    (videos / "bad.mp4").write_bytes(b"no veedo")
    os.utime(videos / "bad.mp4", ns=(2, 2))
    (videos / "d.mp4").unlink()
    known["deep/b'c.mp4"] = Known(*vars(known["deep/b'c.mp4"]).values())
    half = known | {"deep/b'c.mp4": Known(found[-1].size, found[-1].modified, "", 2, frozenset())}
    told = video_folder.changes(video_folder.videos_of(videos), half)
    assert [one.name for one in told.touched] == ["a.mp4"]
    assert sorted(told.stale) == ["bad.mp4", "d.mp4"]
    assert [one.name for one in told.wanted] == ["bad.mp4", "deep/b'c.mp4"]
    assert told.unchanged == 1


def test_a_folder_without_videos(tmp_path):
    with pytest.raises(UserError, match="no video in it or below"):
        video_folder.videos_of(tmp_path)
    write_video(tmp_path / "a.mp4", 0, seconds=0.5)
    assert len(video_folder.videos_of(tmp_path, only="a*")) == 1
    with pytest.raises(UserError, match=r"--only 'b\*' matches none of 1 videos"):
        video_folder.videos_of(tmp_path, only="b*")
    with pytest.raises(UserError, match="no such folder"):
        video_folder.videos_of(tmp_path / "nowhere")
