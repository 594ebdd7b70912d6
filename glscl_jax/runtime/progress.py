"""Progress with rate and time left: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import progress as rich_progress
from rich.console import Console

# Without a terminal (a log file, CI) one line every so many seconds says as much as a bar.
PLAIN_LINE_SECONDS = 10.0

Item = TypeVar("Item")


def track(
    items: Iterable[Item],
    label: str,
    total: int,
    unit: str = "clips",
    each: int = 1,
    plain: bool = True,
) -> Iterator[Item]:
    """Yields `items` unchanged while showing on standard error how far they are.

    Args:
      items: what to pass through.
      label: what is being done, in a word or two.
      total: how many units there are in all.
      unit: what is counted, for the rate.
      each: units an item stands for, e.g. the clips of a batch.
      plain: whether to print lines where there is no terminal; False for a loop that prints
        its own.
    """
    if Console(stderr=True).is_terminal:
        yield from _on_terminal(items, label, total, unit, each)
    elif plain:
        yield from _in_plain_lines(items, label, total, unit, each)
    else:
        yield from items


def duration(seconds: float) -> str:
    """Seconds as `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class _RateColumn(rich_progress.ProgressColumn):
    def __init__(self, unit: str):
        super().__init__()
        self.unit = unit

    def render(self, task):
        speed = task.finished_speed or task.speed
        return "" if speed is None else f"{speed:,.0f} {self.unit}/s"


def _on_terminal(items, label, total, unit, each):
    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        _RateColumn(unit),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        for item in items:
            yield item
            # The last batch may be partly padding.
            done = min(total, bar.tasks[0].completed + each)
            bar.update(task, completed=done)


def _in_plain_lines(items, label, total, unit, each):
    start = last_line = time.monotonic()
    done = 0
    for item in items:
        yield item
        done = min(total, done + each)
        now = time.monotonic()
        if now - last_line >= PLAIN_LINE_SECONDS or done == total:
            last_line = now
            rate = done / max(now - start, 1e-9)
            left = duration((total - done) / rate)
            print(
                f"{label}: {done:,} of {total:,}, {rate:,.0f} {unit}/s, {left} left",
                file=sys.stderr,
                flush=True,
            )
