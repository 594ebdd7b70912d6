"""The packets of a video, undecoded -> which frames there are and which of them to show.

Timestamps say whether the frame rate is constant, where decoding can start, and whether the file
was cut off. All of it in ticks of the stream's time base, which are exact.
"""

import bisect
import dataclasses
import fractions
import itertools
import math

import av

# Intervals of a constant frame rate still differ by the rounding to the time base, and the rate
# that the header names is taken where the timestamps say nearly the same.
_INTERVAL_TOLERANCE = 0.05
_RATE_TOLERANCE = 0.005
# A header's duration and the packets differ by less than this in healthy files.
_CUT_OFF_SECONDS = 0.5


class VideoError(Exception):
    """Why a video gives no frames, in a few words."""


@dataclasses.dataclass(frozen=True)
class Timeline:
    """What the packets say.

    Attributes:
      ticks: when each frame appears, ascending; complete up to `end`.
      keys: those of them where decoding can start, ascending.
      end: when the last frame leaves the screen.
      tick: seconds a tick.
      rate: frames a second as the header has it, if it does.
      fault: in a few words, why the file has less than it should; None if it has all.
    """

    ticks: list[int]
    keys: list[int]
    end: int
    tick: fractions.Fraction
    rate: fractions.Fraction | None
    fault: str | None

    def seconds(self, ticks: int) -> float:
        """Seconds from the first frame."""
        return float((ticks - self.ticks[0]) * self.tick)

    def index_on_screen(self, seconds: float) -> int:
        """Index of the frame on screen at a time."""
        at = self.ticks[0] + fractions.Fraction(seconds) / self.tick
        return max(0, bisect.bisect_right(self.ticks, at) - 1)


class _Packets:
    """What is seen of a file's packets while they are read once, in ticks of their streams.

    Attributes:
      durations: of the frames to show, by when they appear.
      keys: the key frames, in decoding order.
      tails: how far each stream's packets go, by its index.
      begin: the earliest frame to show so far.
      last_dts: of the newest packet; no frame that comes after it is shown earlier.
    """

    def __init__(self, stream):
        self.stream = stream
        self.durations: dict[int, int | None] = {}
        self.keys: list[int] = []
        self.tails: dict[int, int] = {}
        self.begin = math.inf
        self.last_dts: int | None = None

    def add(self, packet) -> None:
        ticks = packet.dts if packet.pts is None else packet.pts
        if not packet.size or ticks is None:
            return
        index, duration = packet.stream_index, packet.duration
        self.tails[index] = max(self.tails.get(index, ticks), ticks + (duration or 0))
        if index != self.stream.index:
            return
        if packet.is_keyframe:
            self.keys.append(ticks)
        # Packets ahead of an edit list's start are decoded but not shown; frames ahead of the
        # first key frame lean on pictures that are not in the file.
        if packet.is_discard or not self.keys or ticks < self.keys[0]:
            return
        self.begin = min(self.begin, ticks)
        self.last_dts = packet.dts
        self.durations[ticks] = duration

    def seconds(self) -> float:
        """From the earliest frame to the latest."""
        return float((max(self.durations) - self.begin) * self.stream.time_base)


def scan(container, stream, end: float | None) -> Timeline:
    """Reads packets up to `end` seconds from the first frame, or all.

    Raises:
      VideoError: there is no frame.
    """
    packets, fault, reached = _Packets(stream), None, False
    window = math.inf if end is None else end / stream.time_base
    try:
        for packet in container.demux():
            packets.add(packet)
            dts = packets.last_dts
            reached = dts is not None and dts > packets.begin + window
            if reached:
                break
        else:
            fault = _cut_off(container, packets, end)
    except av.FFmpegError:
        if not packets.durations:
            raise
        fault = f"damaged: nothing can be read past {packets.seconds():.1f} s"
    # Neighbours may be missing of a frame that is shown later than the newest packet's dts.
    return _timeline(packets, packets.last_dts if reached or fault else None, fault)


def _timeline(packets: _Packets, complete_to: int | None, fault: str | None) -> Timeline:
    durations, stream = packets.durations, packets.stream
    ticks = sorted(t for t in durations if complete_to is None or t < complete_to)
    if not ticks:
        raise VideoError(fault or "no frame in it")
    # Some formats store no durations: the last frame stays as long as the one before it.
    last = durations[ticks[-1]] or (ticks[-1] - ticks[-2] if len(ticks) > 1 else 1)
    end = ticks[-1] + last if complete_to is None else complete_to
    return Timeline(ticks, sorted(packets.keys), end, stream.time_base, stream.average_rate, fault)


def _cut_off(container, packets: _Packets, end: float | None) -> str | None:
    """Compares how far the packets go with the header's duration; MPEG streams have none."""
    stream = packets.stream
    tails = {i: ticks * container.streams[i].time_base for i, ticks in packets.tails.items()}
    if stream.duration is not None:
        begin = float((stream.start_time or 0) * stream.time_base)
        length = float(stream.duration * stream.time_base)
        if container.format.name == "avi" and stream.average_rate:
            # FFmpeg scales an AVI's duration to the size of the file, but not its frame count.
            length = max(length, float(stream.frames / stream.average_rate))
        read = float(tails.get(stream.index, begin)) - begin
    elif container.duration is not None:
        # The header counts the longest stream.
        begin = (container.start_time or 0) / av.time_base
        length = container.duration / av.time_base
        read = float(max(tails.values(), default=begin)) - begin
    else:
        return None
    needed = length if end is None else min(length, end)
    if read < needed - _CUT_OFF_SECONDS:
        return f"truncated: {max(read, 0):.1f} of {length:.1f} s are there"
    return None


def choose(timeline: Timeline, rate: float, start: float, end: float | None) -> list[int]:
    """Indices of the frames to show; one can occur twice where the frame rate varies.

    Where the frame rate is constant these are the reference's: every round(fps / rate)-th from
    int(start * fps) to int(end * fps), counted from 0, the last included. Where it varies they
    are the ones on screen at start, start + 1 / rate, ...

    Raises:
      VideoError: there is none.
    """
    length = timeline.seconds(timeline.end)
    fps = constant_rate(timeline)
    if fps is not None:
        last = len(timeline.ticks) - 1
        last = last if end is None else int(min(end * fps, last))
        chosen = list(range(int(start * fps), last + 1, max(1, round(fps / rate))))
    else:
        until = length if end is None else min(end, length)
        times = (start + k / rate for k in range(int((until - start) * rate) + 1))
        chosen = [timeline.index_on_screen(time) for time in times if time < length]
    if not chosen:
        short = f"no frame from {start:g} s on: the video has {length:.1f} s"
        raise VideoError(timeline.fault or short)
    return chosen


def constant_rate(timeline: Timeline) -> float | None:
    """Frames a second if all intervals are equal up to rounding; None if they vary."""
    ticks = timeline.ticks
    mean = fractions.Fraction(max(1, timeline.end - ticks[0]))
    if len(ticks) > 1:
        mean = fractions.Fraction(ticks[-1] - ticks[0], len(ticks) - 1)
    tolerance = max(1, _INTERVAL_TOLERANCE * mean)
    shortest, longest = math.ceil(mean - tolerance), math.floor(mean + tolerance)
    if not all(shortest <= b - a <= longest for a, b in itertools.pairwise(ticks)):
        return None
    # Regular up to the last frame, which stays longer: the window ends in a pause.
    if timeline.end - ticks[-1] > 2 * mean:
        return None
    measured = float(1 / (mean * timeline.tick))
    stated = float(timeline.rate or 0)
    return stated if abs(stated - measured) < _RATE_TOLERANCE * measured else measured
