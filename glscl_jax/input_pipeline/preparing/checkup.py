"""What the data doctor found, as a table, as what keeps `prepare` from going on, as a note."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from glscl_jax.input_pipeline.annotations.benchmark import Count
from glscl_jax.input_pipeline.annotations.clip import Clip
from glscl_jax.input_pipeline.annotations.source import WAY_OUT

_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Failure:
    """A clip that could not be read, or not to its end, and why."""

    clip: Clip
    reason: str

    @property
    def description(self) -> str:
        """It as an example in a line about many."""
        return f"first {self.clip.video}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class Row:
    """One published split, or one of the data set's own.

    Attributes:
      splits: the splits it is divided into here.
      videos: in the annotations.
      present: those of them that have a file.
      readable: those of them whose first frame can be decoded.
      captions: in the annotations.
      published: what there should be; None for one's own videos.
    """

    splits: tuple[str, ...]
    videos: int
    present: int
    readable: int
    captions: int
    published: Count | None

    @property
    def name(self) -> str:
        return " + ".join(self.splits)

    def mismatches(self) -> list[str]:
        """What differs from the published split, each in a few words."""
        if self.published is None:
            return []
        told = []
        for what in ("videos", "captions"):
            count, wanted = getattr(self, what), getattr(self.published, what)
            if not wanted[0] <= count <= wanted[1]:
                told.append(f"{self.name} has {count:,} {what}, published {_range(wanted)}")
        if self.readable < self.videos:
            told.append(f"{self.readable:,} of {self.videos:,} videos of {self.name} can be read")
        return told


@dataclasses.dataclass(frozen=True)
class Checkup:
    """A data set's state before anything is decoded.

    Attributes:
      dataset: the annotations' format.
      folder: where the videos are.
      clips: split -> clips in the annotations.
      rows: counts, published split by published split.
      source: where the published counts are from; "" if there are none.
      failures: the clips without a file, those whose file cannot be read, and those of `late`.
      missing: ids without files.
      unreadable: each file whose first frame cannot be decoded, and why.
      late: clips that begin where their video has ended.
      near: of ids without files those that may mean a file of another name, which, as a question.
      links: links that lead out of the folder and are not followed.
      strays: files without ids.
      unlike: how many of `strays` none of `near` means.
      duplicates: groups of clips whose files have the same bytes, a clip a file.
      outliers: files ten times longer or shorter than the middle one, in seconds.
      median: that one's duration in seconds; None if no file says its own.
    """

    dataset: str
    folder: pathlib.Path
    clips: dict[str, int]
    rows: tuple[Row, ...]
    source: str
    failures: tuple[Failure, ...]
    missing: tuple[str, ...]
    unreadable: tuple[tuple[pathlib.Path, str], ...]
    late: tuple[Failure, ...]
    near: Mapping[str, str]
    links: tuple[pathlib.Path, ...]
    strays: tuple[pathlib.Path, ...]
    unlike: int
    duplicates: tuple[tuple[Clip, ...], ...]
    outliers: tuple[tuple[pathlib.Path, float], ...]
    median: float | None

    @property
    def mismatches(self) -> list[str]:
        """What differs from the published data set; nothing where none is published."""
        return [told for row in self.rows for told in row.mismatches()]

    @property
    def remarkable(self) -> bool:
        """Whether there is anything to say but the counts."""
        lists = self.failures, self.links, self.strays, self.duplicates, self.outliers
        return bool(any(lists) or self.mismatches)

    def partial(self, made: dict[str, int]) -> str:
        """How a data set of so many clips a split falls short, as "8,392 of 8,395 train"; else "".

        What there should be is what is annotated, and where that is beyond the published range,
        the nearest number in it.
        """
        expected, notes = dict(self.clips), []
        for row in self.rows:
            if row.published is not None:
                split = row.splits[0]
                expected[split] += _into(row.published.videos, row.videos) - row.videos
                captions = _into(row.published.captions, row.captions)
                # Fewer captions are no news where videos are missing with theirs.
                if captions != row.captions and expected[split] == self.clips[split]:
                    notes.append(f"{row.captions:,} of {captions:,} captions of {row.name}")
        short = [
            f"{made.get(split, 0):,} of {count:,} {split}"
            for split, count in expected.items()
            if made.get(split, 0) != count
        ]
        return ", ".join(short + notes)

    def table(self) -> str:
        """All of it, to be read on a terminal."""
        lines = _columns(self.rows)
        if self.source:
            lines.append(f"published: {self.source}")
        lines.append("")
        lines += finding("ids without files", self.missing, self._missing)
        if self.near and len(self.missing) > 1:
            lines.append(f"  {len(self.near):,} of them may mean a file of another name")
        lines += finding("unreadable files", self.unreadable, self._reason)
        if self.late:
            lines += finding("clips beyond", self.late, self._window)
        lines += finding("files without ids", self.strays, self._of)
        lines += self._table_wanted()
        if self.links:
            lines += finding("links leading out", self.links, self._link)
        lines += finding("duplicate videos", self.duplicates, self._group)
        lines += finding("duration outliers", self.outliers, self._outlier)
        return "\n".join(lines)

    def explain(self, failures: Iterable[Failure]) -> tuple[Failure, ...]:
        """Failures of a later look, with the reasons that were found here where they say more."""
        known = {failure.clip.clip_id: failure for failure in self.failures}

        def better(failure: Failure) -> Failure:
            said = known.get(failure.clip.clip_id, failure)
            return said if said.reason.startswith(failure.reason) else failure

        return tuple(map(better, failures))

    def _table_wanted(self) -> list[str]:
        """The way out where no name says which file an id is, as of files called by a hash."""
        ids = len(set(self.missing) - self.near.keys())
        if not ids or not self.unlike:
            return []
        told = f"{_counted(ids, 'id')} and {_counted(self.unlike, 'file')} that no name pairs"
        return [f"  {told}: if they are the same videos, a table says which, --names FILE"]

    def _missing(self, clip_id: str) -> str:
        return ": ".join(filter(None, (clip_id, self.near.get(clip_id))))

    def _link(self, link: pathlib.Path) -> str:
        return f"{self._of(link)} leads to {os.path.realpath(link)}: {WAY_OUT}"

    def _of(self, path: pathlib.Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _reason(self, unreadable: tuple[pathlib.Path, str]) -> str:
        return f"{self._of(unreadable[0])}: {unreadable[1]}"

    def _window(self, late: Failure) -> str:
        return f"{late.clip.clip_id}: {late.reason}"

    def _group(self, clips: Sequence[Clip]) -> str:
        return " = ".join(f"{self._of(clip.video)} ({clip.split})" for clip in clips)

    def _outlier(self, outlier: tuple[pathlib.Path, float]) -> str:
        return f"{self._of(outlier[0])}: {outlier[1]:.1f} s, where {self.median:.1f} s is usual"


def _columns(rows: Iterable[Row]) -> list[str]:
    """The counts under their headings, numbers to the right."""
    cells = [("split", "videos", "with a file", "readable", "published", "captions", "published")]
    for row in rows:
        numbers = [row.videos, row.present, row.readable, None, row.captions, None]
        told = ["" if number is None else f"{number:,}" for number in numbers]
        if row.published is not None:
            told[3], told[5] = _range(row.published.videos), _range(row.published.captions)
        cells.append((row.name, *told))
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in cells
    ]


def finding(name: str, found: Sequence, told: Callable[..., str]) -> list[str]:
    """Lines on what was found: how much, and the first of it."""
    lines = [f"{name + ':':<19}{len(found) or 'none'}"]
    lines += [f"  {told(one)}" for one in found[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append(f"  and {len(found) - _SHOWN:,} more")
    return lines


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _range(pair: tuple[int, int]) -> str:
    low, high = pair
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _into(pair: tuple[int, int], number: int) -> int:
    return min(max(number, pair[0]), pair[1])
