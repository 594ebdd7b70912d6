"""The videos of a folder, and how they differ from those that an index has."""

import dataclasses
import fnmatch
import hashlib
import pathlib
from collections.abc import Iterator, Mapping

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import source
from glscl_jax.input_pipeline.annotations.source import videos_below
from glscl_jax.input_pipeline.decoding.picture_folder import is_folder


@dataclasses.dataclass(frozen=True)
class Video:
    """A file as it lies on the disk; or a folder of numbered pictures.

    Attributes:
      name: the path from the library's folder, with "/".
      path: of the file.
      size: bytes.
      modified: nanoseconds since 1970.
    """

    name: str
    path: pathlib.Path
    size: int
    modified: int

    def sha256(self) -> str:
        """Of its bytes; of a folder those of its files, in order."""
        digest = hashlib.sha256()
        for file in _files(self.path):
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Known:
    """A video as an index has it.

    Attributes:
      size, modified, sha256: when it was read.
      windows: how many it is cut into.
      starts: of those that are in the index.
    """

    size: int
    modified: int
    sha256: str
    windows: int
    starts: frozenset[float]


@dataclasses.dataclass(frozen=True)
class Changes:
    """What an index lacks and has too much of.

    Attributes:
      wanted: videos to read; of those that it has a part of (`Known.starts`) the rest.
      stale: names of those whose windows are to be taken out first: changed or gone.
      touched: videos of the same bytes whose time of modification changed.
      unchanged: how many are in it as they are.
    """

    wanted: list[Video]
    stale: list[str]
    touched: list[Video]
    unchanged: int


def videos_of(
    folder: pathlib.Path, follow_links: bool = False, only: str | None = None
) -> list[Video]:
    """All videos below a folder, sorted by name; with a pattern those whose names it matches.

    Raises:
      UserError: it is no folder, cannot be read, or holds none.
    """
    if not folder.is_dir():
        what = "a file: name the folder that it is in" if folder.exists() else "no such folder"
        raise UserError(f"--videos {folder}: {what}")
    with source.links_followed(follow_links):
        found = [path for path in videos_below(folder) if not source.outside(folder, path)]
        links = source.links_out(folder)
    if not found:
        linked = f"; {source.WAY_OUT}" if links else ""
        raise UserError(f"--videos {folder}: no video in it or below{linked}")
    videos = [video for path in found if (video := _look(folder, path))]
    if only is None:
        return videos
    matching = [video for video in videos if fnmatch.fnmatchcase(video.name, only)]
    if not matching:
        raise UserError(f"--only {only!r} matches none of {len(videos):,} videos in {folder}")
    return matching


def changes(found: list[Video], known: Mapping[str, Known]) -> Changes:
    """Compares by size and time; where the time alone differs, by what is in the file."""
    names = {video.name for video in found}
    wanted, touched = [], []
    stale = [name for name in known if name not in names]
    unchanged = 0
    for video in found:
        one = known.get(video.name)
        if one is None:
            wanted.append(video)
            continue
        same = video.size == one.size
        if same and video.modified != one.modified:
            same = video.sha256() == one.sha256
            if same:
                touched.append(video)
        if not same:
            stale.append(video.name)
            wanted.append(video)
        elif len(one.starts) < one.windows:
            wanted.append(video)
        else:
            unchanged += 1
    return Changes(wanted, stale, touched, unchanged)


def _look(folder: pathlib.Path, path: pathlib.Path) -> Video | None:
    """None of one that is gone again."""
    try:
        stats = [file.stat() for file in _files(path)]
    except FileNotFoundError:
        # A link that leads nowhere is a video that cannot be read, which is told.
        if not path.is_symlink():
            return None
        stats = [path.lstat()]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: make it readable") from error
    return Video(
        path.relative_to(folder).as_posix(),
        path,
        sum(stat.st_size for stat in stats),
        max(stat.st_mtime_ns for stat in stats),
    )


def _files(path: pathlib.Path) -> Iterator[pathlib.Path]:
    if not is_folder(path):
        yield path
        return
    yield from sorted(file for file in path.iterdir() if file.is_file())
