"""A step that is compiled by itself before it first runs, so that what compiling takes is known."""

import dataclasses
import time
from collections.abc import Callable

from glscl_jax.profiling import memory


@dataclasses.dataclass(frozen=True)
class Compilation:
    """What compiling a step took and found.

    Attributes:
      seconds: of tracing, lowering and compiling, or of reading JAX's compilation cache.
      memory: see `memory.Plan`; None where the backend does not say.
    """

    seconds: float
    memory: memory.Plan | None


class CompiledStep:
    """A jitted function, compiled for the arguments of its first call and no others."""

    def __init__(self, step, on_compiled: Callable[[Compilation], None] = lambda _: None):
        """Begins.

        Args:
          step: what `jax.jit` gave.
          on_compiled: is called once, when the step is compiled and has not run.
        """
        self._step, self._on_compiled, self._compiled = step, on_compiled, None

    def __call__(self, *arguments):
        if self._compiled is None:
            self._compiled = self._compile(arguments)
        return self._compiled(*arguments)

    def _compile(self, arguments):
        before = time.perf_counter()
        compiled = self._step.lower(*arguments).compile()
        seconds = time.perf_counter() - before
        self._on_compiled(Compilation(seconds, memory.plan_of(compiled)))
        return compiled
