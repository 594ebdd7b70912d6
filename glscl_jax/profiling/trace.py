"""A trace of some steps, as TensorBoard's profile plugin and Perfetto open it.

    --profile 5            # the second to the sixth step after the start
    --profile 1000:1004    # these steps, as the log counts them

The first step after a start pays for much that later ones do not, so it is not among the five.
"""

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterator

import jax

from glscl_jax.errors import UserError

_FORMS = "give a number of steps (--profile=5), or the first and the last (--profile=1000:1004)"


@dataclasses.dataclass(frozen=True)
class Window:
    """Steps to trace, both ends included, counted from 1 as in the log."""

    first: int
    last: int


def read_window(text: str, done: int, total: int) -> Window | None:
    """The window that `--profile` asks for; none of "".

    Args:
      text: see above.
      done: steps before this start; 0 while that is not known, which allows the most.
      total: steps of the whole run.

    Raises:
      UserError: the text is malformed, or the run has no such steps.
    """
    if not text:
        return None
    first, last = _ends(text) if ":" in text else (done + 2, done + 1 + _number(text, text))
    if last < first or first < 1:
        raise UserError(f"--profile={text} holds no step: {_FORMS}")
    if first <= done or last > total:
        left = f"steps {done + 1} to {total}" if done < total else "no step left"
        raise UserError(
            f"--profile={text} is steps {first} to {last}, and this start of the run has {left}: "
            "ask for some of those"
        )
    return Window(first, last)


def window_left(text: str, done: int, total: int) -> Window | None:
    """What of the window of a command is left when it is given again, to a run that goes on.

    A scheduler repeats a command as it was: steps that are past, or beyond the end, are no mistake
    then.

    Args:
      text, done, total: as of `read_window`, which has found the text right for a fresh run.

    Returns:
      The steps that this start has of it; none if it has none.
    """
    if not text:
        return None
    first, last = _ends(text) if ":" in text else (done + 2, done + 1 + _number(text, text))
    first, last = max(first, done + 1), min(last, total)
    return Window(first, last) if first <= last else None


def _ends(text: str) -> tuple[int, int]:
    first, last = text.split(":", 1)
    return _number(first, text), _number(last, text)


def _number(part: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", part, re.ASCII):
        raise UserError(f"--profile={text} is not understood: {_FORMS}")
    return int(part)


class Trace:
    """Records the window's steps, on the first process only.

    All processes run the same program, so the trace of one, with all of its devices, says where
    the time goes. Traces of several would lie in folders of different times, and processes of
    one machine would write over each other's.
    """

    def __init__(
        self,
        window: Window | None,
        directory: pathlib.Path,
        paused: Callable[[], contextlib.AbstractContextManager],
    ):
        """Begins.

        Args:
          window: which steps; none for no trace.
          directory: gets `plugins/profile/TIME/`, where TensorBoard looks for traces.
          paused: a context that is entered when the device has nothing left to do, off the clock.
        """
        self._window = window if jax.process_index() == 0 else None
        self._directory, self._paused = directory, paused

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around step `number`, from its call to its log line."""
        window = self._window
        if window is None or not window.first <= number <= window.last:
            yield
            return
        if number == window.first:
            with self._paused():
                self._start()
        # By this name and number TensorBoard's step-time view knows a step.
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        if number == window.last:
            with self._paused():
                self._stop()

    def _start(self) -> None:
        options = jax.profiler.ProfileOptions()
        # Every call in Python would fill the trace, which ends at a million events.
        options.python_tracer_level = 0
        jax.profiler.start_trace(
            self._directory, create_perfetto_trace=True, profiler_options=options
        )

    def _stop(self) -> None:
        window = self._window
        try:
            jax.profiler.stop_trace()
        # A trace is not worth a training: a full disk, say, is told of and no more.
        except (OSError, RuntimeError, ValueError) as error:
            print(f"the trace could not be written to {self._directory}: {error}", flush=True)
            return
        print(
            f"steps {window.first} to {window.last} are traced in {self._directory}: "
            f"tensorboard --logdir {self._directory.parent}, or perfetto_trace.json.gz in "
            "ui.perfetto.dev",
            flush=True,
        )
