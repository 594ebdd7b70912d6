"""The file that an id without one may mean: names change on their way from disk to disk."""

import collections
import dataclasses
import pathlib
import re
import unicodedata
from collections.abc import Container, Iterable

from glscl_jax.input_pipeline.annotations.source import VIDEO_SUFFIXES, stem

# Of downloads under way, and of videos that are not looked for.
_ENDINGS = VIDEO_SUFFIXES | {".part", ".ytdl", ".crdownload", ".download", ".tmp"}
_ENDINGS |= {".apng", ".avif", ".dv", ".f4v", ".ivf", ".m2v", ".mpe", ".ogg", ".qt", ".rm", ".y4m"}
# Flickr's, as DiDeMo has them: user, number of the video, a hash that not all downloads keep.
_FLICKR = re.compile(
    r"\d+(?:@|%40)?n\d+_(\d+)(?:_[0-9a-f]+)?((?:\.\w+)*)", re.IGNORECASE | re.ASCII
)


@dataclasses.dataclass(frozen=True)
class Near:
    """A file that may be meant.

    Attributes:
      path: relative to the folder of the videos.
      differs: in what its name does, a word or two each.
    """

    path: pathlib.PurePath
    differs: tuple[str, ...]

    @property
    def description(self) -> str:
        """It as a question."""
        return f"did you mean {self.path.as_posix()}? (differs in {', '.join(self.differs)})"


def near_matches(
    missing: Iterable[pathlib.Path],
    files: Iterable[pathlib.Path],
    used: Container[pathlib.Path],
    folder: pathlib.Path,
) -> dict[pathlib.Path, Near]:
    """Pairs files that are not there with files that are.

    Args:
      missing: below `folder`, as the annotations name them.
      files: below `folder`, as they are there.
      used: those of them that clips name.
      folder: that of the videos.

    Returns:
      of each missing one for which there is one, the file whose name differs least. One in another
      folder must be unused, and the only one for the only missing one of its name.
    """
    wanted = {path: path.relative_to(folder).as_posix() for path in missing}
    asked = collections.Counter(_file_name(_plain(name)) for name in wanted.values())
    by_name = collections.defaultdict(list)
    for path in files:
        name = path.relative_to(folder).as_posix()
        by_name[_file_name(_plain(name))].append((name, path in used))
    found = {}
    for path, name in wanted.items():
        there = by_name.get(_file_name(_plain(name)), [])
        near = [one for one, _ in there if _plain(one) == _plain(name)]
        if not near and asked[_file_name(_plain(name))] == 1:
            near = [one for one, is_used in there if not is_used]
            near = near if len(near) == 1 else []
        if near:
            told = (Near(pathlib.PurePath(one), _differences(name, one)) for one in near)
            found[path] = min(told, key=lambda one: (len(one.differs), one.path))
    return found


def _last(change):
    """A change of a path's last part alone."""

    def changed(name: str) -> str:
        head, slash, last = name.rpartition("/")
        return f"{head}{slash}{change(last)}"

    return changed


def _without_ending(name: str) -> str:
    base, _, ending = name.rpartition(".")
    if base and f".{ending}".lower() in _ENDINGS:
        return _without_ending(base)
    return stem(name)


def _flickr_number(name: str) -> str:
    found = _FLICKR.fullmatch(name)
    return found[1] + found[2] if found else name


# What each is called, and the change after which names that differ in it alone are one. In this
# order: what is changed first is in the way of the others.
_CHANGES = {
    "backslashes": lambda name: name.replace("\\", "/"),
    "Unicode form": lambda name: unicodedata.normalize("NFKC", name),
    "spaces": lambda name: re.sub(r"[\s_\u200b\ufeff]+", "_", name).strip("_"),
    "case": str.casefold,
    "ending": _last(_without_ending),
    "v_": _last(lambda name: name.removeprefix("v_")),
    "Flickr's user and hash": _last(_flickr_number),
}


def _plain(name: str, but: str = "") -> str:
    """A path after all changes, or all but one."""
    for what, change in _CHANGES.items():
        if what != but:
            name = change(name)
    return name


def _file_name(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _differences(one: str, other: str) -> tuple[str, ...]:
    """The changes without which two paths do not become one."""
    if _plain(one) != _plain(other):
        slashes = ("backslashes",) * ("\\" in one + other)
        return (*slashes, *_differences(_file_name(one), _file_name(other)), "folder")
    needed = tuple(what for what in _CHANGES if _plain(one, what) != _plain(other, what))
    return needed or ("spelling",) * (one != other)
