"""The packets of a video, undecoded: when their frames appear, and what is wrong with the file.

Timestamps say whether the frame rate is constant, where decoding can start, and whether the file
was cut off. All of it in ticks of the stream's time base, which are exact.
"""

import dataclasses
import fractions
import math
from collections.abc import Iterable

import av

from glscl_jax.input_pipeline.decoding import ogg
from glscl_jax.input_pipeline.decoding.containers import (
    CODEC_STREAMS,
    VideoError,
    file_of,
    kinds,
    second_file,
    stated_size,
)
from glscl_jax.input_pipeline.decoding.timeline import Timeline

# A header's duration and the packets differ by less than this in healthy files.
_CUT_OFF_SECONDS = 0.5
# Formats whose header says how long the file is; FFmpeg guesses for the others.
_DURATION_OF_STREAM = {"mov", "avi"}
_DURATION_OF_FILE = {"matroska", "flv", "asf", "rm", "mxf", "wtv"}
# Recorded and joined without regard to the clock. A longer gap is one between two recordings.
_JOINED = {"mpegts", "mpeg"}
_JOIN_SECONDS = 10.0
# One codec's data and nothing else: FFmpeg guesses timestamps, frames have an order and a rate.
_CLOCKLESS = frozenset(CODEC_STREAMS)
# A clock goes back where two recordings meet; where no key frame is, by less it only jitters.
_JITTER_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Packets:
    """What a video's packets say, read once up to some time.

    Attributes:
      times: of each packet in the file's order, when its frame appears, in ticks of one clock that
        never starts again; None if it is not to be shown.
      keys: when the key frames appear, in the file's order.
      trusted: each frame has a timestamp of its own in the file, by which it can be found.
      lasts: ticks that the latest frame stays on screen, if the file says.
      complete_to: frames from here on may lack neighbours; None if all was read.
      tick, rate, joints, fault: as of `Timeline`.
      holes: what is missing between the packets, as far as is known.
    """

    times: list[int | None]
    keys: list[int]
    trusted: bool
    lasts: int
    complete_to: int | None
    tick: fractions.Fraction
    rate: fractions.Fraction | None
    joints: int
    fault: str | None
    holes: ogg.Holes

    def timeline(self, shown: Iterable[int] | None = None) -> Timeline:
        """The timeline of frames that are shown at `shown`, by default all of the packets'.

        Raises:
          VideoError: there is no frame.
        """
        times = [time for time in self.times if time is not None] if shown is None else shown
        to = self.complete_to
        ticks = sorted(time for time in times if to is None or time < to)
        if not ticks:
            raise VideoError(self.fault or "no frame in it")
        # Some formats store no durations: the last frame stays as long as the one before it.
        end = to
        if to is None:
            end = ticks[-1] + (self.lasts or (ticks[-1] - ticks[-2] if len(ticks) > 1 else 1))
        line = Timeline(
            ticks=ticks,
            keys=sorted(self.keys),
            end=end,
            tick=self.tick,
            rate=self.rate,
            whole=to is None,
            joints=self.joints,
            fault=self.fault,
        )
        stills = line.stills()
        if not stills:
            return line
        at, until = (line.seconds(ticks[index]) for index in (stills[0], stills[0] + 1))
        jump = f"its clock jumps from {at:,.1f} s to {until:,.1f} s"
        return dataclasses.replace(line, fault="; ".join(filter(None, [self.fault, jump])))


class _Reading:
    """Collects what `Packets` tells, packet by packet."""

    def __init__(self, container, stream):
        self.stream = stream
        self.times: list[int | None] = []
        self.positions: list[int] = []  # of each packet in the file, in bytes
        self.keys: list[int] = []
        self.trusted = True
        self.lasts = 0
        self.joints = 0
        self.past = 0  # bytes of the file up to the last packet's end
        self.tails: dict[int, int] = {}  # how far each stream's packets go, by its index
        self.begin = math.inf  # the earliest frame to show so far
        self.latest = -math.inf
        self.now: int | None = None  # of the newest packet; no later one is shown before it
        self._joined = bool(_JOINED & kinds(container))
        self._clockless = bool(_CLOCKLESS & kinds(container))
        self._seen: set[int] = set()
        self._first_key: int | None = None  # since the clock started
        self._raw: int | None = None  # what the file's clock said last
        self._offset = 0  # what to add to it
        self._end = 0  # where the frames so far end
        rate, tick = stream.average_rate, stream.time_base
        self._usual = max(1, round(1 / rate / tick)) if rate else 1
        # In ticks, once: there are many packets, and fractions are slow.
        self._join_ticks = math.floor(fractions.Fraction(_JOIN_SECONDS) / tick)
        self._jitter_ticks = fractions.Fraction(_JITTER_SECONDS) / tick

    def add(self, packet) -> None:
        """Takes the next packet of any stream."""
        if not packet.size:
            return
        self.past = max(self.past, (packet.pos or 0) + packet.size)
        if packet.stream_index == self.stream.index:
            self._add(packet)
        ticks = packet.dts if packet.pts is None else packet.pts
        if ticks is not None:
            index = packet.stream_index
            past = ticks + (packet.duration or (self._usual if index == self.stream.index else 0))
            self.tails[index] = max(self.tails.get(index, past), past)

    def _add(self, packet) -> None:
        lasts = packet.duration or self._usual
        if lasts > self._join_ticks:
            lasts = self._usual
        if self._clockless or (packet.pts is None and packet.dts is None):
            self.trusted = False
            self.now = time = self._end
        else:
            decoded = packet.pts if packet.dts is None else packet.dts
            shown = packet.dts if packet.pts is None else packet.pts
            if self._raw is None:
                # Packets before it may have had no timestamps.
                self._end = self._end if self.times else shown
                self._offset = self._end - shown
            elif self._starts_again(decoded, packet.is_keyframe):
                self.trusted = False
                self.joints += 1
                self._offset = self._end - shown
                self._first_key = None
            self._raw = decoded
            self.now, time = decoded + self._offset, shown + self._offset
        if packet.is_keyframe:
            if not self.keys:
                self._forget()
            self.keys.append(time)
            self._first_key = time if self._first_key is None else self._first_key
        # Packets ahead of an edit list's start are decoded but not shown; frames ahead of the
        # first key frame lean on pictures that are not in the file.
        ahead = self.keys and (self._first_key is None or time < self._first_key)
        self.times.append(None if packet.is_discard or ahead else time)
        self.positions.append(packet.pos or 0)
        self._end = max(self._end, time + lasts)
        if self.times[-1] is None:
            return
        self.trusted = self.trusted and time not in self._seen
        self._seen.add(time)
        self.begin = min(self.begin, time)
        if time >= self.latest:
            self.latest, self.lasts = time, packet.duration or 0

    def _forget(self) -> None:
        """Takes back what is ahead of the first key frame; some files mark none."""
        self.times = [None] * len(self.times)
        self._seen.clear()
        self.begin, self.latest = math.inf, -math.inf

    def _starts_again(self, decoded: int, is_key: bool) -> bool:
        step = decoded - self._raw
        if step < 0:
            return is_key or step < -self._jitter_ticks
        return self._joined and step > self._join_ticks

    def holes(self, container) -> ogg.Holes:
        """What is missing between the packets; mends the times that are wrong for that."""
        if "ogg" not in kinds(container) or not self.times:
            return ogg.Holes()
        holes = ogg.find_holes(file_of(container), self.positions, self.times, self._usual)
        self.trusted = self.trusted and not holes.behind
        return holes

    def seconds(self) -> float:
        """From the earliest frame to the latest."""
        return float((self.latest - self.begin) * self.stream.time_base)


def scan(container, stream, end: float | None) -> Packets:
    """Reads packets up to `end` seconds from the first frame, or all.

    Raises:
      VideoError: there is no frame.
    """
    reading, fault, reached = _Reading(container, stream), None, False
    window = math.inf if end is None else end / stream.time_base
    try:
        for packet in container.demux():
            reading.add(packet)
            slack = _JITTER_SECONDS / stream.time_base if reading.joints else 0
            reached = bool(reading.keys) and reading.now > reading.begin + window + slack
            if reached:
                break
        else:
            fault = _cut_off(container, reading, end) or _joined(container, reading)
    except av.FFmpegError:
        if not reading.times:
            raise
        fault = f"damaged: nothing can be read past {max(reading.seconds(), 0):.1f} s"
    whole, holes = not (reached or fault), reading.holes(container)
    told = [fault]
    if holes.behind:
        told.append(f"damaged: data is missing in {len(holes.behind)} places")
    if holes.cut_off and whole:
        told.append(f"truncated: its end is not there, {max(reading.seconds(), 0):.1f} s are")
    return Packets(
        times=reading.times,
        keys=reading.keys or [time for time in reading.times if time is not None][:1],
        trusted=reading.trusted,
        lasts=reading.lasts,
        # Neighbours may be missing of a frame that is shown later than the newest packet's dts.
        complete_to=None if whole else reading.now,
        tick=stream.time_base,
        rate=stream.average_rate,
        joints=reading.joints,
        fault="; ".join(filter(None, told)) or None,
        holes=holes,
    )


def _cut_off(container, reading: _Reading, end: float | None) -> str | None:
    """Compares how far the packets go with the duration of a header that has one."""
    stream, names = reading.stream, kinds(container)
    tails = {i: ticks * container.streams[i].time_base for i, ticks in reading.tails.items()}
    if names & _DURATION_OF_STREAM and stream.duration is not None:
        begin = float((stream.start_time or 0) * stream.time_base)
        length = float(stream.duration * stream.time_base)
        if "avi" in names and stream.average_rate:
            # FFmpeg scales an AVI's duration to the size of the file, but not its frame count.
            length = max(length, float(stream.frames / stream.average_rate))
        read = float(tails.get(stream.index, begin)) - begin
    elif names & _DURATION_OF_FILE and container.duration is not None:
        # The header counts the longest stream, from its beginning or from where the clock is 0.
        begin = (container.start_time or 0) / av.time_base
        length = container.duration / av.time_base
        read = float(max(tails.values(), default=begin)) - min(begin, 0)
    else:
        size, stated = container.size, stated_size(container) or 0
        if size < stated:
            return f"truncated: {size:,} of {stated:,} bytes are there"
        return None
    needed = length if end is None else min(length, end)
    if read < needed - _CUT_OFF_SECONDS:
        return f"truncated: {max(read, 0):.1f} of {length:.1f} s are there"
    return None


def _joined(container, reading: _Reading) -> str | None:
    """Whether the file holds another one behind what FFmpeg reads of it."""
    if second_file(container, reading.past):
        return f"joined: another file follows in it after {max(reading.seconds(), 0):.1f} s"
    return None
