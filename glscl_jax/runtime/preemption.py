"""A scheduler's notice, SIGTERM: the run saves a checkpoint, says so, and ends."""

import signal

import jax
from jax.experimental import multihost_utils

# sysexits.h's EX_TEMPFAIL, "try again later": a checkpoint of the last step is on disk.
PREEMPTED_STATUS = 75


class Preemption:
    """Whether the run has been asked to end; all processes hear it at the same step.

    In several processes JAX's preemption service catches the signal of any of them, and names a
    step that none has passed. In one, a second signal ends it at once. When the context ends, the
    signal is whose it was before: a run may be one cell of a notebook.
    """

    def __init__(self):
        self._several = jax.process_count() > 1
        self._told = False
        self._before = None

    def __enter__(self) -> "Preemption":
        if not self._several:
            self._before = signal.signal(signal.SIGTERM, self._take_note)
        return self

    def __exit__(self, *raised) -> None:
        # One that was not set from Python is not known, and cannot be set from it.
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _take_note(self, number, frame):
        self._told = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def reached(self, step: int) -> bool:
        """Whether `step`, which is done, is the last; to be asked after every step."""
        if self._several:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._told
