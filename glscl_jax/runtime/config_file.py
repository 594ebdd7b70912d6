"""A config file and its overrides, looked through before absl reads them: one line a mistake.

absl and ml_collections read them in the end. What they make of a mistake is a traceback, an error
much later, or quotes within quotes.
"""

import difflib
import importlib.machinery
import importlib.util
import inspect
import pathlib
import re
import traceback
from collections.abc import Iterator, Sequence

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import tuple_parser

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.models.glscl import OF_HEAD

_PARSERS = {
    bool: (flags.BooleanParser(), "true or false"),
    int: (flags.IntegerParser(), "a whole number"),
    float: (flags.FloatParser(), "a number"),
    tuple: (tuple_parser.TupleParser(), "a tuple, such as \"('one', 'two')\""),
}


def check(flag: str, argv: Sequence[str], config: ConfigDict | None = None) -> None:
    """Raises a `UserError` for what is wrong with `--FLAG=FILE --FLAG.key=value ...`.

    Args:
      flag: the name of a flag that `config_flags.DEFINE_config_file` made.
      argv: the program's arguments, its own name first.
      config: what is changed where no file is given; without one such changes are absl's matter.
    """
    for name, value in _flags(argv[1:]):
        if name == flag and value is not None:
            config = load(flag, value)
        elif name.removeprefix("no").startswith(f"{flag}.") and config is not None:
            _check_override(config, flag, name, value)


def locate(flag: str, argv: Sequence[str]) -> list[str]:
    """`argv` where --FLAG names one of the project's own recipes and there is no such file.

    "folder", "folder.py", "configs/folder" and "configs/folder.py" all name the one that lies
    where the library is installed.

    Args:
      flag: the name of a flag that `config_flags.DEFINE_config_file` made.
      argv: the program's arguments.
    """
    found = list(argv)

    def place(given: str) -> str:
        name, colon, variant = given.partition(":")
        parts = pathlib.PurePath(name).parts
        ours = len(parts) == 1 or (len(parts) == 2 and parts[0] == "configs")
        own = _recipes().get(parts[-1].removesuffix(".py")) if ours else None
        # A folder of a recipe's name may well be there: `make demo` makes one.
        return f"{own}{colon}{variant}" if own and not pathlib.Path(name).is_file() else given

    for number, argument in enumerate(argv):
        if argument == "--":
            break
        if argument in (f"--{flag}", f"-{flag}") and number + 1 < len(argv):
            found[number + 1] = place(argv[number + 1])
        elif match := re.fullmatch(rf"(--?{flag}=)(.*)", argument, re.DOTALL):
            found[number] = match[1] + place(match[2])
    return found


def in_sections(argument: str) -> str:
    """An override of `config.model.temperature` and its like, as the head's section has it now."""
    match = re.fullmatch(r"(--?(?:no)?config\.model\.)(\w+)(=.*)?", argument, re.DOTALL)
    if match is None or match[2] not in OF_HEAD:
        return argument
    return f"{match[1]}head.{match[2]}{match[3] or ''}"


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Names and values of the flags; None where none follows."""
    for number, argument in enumerate(arguments):
        if argument == "--":
            return
        if match := re.fullmatch(r"--?([A-Za-z][^=]*)(=(.*))?", argument, re.DOTALL):
            follows = arguments[number + 1] if number + 1 < len(arguments) else None
            yield match[1], match[3] if match[2] else follows


def load(flag: str, given: str) -> ConfigDict:
    """What the file's `get_config` makes, checked to have the settings that there are.

    Args:
      flag: for messages.
      given: "configs/demo.py", or with a variant "configs/demo.py:tiny".

    Raises:
      UserError: there is no such file or variant, it cannot be run, or its settings are others.
    """
    name, colon, variant = given.partition(":")
    paths.local(given, f"--{flag}")
    told, path = f"--{flag}={given}", pathlib.Path(name)
    if not name:
        raise UserError(f"--{flag} is empty: name a config file, such as configs/demo.py")
    if path.is_dir():
        there = sorted(x.name for x in path.glob("*.py") if x.name not in _NO_RECIPES)
        such = f", such as {path / there[0]}" if there else ""
        raise UserError(f"{told}: a folder; name a file in it{such}")
    if not path.exists():
        meant = path.with_name(path.name + ".py")
        hint = f"; did you mean {meant}?" if meant.is_file() else ""
        if not hint and path.parts == (path.stem,):
            hint = f", nor a recipe of that name: there are {', '.join(_recipes())}"
        raise UserError(f"{told}: there is no such file{hint}")
    try:
        get_config = getattr(_run(path), "get_config", None)
        if not callable(get_config):
            raise UserError(f"{told}: no config file, it has no function get_config")
        arguments = (variant,) if colon else ()
        _check_arguments(told, get_config, arguments)
        config = get_config(*arguments)
    except UserError:
        raise
    # A config file is a program: anything can go wrong in it.
    except Exception as error:
        raise UserError(f"{told}: {_said(error)}{_place(path, error)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"{told}: get_config returns {type(config).__name__}, not a ConfigDict")
    _check_settings(told, config)
    return config


_NO_RECIPES = ("__init__.py", "common.py")


def _recipes() -> dict[str, pathlib.Path]:
    """The project's own, by name."""
    folder = pathlib.Path(__file__).parents[2] / "configs"
    return {x.stem: x for x in sorted(folder.glob("*.py")) if x.name not in _NO_RECIPES}


def _run(path: pathlib.Path):
    loader = importlib.machinery.SourceFileLoader("config_file", str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def _check_arguments(told: str, get_config, arguments: tuple[str, ...]) -> None:
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError as error:
        one = "has no variants: leave out what follows the colon"
        what = one if arguments else "needs a variant: FILE:VARIANT"
        raise UserError(f"{told}: it {what}") from error


def _said(error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"not Python, {error.msg}"
    text = str(error.args[0] if error.args else error).strip()
    # ml_collections tells the whole config besides, in quotes of quotes.
    if meant := re.search(r'Did you mean "(\w+)" instead of "(\w+)"', text):
        return f"there is no setting {meant[2]}; did you mean {meant[1]}?"
    text = re.split(r"\n|\\n", text)[0][:200].lstrip("'\"\\") or "failed"
    known = isinstance(error, (ValueError, AttributeError, ImportError, OSError))
    return text if known else f"{type(error).__name__}: {text}"


def _place(path: pathlib.Path, error: Exception) -> str:
    """Where in the file, as far as it can be told."""
    if isinstance(error, SyntaxError):
        return f" (line {error.lineno})" if error.lineno else ""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f" (line {lines[-1]})" if lines else ""


def _check_settings(told: str, config: ConfigDict) -> None:
    # Not before a config is given: a program without one does not need the recipes.
    from configs import common

    known, there = (dict(_leaves(x)) for x in (common.base(), config))
    for name in there:
        # A head may have settings that the base recipe does not: `recipe.read` knows which.
        if name not in known and not name.startswith("model.head."):
            raise UserError(f"{told}: there is no setting {name}{_meant(name, known)}")
    if missing := [name for name in known if name not in there]:
        raise UserError(
            f"{told}: it lacks {', '.join(missing)}: let it start from configs.common.base()"
        )


def _check_override(config: ConfigDict, flag: str, name: str, value: str | None) -> None:
    """`name` is the flag's, with "no" before it if it switches something off."""
    negated = not name.startswith(f"{flag}.")
    path = name.split(".", 1)[1]
    kinds, spelt = dict(_leaves(config)), name.removeprefix("no") if negated else name
    if path not in kinds:
        inside = [known for known in kinds if known.startswith(f"{path}.")]
        if inside:
            raise UserError(
                f"--{spelt} has several settings: give each, such as --{flag}.{inside[0]}"
            )
        raise UserError(f"--{spelt}: there is no such setting{_meant(path, kinds, f'--{flag}.')}")
    parser, words = _PARSERS.get(kinds[path], (None, ""))
    if parser is None or negated or value is None or (kinds[path] is bool and value[:1] == "-"):
        return
    try:
        parser.parse([value] if kinds[path] is tuple else value)
    except (TypeError, ValueError, SyntaxError) as error:
        raise UserError(f"--{name}={value}: give {words}") from error


def _meant(name: str, known, before: str = "") -> str:
    """The setting that was meant: one spelt like it, or of the same name in another section."""
    last = name.rsplit(".", 1)[-1]
    elsewhere = [path for path in known if path.rsplit(".", 1)[-1] == last]
    close = difflib.get_close_matches(name, list(known), n=1)
    lasts = {path.rsplit(".", 1)[-1]: path for path in known}
    close_last = [lasts[x] for x in difflib.get_close_matches(last, list(lasts), n=1)]
    found = [*elsewhere, *close, *close_last]
    return f"; did you mean {before}{found[0]}?" if found else ""


def _leaves(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, type]]:
    """Every setting's path and type."""
    for key in config:
        value = config[key]
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", config.get_type(key)
