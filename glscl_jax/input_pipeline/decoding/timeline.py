"""A video's timeline: when each frame is on screen, and which frames to show.

In ticks of the stream's time base, which are exact.
"""

import bisect
import dataclasses
import fractions
import itertools
import math
import statistics

from glscl_jax.input_pipeline.decoding.containers import VideoError

# Intervals of a constant frame rate still differ by the rounding to the time base, and the rate
# that the header names is taken where the timestamps say nearly the same.
_INTERVAL_TOLERANCE = 0.05
_RATE_TOLERANCE = 0.005
# So many intervals at a joint, and so many times as long as others, leave a rate constant.
_ODD_PER_JOINT, _ODD = 2, 3
_NANOSECOND = fractions.Fraction(1, 10**9)
# A frame that stays longer, and so much longer than is usual, is a fault of the clock.
_STILL_SECONDS = 600.0
_STILL_FRAMES = 100
# So often frames may be repeated, where that is more than there are frames.
_COPIES = 600


@dataclasses.dataclass(frozen=True)
class Timeline:
    """When which frame is shown.

    Attributes:
      ticks: when each frame appears, ascending; complete up to `end`. Several can share a time.
      keys: where decoding can start, ascending; of use where times are the file's own.
      end: when the last frame leaves the screen.
      tick: seconds a tick.
      rate: frames a second as the header has it, if it does.
      whole: whether the last frame is the video's last.
      joints: how often the file's clock started again.
      fault: in a few words, why the file has less than it should; None if it has all.
    """

    ticks: list[int]
    keys: list[int]
    end: int
    tick: fractions.Fraction
    rate: fractions.Fraction | None
    whole: bool
    joints: int
    fault: str | None

    def seconds(self, ticks: int) -> float:
        """Seconds from the first frame."""
        return float((ticks - self.ticks[0]) * self.tick)

    def index_on_screen(self, seconds: float) -> int:
        """Index of the frame on screen at a time: of those that share one, the last."""
        # 0.3 is a little less than three tenths.
        at = self.ticks[0] + (fractions.Fraction(seconds) + _NANOSECOND) / self.tick
        return max(0, bisect.bisect_right(self.ticks, at) - 1)

    @property
    def length(self) -> float:
        """Seconds that it lasts where the last frame stays no longer than is usual."""
        steps = [b - a for a, b in itertools.pairwise(self.ticks) if b > a]
        usual = statistics.median(steps) if steps else self.end - self.ticks[0]
        return self.seconds(self.ticks[-1] + min(usual, self.end - self.ticks[-1]))

    def stills(self) -> list[int]:
        """Indices of frames that no clock that is right can keep on screen so long."""
        long = _STILL_SECONDS / self.tick
        steps = [b - a for a, b in itertools.pairwise(self.ticks)]
        if not steps or max(steps) <= long:
            return []
        long = max(long, _STILL_FRAMES * statistics.median(steps))
        return [index for index, step in enumerate(steps) if step > long]


def choose(timeline: Timeline, rate: float, start: float, end: float | None) -> list[int]:
    """Indices of the frames to show; one can occur twice where the frame rate varies.

    Where the frame rate is constant these are the reference's: every round(fps / rate)-th from
    int(start * fps) to int(end * fps), counted from 0, the last included. Where it varies they
    are the ones on screen at start, start + 1 / rate, ...; the video's last frame, which may say
    that it lasts an hour, is among them once, and so is each where copies would be most of them.

    Raises:
      VideoError: there is none.
    """
    length = timeline.seconds(timeline.end)
    last = len(timeline.ticks) - 1
    fps = constant_rate(timeline)
    if fps is not None:
        until = last if end is None else int(min(end * fps, last))
        chosen = list(range(int(start * fps), until + 1, max(1, round(fps / rate))))
        if not chosen and timeline.whole and start < length:
            chosen = [last]  # it stays
    else:
        until = length if end is None else min(end, length)
        asked = int((until - start) * rate) + 1
        if asked > max(len(timeline.ticks), _COPIES):
            chosen = _each_once(timeline, rate, start, until)
        else:
            times = (start + k / rate for k in range(asked))
            chosen = [timeline.index_on_screen(time) for time in times if time < length]
        once = {*timeline.stills(), *([last] if timeline.whole else [])}
        chosen = [
            index
            for n, index in enumerate(chosen)
            if index not in once or index not in chosen[n - 1 : n]
        ]
    if not chosen:
        short = f"no frame from {start:g} s on: the video has {length:.1f} s"
        raise VideoError(timeline.fault or short)
    return chosen


def _each_once(timeline: Timeline, rate: float, start: float, until: float) -> list[int]:
    """The frames on screen at start, start + 1 / rate, ... up to `until`, without copies."""
    chosen, ticks, length = [], timeline.ticks, timeline.seconds(timeline.end)
    for index in range(timeline.index_on_screen(start), len(ticks)):
        begin = timeline.seconds(ticks[index])
        leaves = timeline.seconds(ticks[index + 1]) if index + 1 < len(ticks) else math.inf
        time = start + max(0, math.ceil((begin - start) * rate)) / rate
        if time < leaves and time <= until and time < length:
            chosen.append(index)
    return chosen


def constant_rate(timeline: Timeline) -> float | None:
    """Frames a second if all intervals are equal up to rounding; None if they vary."""
    ticks = timeline.ticks
    mean = fractions.Fraction(max(1, timeline.end - ticks[0]))
    if len(ticks) > 1:
        mean = fractions.Fraction(ticks[-1] - ticks[0], len(ticks) - 1)
    if timeline.joints and len(ticks) > 1:
        mean = fractions.Fraction(statistics.median(b - a for a, b in itertools.pairwise(ticks)))
    tolerance = max(1, _INTERVAL_TOLERANCE * mean)
    shortest, longest = math.ceil(mean - tolerance), math.floor(mean + tolerance)
    odd = [b - a for a, b in itertools.pairwise(ticks) if not shortest <= b - a <= longest]
    # Where a recording breaks off, its last frames' timestamps can be a frame off.
    if len(odd) > _ODD_PER_JOINT * timeline.joints or any(step > _ODD * mean for step in odd):
        return None
    # Regular up to a pause in which the window ends. What the video's last frame says of itself
    # is no pause: in the reference its frames alone count.
    if not timeline.whole and timeline.end - ticks[-1] > 2 * mean:
        return None
    measured = float(1 / (mean * timeline.tick))
    stated = float(timeline.rate or 0)
    return stated if abs(stated - measured) < _RATE_TOLERANCE * measured else measured
