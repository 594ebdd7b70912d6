"""The files below a folder: annotations found by their names, videos by their ids."""

import collections
import contextlib
import contextvars
import os
import pathlib
from collections.abc import Callable, Iterator

from glscl_jax.errors import UserError

# As files in the containers that are read are called (`containers`), and no others.
VIDEO_SUFFIXES = frozenset(
    {".264", ".265", ".3g2", ".3gp", ".apng", ".asf", ".avc", ".avi", ".avif", ".dif", ".divx"}
    | {".dnxhd", ".dnxhr", ".drc", ".dv", ".f4v", ".flv", ".gif", ".gxf", ".h261", ".h263", ".h264"}
    | {".h265", ".h26l", ".hevc", ".ism", ".ismv", ".ivf", ".m1v", ".m2p", ".m2t", ".m2ts", ".m2v"}
    | {".m4v", ".mj2", ".mk3d", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mpv", ".mts"}
    | {".mxf", ".nut", ".obu", ".ogg", ".ogm", ".ogv", ".psp", ".qt", ".rm", ".rmvb", ".roq"}
    | {".swf", ".ts", ".vc1", ".vc2", ".vob", ".webm", ".wmv", ".wtv", ".y4m"}
)
PICTURE_SUFFIXES = frozenset(
    {".bmp", ".jpeg", ".jpg", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
WAY_OUT = "put what it leads to there, or give --follow_links"
# How a tree is walked is one for all that reads it.
_FOLLOWED = contextvars.ContextVar("follow_links", default=False)
# And so is what its videos are called.
_NAMES = contextvars.ContextVar("named_by", default=None)


@contextlib.contextmanager
def links_followed(follow: bool) -> Iterator[None]:
    """Whether, for the body, links are followed that lead out of the folder they are in."""
    before = _FOLLOWED.set(follow)
    try:
        yield
    finally:
        _FOLLOWED.reset(before)


@contextlib.contextmanager
def named_by(names: Callable[..., str] | None) -> Iterator[None]:
    """By what table of ids, a `file_names.FileNames`, the body finds videos; None for none."""
    before = _NAMES.set(names)
    try:
        yield
    finally:
        _NAMES.reset(before)


def file_of(video_id: str, *, with_ending: bool) -> str:
    """The file that the table of `named_by` has for an id, "" where there is none."""
    names = _NAMES.get()
    return names(video_id, with_ending=with_ending) if names else ""


def _walked(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, list[str]]]:
    """Yields (a folder in it or itself, the names of the files there), without what is hidden.

    Linked folders are entered where links are followed, each real folder once.

    Raises:
      UserError: it is no folder, or one in it cannot be read.
    """
    seen, follow = set(), _FOLLOWED.get()
    for here, folders, names in os.walk(folder, onerror=_refuse, followlinks=follow):
        # What is linked comes after what is here, so that it is found by its own name.
        folders.sort(key=lambda name: (_is_link(pathlib.Path(here, name)), name))
        folders[:] = [name for name in folders if not name.startswith(".")]
        if follow and (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        if follow:
            seen.add(real)
        yield pathlib.Path(here), [name for name in names if not name.startswith(".")]


def files_below(folder: pathlib.Path) -> list[pathlib.Path]:
    """All files below a folder, sorted, but for hidden ones.

    Raises:
      UserError: it is no folder, or one in it cannot be read.
    """
    # Pictures are what there are millions of, and no annotations.
    found = [
        here / name for here, names in _walked(folder) for name in names if not is_picture(name)
    ]
    return sorted(found)


def _refuse(error: OSError):
    raise UserError(f"{error.filename}: {error.strerror}: make it readable") from error


def links_out(folder: pathlib.Path) -> list[pathlib.Path]:
    """The links below a folder that lead out of it and are not followed, folders and files."""
    if _FOLLOWED.get():
        return []
    root, found = os.path.realpath(folder), []
    for here, folders, names in os.walk(folder, onerror=_refuse):
        names = (*folders, *(name for name in names if not is_picture(name)))
        shown = (name for name in names if not name.startswith("."))
        paths = (pathlib.Path(here, name) for name in shown)
        found += [path for path in paths if _is_link(path) and leads_out(root, path)]
    return sorted(found)


def videos_below(folder: pathlib.Path) -> list[pathlib.Path]:
    """What is below a folder and may be a video, sorted.

    That is files whose names end as those of videos do, and folders of numbered pictures.
    """
    found = []
    for here, names in _walked(folder):
        found += [here / name for name in names if _suffix(name) in VIDEO_SUFFIXES]
        if here != pathlib.Path(folder) and any(map(is_numbered_picture, names)):
            found.append(here)
    return sorted(found)


def is_picture(name: str) -> bool:
    """Whether a file's name ends as that of a picture does, and it is not hidden."""
    return _suffix(name) in PICTURE_SUFFIXES and not name.startswith(".")


def is_numbered_picture(name: str) -> bool:
    """Whether it is a picture's name that ends in a number."""
    return is_picture(name) and name.rpartition(".")[0][-1:].isdecimal()


def _suffix(name: str) -> str:
    return pathlib.PurePath(name).suffix.lower()


def stem(name: str) -> str:
    """A file's name or an id, less the endings of a video: ids can hold dots themselves."""
    base, dot, ending = name.rpartition(".")
    return stem(base) if base and dot + ending.lower() in VIDEO_SUFFIXES else name


def _is_link(path: pathlib.Path) -> bool:
    """Whether it is a link; what the system refuses to look at is said where it is opened."""
    try:
        return path.is_symlink()
    except OSError:
        return False


def leads_out(root: str, path: str | os.PathLike) -> bool:
    """Whether a path, links followed, is not below the folder `root`, itself a real path."""
    return not os.path.realpath(path).startswith(root.removesuffix(os.sep) + os.sep)


def outside(folder: str | os.PathLike, path: str | os.PathLike) -> str:
    """By what link `path`, which begins with `folder`, leads out; "" if it may be read."""
    root = os.path.realpath(folder)
    if _FOLLOWED.get() or not leads_out(root, path):
        return ""
    path, folder = pathlib.Path(path), pathlib.Path(folder)
    # The first on the way, so that of a linked folder one thing is said and not a thing a file.
    ways = (one for one in reversed([path, *path.parents]) if folder in one.parents)
    link = next((one for one in ways if _is_link(one) and leads_out(root, one)), path)
    return f"{link} is a link out of {folder}, to {os.path.realpath(link)}: {WAY_OUT}"


class Source:
    """A benchmark as it lies on disk: its annotation files and its videos, however deep."""

    def __init__(self, source: pathlib.Path, videos: pathlib.Path | None = None):
        self.folder = pathlib.Path(source)
        self.videos = pathlib.Path(videos or source)
        self._annotations = files_below(self.folder)
        self._by_name, self._by_stem = (collections.defaultdict(list) for _ in range(2))
        # The very file that is named, or one that only its ending tells apart.
        for path in videos_below(self.videos):
            if stem(path.name) != path.name:  # and not a folder of pictures
                self._by_name[path.name].append(path)
            self._by_stem[stem(path.name)].append(path)

    def annotation(self, *names: str) -> pathlib.Path:
        """The one file of one of these names.

        Raises:
          UserError: there is none, or more than one.
        """
        found = [path for path in self._annotations if path.name in names]
        if not found:
            links = links_out(self.folder)
            linked = f"; {outside(self.folder, links[0])}" if links else ": put it there"
            raise UserError(f"{self.folder}: no {' or '.join(names)} in it or below{linked}")
        return self._only(found, self.folder)

    def has(self, name: str) -> bool:
        """Whether there is an annotation file of this name."""
        return any(path.name == name for path in self._annotations)

    def video(self, video_id: str, alias: str = "") -> pathlib.Path:
        """The file of an id, which may name its ending or not; where it should be, if nowhere.

        Args:
          video_id: as the annotations name it.
          alias: what else the file may be called, where none is called that.

        Raises:
          UserError: there is more than one.
        """
        # What a table says of an id is what it is.
        told = file_of(video_id, with_ending=False)
        if "/" in told:
            return self._only([self.videos / told], self.videos)
        wanted = told or video_id
        for name in (told,) if told else filter(None, (video_id, alias)):
            found = self._by_name.get(name) or self._by_stem.get(stem(name))
            if found:
                return self._only(found, self.videos)
        return self.videos / (wanted if stem(wanted) != wanted else f"{wanted}.mp4")

    def _only(self, found: list[pathlib.Path], folder: pathlib.Path) -> pathlib.Path:
        if len(found) > 1:
            raise UserError(f"both {found[0]} and {found[1]} are there: keep one")
        if told := outside(folder, found[0]):
            raise UserError(told)
        return found[0]
