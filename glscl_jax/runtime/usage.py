"""What `--help` prints: what the program does, how it is called, its flags."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence

from absl import flags

# Those of `--help` are the program's own; those of `--helpfull` its libraries', too.
_OWN = ("-h", "--h", "-?", "-help", "--help", "-helpshort", "--helpshort")
_ALL = ("-helpfull", "--helpfull")


def asked_for(
    arguments: Sequence[str], main: Callable, commands: Mapping[str, Callable]
) -> str | None:
    """The help that the arguments ask for; None where they do not.

    Args:
      arguments: all but the program's name. They need not be right otherwise.
      main: the program, whose module explains it.
      commands: what explains itself instead, where it is among the arguments.
    """
    if "--" in arguments:
        arguments = arguments[: arguments.index("--")]
    asked = set(arguments)
    if not asked.intersection(_OWN + _ALL):
        return None
    for name, command in commands.items():
        if name in asked:
            return inspect.getdoc(command)
    return _of_program(main, bool(asked.intersection(_ALL)))


def _of_program(main: Callable, with_libraries: bool) -> str:
    module = sys.modules[main.__module__]
    # absl knows the program by what it was started as.
    own = sys.argv[0] if module.__name__ == "__main__" else module.__name__
    packages = ("glscl_jax.", "convert.", "benchmarks.")
    known = sorted(flags.FLAGS.flags_by_module_dict().keys() - {own})
    ours = [name for name in known if name.startswith(packages)]
    libraries = [name for name in known if name not in ours] if with_libraries else []
    parts = [inspect.getdoc(module)]
    if flags.FLAGS.get_key_flags_for_module(own):
        parts.append(f"Flags:\n{_flags_of(own)}")
    shown = set(map(id, flags.FLAGS.get_key_flags_for_module(own)))
    for name in ours + libraries:
        if not {id(flag) for flag in flags.FLAGS.get_key_flags_for_module(name)} <= shown:
            parts.append(f"Flags of {name}:\n{_flags_of(name)}")
    if not with_libraries:
        parts.append("--helpfull lists the flags of the libraries, too.")
    return "\n\n".join(parts)


def _flags_of(module: str) -> str:
    # Below a line with the module's name.
    return flags.FLAGS.module_help(module).lstrip("\n").partition("\n")[2]
