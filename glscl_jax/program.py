"""How every program starts: flags, quiet libraries, and one line for a user's mistake."""

import logging as standard_logging
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from glscl_jax.errors import UserError

USER_ERROR_STATUS = 2


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses flags, turning a bad config override into a `UserError`.

    ml_collections raises plain AttributeError, KeyError, TypeError or ValueError for an unknown
    key or a value of the wrong type; absl would show them with a traceback.
    """
    try:
        return flags.FLAGS(list(argv))
    except flags.Error as error:
        raise UserError(f"{_first_line(error)} (--help lists the flags)") from error
    except (AttributeError, KeyError, TypeError, ValueError, OSError, ImportError) as error:
        raise UserError(f"--config: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    text = str(error.args[0] if error.args else error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def run(main: Callable[[Sequence[str]], int | None], positional: Sequence[str] = ()) -> None:
    """Runs `main` under absl; a `UserError` becomes one line and exit status 2.

    Args:
      main: is given the program's name and the arguments that are no flags.
      positional: what those are called; exactly so many must be given.
    """
    _hush_libraries()

    def parse_or_exit(argv):
        try:
            return _parse_flags(argv)
        except UserError as error:
            _exit_with(error)

    def guarded(argv):
        try:
            _check_positional(argv[1:], positional)
            return main(argv)
        except UserError as error:
            return _exit_with(error)

    app.run(guarded, flags_parser=parse_or_exit)


def _hush_libraries() -> None:
    """Leaves it to the programs to speak.

    TFDS logs every file it opens. Orbax logs with its traceback what it also raises, and when a
    read or a write fails its threads go on for a moment after their event loops have closed.
    """
    logging.set_verbosity(logging.FATAL)
    standard_logging.getLogger("asyncio").setLevel(standard_logging.CRITICAL)
    usual = sys.unraisablehook

    def hook(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            usual(unraisable)

    sys.unraisablehook = hook


def _check_positional(given: Sequence[str], names: Sequence[str]) -> None:
    if len(given) > len(names):
        raise UserError(f"unexpected argument {given[len(names)]!r} (--help lists the flags)")
    if len(given) < len(names):
        raise UserError(
            f"{names[len(given)]} is missing: give {' '.join(names)} (--help says more)"
        )


def _exit_with(error: UserError):
    print(f"error: {error}", file=sys.stderr, flush=True)
    sys.exit(USER_ERROR_STATUS)
