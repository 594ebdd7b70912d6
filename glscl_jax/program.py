"""How every program starts: flags, quiet libraries, and one line for a user's mistake."""

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


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """Runs `main` under absl; a `UserError` becomes one line and exit status 2."""
    # TFDS and Orbax tell every file they open.
    logging.set_verbosity(logging.WARNING)

    def parse_or_exit(argv):
        try:
            return _parse_flags(argv)
        except UserError as error:
            _exit_with(error)

    def guarded(argv):
        try:
            if len(argv) > 1:
                raise UserError(f"unexpected argument {argv[1]!r} (--help lists the flags)")
            return main(argv)
        except UserError as error:
            return _exit_with(error)

    app.run(guarded, flags_parser=parse_or_exit)


def _exit_with(error: UserError):
    print(f"error: {error}", file=sys.stderr, flush=True)
    sys.exit(USER_ERROR_STATUS)
