"""Timing of contenders that take turns in one process, so that all meet the same machine."""

import statistics
import time
from collections.abc import Callable, Mapping


def take_turns(
    contenders: Mapping[str, Callable[[], None]], rounds: int, turn: int = 2
) -> dict[str, list[float]]:
    """Seconds of the timed calls of each: `rounds` turns of `turn` calls and one to warm up.

    That first call of a turn pays for memory that another has just given back, and the kernel
    clears each page of it. A call before all turns compiles.
    """
    times = {name: [] for name in contenders}
    for step in contenders.values():
        step()
    for _ in range(rounds):
        for name, step in contenders.items():
            step()
            times[name] += [seconds(step) for _ in range(turn)]
    return times


def seconds(call: Callable[[], None]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def summary(times: list[float]) -> str:
    """Median and range of step times."""
    low, high = min(times), max(times)
    return (
        f"{statistics.median(times):8.3f} s a step, median of {len(times)} "
        f"({low:.3f} to {high:.3f})"
    )
