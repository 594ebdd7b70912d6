"""How every program starts: flags, quiet libraries, and one line for a user's mistake."""

import contextlib
import dataclasses
import itertools
import logging as standard_logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from absl import app, flags, logging
from ml_collections.config_flags import config_flags

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.runtime import config_file, streams, usage

USER_ERROR_STATUS = 2
# As shells have it for Ctrl-C.
INTERRUPTED_STATUS = 130

# absl's own two, which it defines in no module.
_OF_PARSING = ("flagfile", "undefok")

Main = Callable[[Sequence[str]], int | None]


@dataclasses.dataclass(frozen=True)
class Command:
    """What a first argument runs: `main` with it and what follows it.

    Attributes:
      main: as of `run`; its docstring is what --help prints.
      positional: what the arguments after it are called.
      flags: those of the program's that it reads; all others are refused.
    """

    main: Main
    positional: Sequence[str] = ()
    flags: Sequence[str] = ()

    def refuse_unread(self, name: str, given: Iterable[str]) -> None:
        """Raises a `UserError` for a flag that it does not read; absl's are every program's.

        Args:
          name: what it is called.
          given: the flags' names, as absl has them or negated.
        """
        for flag in given:
            names = {flag, flag.removeprefix("no")}
            modules = map(flags.FLAGS.find_module_defining_flag, names)
            of_absl = any(module and module.startswith("absl.") for module in modules)
            if not of_absl and not names & {*self.flags, *_OF_PARSING}:
                raise UserError(f"{name} does not read --{flag}: leave it out ({name} --help)")


def underscore(arguments: Sequence[str]) -> list[str]:
    """Arguments with flags' names as absl has them: --a-b is --a_b, and --no-a-b is --noa_b.

    Values stay as they are.
    """
    changed = []
    for number, argument in enumerate(arguments):
        if argument == "--":
            return changed + list(arguments[number:])
        name, equals, value = argument.partition("=")
        stem = name.lstrip("-")
        if stem != name and stem[:1].isalpha():
            absl_name = "no" + stem[3:] if stem.startswith("no-") else stem
            name = name.removesuffix(stem) + absl_name.replace("-", "_")
        changed.append(name + equals + value)
    return changed


def _parse_flags(argv: Sequence[str], before: Callable[[], None]) -> list[str]:
    """Parses flags; what is wrong with them, or with a config file, becomes a `UserError`."""
    try:
        before()
        spelt_out = flags.FLAGS.read_flags_from_files(list(argv), force_gnu=False)
        for name in flags.FLAGS:
            if config_flags.is_config_flag(flags.FLAGS[name]):
                spelt_out = config_file.locate(name, spelt_out)
                config_file.check(name, spelt_out)
        return flags.FLAGS(spelt_out)
    except flags.Error as error:
        raise UserError(f"{_in_one_line(error)} (--help lists the flags)") from error


def _flag_names(arguments: Sequence[str]) -> list[str]:
    """Of flags that are not parsed yet."""
    before = itertools.takewhile(lambda argument: argument != "--", arguments)
    return [found[1] for x in before if (found := re.match(r"--?([A-Za-z][^=]*)", x))]


def _in_one_line(error: flags.Error) -> str:
    text = str(error)
    if missing := re.search(r"Flag (--\w+) must have a value other than None", text):
        return f"{missing[1]} is missing"
    # A cause of several arguments would be shown as a tuple, in quotes.
    cause = error.__context__
    if isinstance(error, flags.IllegalFlagValueError) and cause and len(cause.args) > 1:
        text = text.replace(str(cause), str(cause.args[0]))
    return text.strip().splitlines()[0]


def run(
    main: Main,
    positional: Sequence[str] | None = (),
    commands: Mapping[str, Command] | None = None,
    before_flags: Callable[[], None] = lambda: None,
) -> None:
    """Runs `main` under absl; a `UserError` becomes one line and exit status 2.

    Ctrl-C ends it with a line and `INTERRUPTED_STATUS`. A flag's name may be written with dashes,
    too: --batch-size is --batch_size. Help comes before
    all else: whatever the other arguments are, it is printed with status 0.

    Args:
      main: is given the program's name and the arguments that are no flags.
      positional: what those are called; exactly so many must be given, and are paths. None for
        any number of words, which are left as they are.
      commands: first arguments that run something else than `main`, each with its own.
      before_flags: called when `sys.argv` is as it will be parsed.
    """
    streams.outlive_readers()
    _hush_libraries()
    if hasattr(sys.stdout, "reconfigure"):
        # Names that are not UTF-8 are printed escaped, as on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    # In place: ml_collections looks for its overrides in sys.argv itself.
    try:
        arguments = map(config_file.in_sections, underscore(sys.argv[1:]))
        sys.argv[1:] = map(_at_home, arguments)
    except UserError as error:
        _exit_with(error)
    explained = {name: command.main for name, command in (commands or {}).items()}
    if help_text := usage.asked_for(sys.argv[1:], main, explained):
        print(help_text)
        sys.exit(0)

    def chosen(argv) -> Command | None:
        return (commands or {}).get(argv[1]) if len(argv) > 1 else None

    def parse_or_exit(argv):
        try:
            # Before values are looked at that nobody would read.
            if command := chosen(argv):
                command.refuse_unread(argv[1], _flag_names(argv[2:]))
            return _parse_flags(argv, before_flags)
        except UserError as error:
            _exit_with(error)

    def guarded(argv):
        try:
            if command := chosen(argv):
                # Those before its name, and of a --flagfile.
                present = [name for name in flags.FLAGS if flags.FLAGS[name].present]
                command.refuse_unread(argv[1], present)
                return command.main([argv[1], *_positional(argv[2:], command.positional)])
            return main([argv[0], *_positional(argv[1:], positional)])
        except UserError as error:
            return _exit_with(error)

    with contextlib.suppress(KeyboardInterrupt):
        app.run(guarded, flags_parser=parse_or_exit)
    # Only here, as what was under way is let go with the exception: generators that threads wait
    # for are closed then.
    print("stopped by Ctrl-C", file=sys.stderr, flush=True)
    sys.exit(INTERRUPTED_STATUS)


def refuse_beside(flag: str, names: Iterable[str]) -> None:
    """Raises a `UserError` for a flag that is given and says nothing beside another."""
    for name in names:
        if flags.FLAGS[name].present:
            raise UserError(f"--{name} says nothing beside --{flag}: leave it out")


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


def _at_home(argument: str) -> str:
    """The config's file with its `~` expanded, which shells leave alone behind "="; else as it is.

    All other paths are `paths.local` by themselves.
    """
    name, _, value = argument.partition("=")
    if name.strip("-") != "config" or not value.startswith("~"):
        return argument
    return f"{name}={paths.local(value, name)}"


def _positional(given: Sequence[str], names: Sequence[str] | None) -> list[str]:
    """The arguments that are no flags, which are all paths; raises a `UserError` for others."""
    if names is None:
        return list(given)
    if len(given) > len(names):
        raise UserError(f"unexpected argument {given[len(names)]!r} (--help lists the flags)")
    if len(given) < len(names):
        raise UserError(
            f"{names[len(given)]} is missing: give {' '.join(names)} (--help says more)"
        )
    return [str(paths.local(value, name)) for value, name in zip(given, names, strict=True)]


def _exit_with(error: UserError):
    print(f"error: {error}", file=sys.stderr, flush=True)
    sys.exit(USER_ERROR_STATUS)
