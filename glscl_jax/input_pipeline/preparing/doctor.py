"""The data doctor: what is wrong with a data set, found before hours of decoding.

Every file is opened and its first frame decoded; a file that breaks off later is found when it is
prepared. Files of the same size are compared by their SHA-256, the others cannot be the same.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import pathlib
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures

from glscl_jax.input_pipeline.annotations import BENCHMARKS
from glscl_jax.input_pipeline.annotations.benchmark import Count
from glscl_jax.input_pipeline.annotations.clip import Clip
from glscl_jax.input_pipeline.annotations.source import files_below, links_out, videos_below
from glscl_jax.input_pipeline.decoding import video
from glscl_jax.input_pipeline.preparing.checkup import Checkup, Failure, Row
from glscl_jax.input_pipeline.preparing.near_matches import Near, near_matches
from glscl_jax.runtime import progress

# Times longer or shorter than the median that a video has to be to be named.
OUTLIER = 10.0
_PROBE_SIZE = 8  # pixels


@dataclasses.dataclass(frozen=True)
class _Probe:
    """What opening a file told: seconds, if its header has them; what is wrong, or ""."""

    seconds: float | None
    reason: str


def examine(
    clips: Sequence[Clip],
    folder: pathlib.Path,
    dataset: str,
    *,
    workers: int,
    pictures_rate: float | None = None,
) -> Checkup:
    """Looks at every video of a data set, with progress; changes nothing.

    Args:
      clips: what the annotations say.
      folder: where the videos are; files in it that no clip names are counted.
      dataset: the annotations' format, whose published counts are compared.
      workers: threads that open files.
      pictures_rate: pictures a second of videos that are folders of pictures.

    Raises:
      UserError: a folder below cannot be read.
    """
    paths = sorted({clip.video for clip in clips})
    with futures.ThreadPoolExecutor(workers) as pool:
        probe = functools.partial(_probe, pictures_rate=pictures_rate)
        probes = dict(_each(pool, probe, paths, "checking"))
        late = tuple(filter(None, pool.map(functools.partial(_late, probes, pictures_rate), clips)))
        strays = tuple(path for path in videos_below(folder) if path not in probes)
        duplicates = _duplicates(pool, [p for p in paths if probes[p].reason != video.NO_SUCH_FILE])
    first = {clip.video: clip for clip in reversed(clips)}
    missing = {path for path in paths if probes[path].reason == video.NO_SUCH_FILE}
    broken = {path for path in paths if probes[path].reason} - missing
    lengths = {p: probe.seconds for p, probe in probes.items() if probe.seconds}
    median = statistics.median(lengths.values()) if lengths else None
    # A header is no proof; the packets of so few can be counted.
    lengths |= {
        path: _measured(path, lengths[path], pictures_rate) for path in _outliers(lengths, median)
    }
    published = BENCHMARKS.get(dataset)
    files = {*files_below(folder), *strays} if missing else ()
    near = near_matches(missing, files, probes.keys(), folder)
    failures = [Failure(c, probes[c.video].reason) for c in clips if probes[c.video].reason]
    return Checkup(
        dataset=dataset,
        folder=folder,
        clips=dict(collections.Counter(clip.split for clip in clips)),
        rows=tuple(_rows(clips, published.counts if published else (), missing, broken)),
        source=published.source if published else "",
        failures=(*(_hinted(failure, near) for failure in failures), *late),
        missing=tuple(clip.clip_id for clip in clips if clip.video in missing),
        unreadable=tuple((path, probes[path].reason) for path in sorted(broken)),
        late=late,
        near={c.clip_id: near[c.video].description for c in clips if c.video in near},
        links=tuple(links_out(folder)),
        strays=strays,
        unlike=len({*strays} - {folder / one.path for one in near.values()}),
        duplicates=tuple(tuple(first[path] for path in group) for group in duplicates),
        outliers=tuple((path, lengths[path]) for path in _outliers(lengths, median)),
        median=median,
    )


def _hinted(failure: Failure, near: Mapping[pathlib.Path, Near]) -> Failure:
    """With the file that may be meant."""
    if failure.clip.video not in near:
        return failure
    reason = f"{failure.reason}: {near[failure.clip.video].description}"
    return dataclasses.replace(failure, reason=reason)


def _rows(clips, counts: Sequence[Count], missing: set, broken: set) -> Iterator[Row]:
    """A row a published split, and one for every split that is in none."""
    by_split = collections.defaultdict(list)
    for clip in clips:
        by_split[clip.split].append(clip)
    groups = [(tuple(s for s in count.splits if s in by_split), count) for count in counts]
    told = {split for splits, _ in groups for split in splits}
    groups += [((split,), None) for split in by_split if split not in told]
    for splits, count in groups:
        members = [clip for split in splits for clip in by_split[split]]
        videos = {clip.video for clip in members}
        yield Row(
            splits=splits or count.splits[:1],
            videos=len(videos),
            present=len(videos - missing),
            readable=len(videos - missing - broken),
            captions=sum(len(clip.captions) for clip in members),
            published=count,
        )


def _each(pool, look: Callable, paths: Sequence[pathlib.Path], label: str) -> Iterator[tuple]:
    """Yields (path, what looking at it gave), in order, with progress."""
    found = progress.track(pool.map(look, paths), label, len(paths), unit="files")
    return zip(paths, found, strict=True)


def _probe(path: pathlib.Path, pictures_rate: float | None) -> _Probe:
    try:
        video.read_frames(path, size=_PROBE_SIZE, end=0.0, pictures_rate=pictures_rate)
        return _Probe(video.duration(path, pictures_rate), "")
    except video.VideoError as error:
        return _Probe(None, str(error))


def _late(
    probes: Mapping[pathlib.Path, _Probe], pictures_rate: float | None, clip: Clip
) -> Failure | None:
    """What preparing it would say of a clip that begins where its video has ended."""
    probe = probes[clip.video]
    if probe.reason or clip.start is None:
        return None
    # A header is no proof: its word is enough where the clip lies within.
    if probe.seconds is not None and clip.start < probe.seconds:
        return None
    window = {"start": clip.start, "end": clip.start}
    try:
        video.read_frames(clip.video, size=_PROBE_SIZE, pictures_rate=pictures_rate, **window)
    except video.VideoError as error:
        return Failure(clip, str(error))
    return None


def _measured(path: pathlib.Path, told: float, pictures_rate: float | None) -> float:
    """Seconds by a file's frames, or what its header told where they cannot be read."""
    try:
        return video.measure(path, pictures_rate)
    except video.VideoError:
        return told


def _outliers(lengths: dict[pathlib.Path, float], median: float | None) -> list[pathlib.Path]:
    return [
        path
        for path, length in lengths.items()
        if not median / OUTLIER <= length <= median * OUTLIER
    ]


def _duplicates(pool, paths: Iterable[pathlib.Path]) -> tuple[tuple[pathlib.Path, ...], ...]:
    """Groups of files with the same bytes."""
    sizes = collections.defaultdict(list)
    for path in paths:
        with contextlib.suppress(OSError):  # is among the unreadable
            if path.is_file() and (size := path.stat().st_size):
                sizes[size].append(path)
    suspects = [path for same in sizes.values() if len(same) > 1 for path in same]
    digests = collections.defaultdict(list)
    for path, digest in _each(pool, _digest, suspects, "comparing"):
        digests[digest or path].append(path)
    return tuple(tuple(same) for same in digests.values() if len(same) > 1)


def _digest(path: pathlib.Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # is among the unreadable
        return None
