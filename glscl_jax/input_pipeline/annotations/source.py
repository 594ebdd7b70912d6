"""The files below a folder: annotations found by their names, videos by their ids."""

import collections
import os
import pathlib

from glscl_jax.errors import UserError

# As FFmpeg's containers are named.
VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".divx", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"}
    | {".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
)


def files_below(folder: pathlib.Path) -> list[pathlib.Path]:
    """All files below a folder, sorted, but for hidden ones; linked folders are not entered.

    Raises:
      UserError: it is no folder, or one in it cannot be read.
    """

    def refuse(error: OSError):
        raise UserError(f"{error.filename}: {error.strerror}: make it readable") from error

    found = []
    for here, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [pathlib.Path(here, name) for name in names if not name.startswith(".")]
    return sorted(found)


def videos_below(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files below a folder whose names end as those of videos do."""
    return [path for path in files_below(folder) if path.suffix.lower() in VIDEO_SUFFIXES]


def stem(name: str) -> str:
    """A file's name or an id, less the endings of a video: ids can hold dots themselves."""
    base, dot, ending = name.rpartition(".")
    return stem(base) if base and dot + ending.lower() in VIDEO_SUFFIXES else name


def leads_out(root: str, path: str) -> bool:
    """Whether a path, links followed, is not below the folder `root`, itself a real path."""
    return not os.path.realpath(path).startswith(root.removesuffix(os.sep) + os.sep)


class Source:
    """A benchmark as it lies on disk: its annotation files and its videos, however deep."""

    def __init__(self, source: pathlib.Path, videos: pathlib.Path | None = None):
        self.folder = pathlib.Path(source)
        self.videos = pathlib.Path(videos or source)
        self._annotations = files_below(self.folder)
        self._by_name, self._by_stem = (collections.defaultdict(list) for _ in range(2))
        # The very file that is named, or one that only its ending tells apart.
        for path in videos_below(self.videos):
            self._by_name[path.name].append(path)
            self._by_stem[stem(path.name)].append(path)

    def annotation(self, *names: str) -> pathlib.Path:
        """The one file of one of these names.

        Raises:
          UserError: there is none, or more than one.
        """
        found = [path for path in self._annotations if path.name in names]
        if not found:
            raise UserError(f"{self.folder}: no {' or '.join(names)} in it or below: put it there")
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
        for name in filter(None, (video_id, alias)):
            found = self._by_name.get(name) or self._by_stem.get(stem(name))
            if found:
                return self._only(found, self.videos)
        return self.videos / (video_id if stem(video_id) != video_id else f"{video_id}.mp4")

    def _only(self, found: list[pathlib.Path], folder: pathlib.Path) -> pathlib.Path:
        if len(found) > 1:
            raise UserError(f"both {found[0]} and {found[1]} are there: keep one")
        if found[0].is_symlink() and leads_out(os.path.realpath(folder), os.fspath(found[0])):
            raise UserError(f"{found[0]} leads outside of {folder}: put the file itself there")
        return found[0]
