"""Which frames there are: equal, absent and restarted timestamps, gaps, bounds, false alarms."""

import fractions
import os

import av
import numpy as np
import pytest

from glscl_jax.input_pipeline.decoding import packet_scan, timeline, video
from glscl_jax.input_pipeline.decoding.video import read_frames
from tests.numbered_videos import SIZE, numbers, remuxed, retimed, write


def read(path, **how):
    frames = read_frames(path, size=SIZE, **how)
    return numbers(frames.images), frames.fault


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """60 frames, 10 a second, without B-frames, a key frame a second."""
    return write(tmp_path_factory.mktemp("plain") / "a.mp4", 60, 10, gop=10)


@pytest.mark.parametrize("name", ["a.mkv", "a.flv"])
def test_of_equal_timestamps_the_last_frame_counts(plain, tmp_path, name):
    # Ten frames at 0, in one container each; one at 1.5 s twice.
    times = (
        [0] * 10 + [100 * n for n in range(1, 15)] + [1500, 1500] + [100 * n for n in range(16, 50)]
    )
    path = retimed(plain, tmp_path / name, times)
    expected = [max(n for n, t in enumerate(times) if t <= 500 * k + 1) for k in range(10)]
    found, fault = read(path, rate=2)
    assert (found[:10], fault) == (expected, None)
    assert read(path, start=1.5, end=1.6)[0] == [25]


JOINED = {
    "a.ts": ("libx264", 0),
    "b.ts": ("libx264", 2),
    "c.ts": ("mpeg2video", 2),
    "a.mpg": ("mpeg2video", 0),
    "b.mpg": ("mpeg2video", 2),
    "a.avi": ("mpeg4", 0),
}


@pytest.mark.parametrize("name", JOINED)
def test_a_clock_that_starts_again_goes_on(tmp_path, name):
    codec, bframes = JOINED[name]
    one, two = (
        write(tmp_path / f"{count}{name}", count, 25, codec=codec, bframes=bframes, gop=15)
        for count in (60, 80)
    )
    path = tmp_path / name
    path.write_bytes(one.read_bytes() + two.read_bytes() + one.read_bytes())
    shown = [*range(60), *range(80), *range(60)]
    assert read(path) == (shown[::25], None)
    assert read(path, start=3.0, end=4.0) == (shown[75:101:25], None)
    assert video.measure(path) == pytest.approx(8, abs=0.1)


@pytest.mark.parametrize("name", ["a.mkv", "a.flv", "a.mp4"])
def test_where_ffmpeg_stops_at_a_joint_the_clip_is_damaged(plain, tmp_path, name):
    one = remuxed(plain, tmp_path / f"one{name}")
    assert read(one) == ([0, 10, 20, 30, 40, 50], None)
    path = tmp_path / name
    path.write_bytes(3 * one.read_bytes())
    found, fault = read(path)
    assert found[:6] == [0, 10, 20, 30, 40, 50]
    assert fault.startswith("joined: another file follows in it after")


@pytest.mark.parametrize("first", [-3000, 700, 7_200_000])
@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.mp4", "a.flv", "a.webm", "a.nut"])
def test_a_clock_may_start_anywhere(plain, tmp_path, name, first):
    if name == "a.webm":
        plain = write(tmp_path / "plain.webm", 60, 10, codec="libvpx", gop=10)
    if first < 0 and name in ("a.mp4", "a.flv", "a.nut"):
        pytest.skip("has no clock that is negative")
    times = [first + 100 * n for n in range(60)]
    path = retimed(plain, tmp_path / name, times, options={"avoid_negative_ts": "disabled"})
    assert read(path) == ([0, 10, 20, 30, 40, 50], None)
    assert read(path, start=2, end=3) == ([20, 30], None)
    assert video.measure(path) == pytest.approx(6)
    if name in ("a.mkv", "a.webm") and first > 0:
        assert video.duration(path) == pytest.approx(6, abs=0.2)


@pytest.mark.parametrize("name", ["a.ts", "a.mpg"])
@pytest.mark.parametrize("begin", [2**33 - 180_000, 2**33 - 9_000_000])
def test_a_clock_of_33_bits_that_runs_over(tmp_path, name, begin):
    codec = "mpeg2video" if name == "a.mpg" else "libx264"
    plain = write(tmp_path / f"plain{name}", 75, 25, codec=codec, gop=10)

    def later(_, packet):
        begins = int(begin / 90_000 / packet.time_base)
        packet.pts, packet.dts = packet.pts + begins, packet.dts + begins

    # Two seconds to the end of the clock, or a hundred.
    path = remuxed(plain, tmp_path / name, later, options={"muxpreload": "0", "muxdelay": "0"})
    assert read(path) == ([0, 25, 50], None)


@pytest.mark.parametrize("name", ["a.h264", "a.hevc", "a.m2v", "a.ivf"])
def test_without_a_clock_frames_are_counted(tmp_path, name):
    codec = {"h264": "libx264", "hevc": "libx265", "m2v": "mpeg2video", "ivf": "libvpx"}
    path = write(tmp_path / name, 75, 25, codec=codec[path_ending(name)], bframes=2, shape=(96, 96))
    assert read(path) == ([0, 25, 50], None)
    assert read(path, start=1.0, end=2.5) == ([25, 50], None)


def path_ending(name):
    return name.partition(".")[2]


HOUR = 3_600_000


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.flv", "a.mov"])
@pytest.mark.parametrize("jump_at", [1, 30, 59])
def test_a_gap_is_not_filled_with_copies(plain, tmp_path, name, jump_at):
    # At the beginning, in the middle, at the end.
    hours = 100 if name == "a.mkv" else 1
    times = [100 * n + (hours * HOUR if n >= jump_at else 0) for n in range(60)]
    path = retimed(plain, tmp_path / name, times)
    found, fault = read(path)
    assert len(found) <= 8
    assert {0, 10} - {n for n in (0, 10) if n >= jump_at} <= set(found)
    assert found == sorted(set(found))
    assert fault.startswith(f"its clock jumps from {(jump_at - 1) / 10:.1f} s to ")
    assert "lost" not in fault
    assert "truncated" not in fault


@pytest.mark.parametrize("name", ["a.ts", "b.ts"])
def test_between_recordings_there_is_no_gap(tmp_path, name):
    plain = write(tmp_path / "plain.mp4", 60, 10, gop=10, bframes=2 if name == "b.ts" else 0)
    ahead = 3600 if name == "a.ts" else 30

    def jump(number, packet):
        if number >= 30:
            ticks = int(ahead / packet.time_base)
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks

    assert read(remuxed(plain, tmp_path / name, jump)) == ([0, 10, 20, 30, 40, 50], None)


@pytest.mark.parametrize("seconds", [2, 60, 3600, 200_000])
def test_what_the_last_frame_says_of_itself_is_taken_once(plain, tmp_path, seconds):
    def lasting(number, packet):
        if number == 59:
            packet.duration = int(seconds / packet.time_base)

    path = remuxed(plain, tmp_path / "a.mp4", lasting)
    with av.open(path) as container:
        assert container.duration / av.time_base == pytest.approx(5.9 + seconds, abs=0.2)
    assert read(path) == ([0, 10, 20, 30, 40, 50], None)
    assert video.measure(path) == pytest.approx(6)
    # It is on screen all the same.
    assert read(path, start=7.0, end=7.5) == ([59], None)


def test_the_last_frame_of_a_slide_show_is_taken_once(tmp_path):
    times = [0, 2000, 3000, 7000]
    path = retimed(write(tmp_path / "a.mp4", 4, 10, gop=1), tmp_path / "a.mkv", times)
    assert read(path)[0][:8] == [0, 0, 1, 2, 2, 2, 2, 3]
    assert len(read(path)[0]) == 8


def test_copies_are_fewer_than_frames_or_few(tmp_path):
    # 20 slides of 500 s: at a frame a second 10,000 frames would be 20.
    line = timeline.Timeline(
        ticks=[500 * n + 100 * (n % 3) for n in range(20)],
        keys=[0],
        end=10_000,
        tick=1,
        rate=None,
        whole=True,
        joints=0,
        fault=None,
    )
    assert timeline.choose(line, 1.0, 0.0, None) == list(range(20))
    assert timeline.choose(line, 0.001, 0.0, None) == [0, 1, 3, 6, 7, 9, 12, 13, 15, 18]
    # A window of it has its copies.
    assert timeline.choose(line, 1.0, 595.0, 605.0) == [0] * 5 + [1] * 6
    assert timeline.choose(line, 1000.0, 595.0, 605.0) == [0, 1]


@pytest.mark.parametrize(("longer", "constant"), [(0.04, True), (0.4, False), (1.0, False)])
def test_an_interval_decides_whether_a_rate_is_constant(longer, constant):
    ticks = [1000 * n + (int(1000 * longer) if n > 15 else 0) for n in range(40)]
    tick = fractions.Fraction(1, 10_000)
    line = timeline.Timeline(ticks, [0], ticks[-1] + 1000, tick, None, True, 0, None)
    assert (timeline.constant_rate(line) is not None) == constant


def test_a_frame_lost_by_the_encoder_makes_the_rate_vary(plain, tmp_path):
    # One interval of 1.4 frames: from there on numbers and times differ.
    times = [100 * n + (40 if n > 20 else 0) for n in range(60)]
    path = retimed(plain, tmp_path / "a.mkv", times)
    frames = read_frames(path, size=SIZE, rate=10)
    on_screen = [max(n for n, t in enumerate(times) if t <= 100 * k) for k in range(61)]
    assert numbers(frames.images) == on_screen


def test_a_frame_that_decoders_leave_out_is_not_held_for_a_second(plain, tmp_path, monkeypatch):
    # Frame 20 is on screen from 2.0 to 3.0 s; the one at 3.0 s is named and is not in the file.
    times = [100 * n if n <= 20 or n >= 40 else None for n in range(60)]
    path = retimed(plain, tmp_path / "a.mkv", times)
    really = packet_scan.Packets.timeline

    def with_one_more(packets, shown=None):
        line = really(packets, shown)
        line.ticks.insert(21, 3000)
        return line

    monkeypatch.setattr(packet_scan.Packets, "timeline", with_one_more)
    found, fault = read(path)
    assert found == [0, 10, 20, 40, 50]
    assert fault == "damaged: 1 of 6 frames lost, the first at 3.0 s"


def test_packets_ahead_of_an_edit_list_are_not_shown(tmp_path):
    # Frames 50 to 69 are decoded, for 70 leans on them, and shown at no time: not even counted.
    whole = write(tmp_path / "whole.mp4", 120, gop=50)

    def from_70(_, packet):
        ticks = int(1 / (30 * packet.time_base))
        packet.pts, packet.dts = packet.pts - 70 * ticks, packet.dts - 70 * ticks
        return packet.pts >= -20 * ticks

    path = remuxed(whole, tmp_path / "a.mp4", from_70)
    with av.open(path) as container:
        assert sum(packet.is_discard for packet in container.demux(video=0)) == 20
    assert read(path, rate=30) == (list(range(70, 120)), None)
    assert read(path, start=1.0) == ([100], None)


def test_a_whole_asf_is_not_cut_off(tmp_path):
    # Its header has one duration, of the sound, which goes on here.
    path = tmp_path / "a.asf"
    with av.open(path, "w") as container:
        sound = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        film = container.add_stream("msmpeg4v3", rate=10)
        film.height = film.width = SIZE
        film.pix_fmt = "yuv420p"
        for start in range(0, 80_000, 1024):
            samples = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.int16), format="s16", layout="mono"
            )
            samples.sample_rate, samples.pts = 16000, start
            container.mux(sound.encode(samples))
        picture = np.zeros((SIZE, SIZE, 3), np.uint8)
        for _ in range(30):
            container.mux(film.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(film.encode())
        container.mux(sound.encode())
    assert len(read_frames(path, size=SIZE).images) == 3
    assert read_frames(path, size=SIZE).fault is None
    os.truncate(path, path.stat().st_size // 2)
    assert read_frames(path, size=SIZE).fault.startswith("truncated: ")
