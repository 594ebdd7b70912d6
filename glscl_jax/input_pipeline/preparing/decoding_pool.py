"""Clips decoded on a pool of threads, in their order, with progress."""

import collections
import contextlib
from collections.abc import Iterator, Sequence
from concurrent import futures

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import Clip
from glscl_jax.input_pipeline.preparing.checkup import Failure
from glscl_jax.input_pipeline.preparing.decode_cache import DecodeCache, Decoded, Lost
from glscl_jax.runtime import progress

# Decoded clips wait in memory for those before them; so many a thread keep all threads busy.
_AHEAD_PER_WORKER = 4
# Larger ones wait on disk.
_LARGE_BYTES = 32 << 20


def of_splits(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    """Each split's clips; splits and clips in the order that they come in."""
    members_of = collections.defaultdict(list)
    for clip in clips:
        members_of[clip.split].append(clip)
    return dict(members_of)


@contextlib.contextmanager
def by_split(
    clips: Sequence[Clip], cache: DecodeCache, workers: int
) -> Iterator[dict[str, Iterator]]:
    """Each split's (clip id, example) pairs, to be read split after split.

    Clips that are decoded already are read from where they are kept.

    Args:
      clips: what to decode.
      cache: how, and where the frames are kept.
      workers: threads.

    Raises:
      UserError: while a split is read, if none of its clips can be.
    """
    members_of = of_splits(clips)
    ordered = [clip for members in members_of.values() for clip in members]
    there = begin(cache, ordered)
    with futures.ThreadPoolExecutor(workers) as pool:
        # One stream for all splits, so that no thread idles where one ends and the next begins.
        shown = _shown(_decoded(ordered, cache, pool, workers), there, len(ordered))
        try:
            yield {split: _readable(members, shown) for split, members in members_of.items()}
            next(shown, None)  # progress ends past the last one
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def begin(cache: DecodeCache, clips: Sequence[Clip]) -> frozenset[str]:
    """Makes a cache ready for clips; says so, if some are in it; returns the ids of those."""
    there = cache.start(clips)
    if there:
        told = f"{len(there):,} of {len(clips):,} clips are decoded already"
        print(f"going on with what a run before left: {told}", flush=True)
    return there


def check_some_are_readable(clips: Sequence[Clip], lost: Lost) -> None:
    """Raises `UserError` if all clips of a split failed."""
    failed = {failure.clip.clip_id: failure for failure in lost.failed}
    for split, members in of_splits(clips).items():
        if all(clip.clip_id in failed for clip in members):
            raise UserError(
                f"none of the {len(members)} clips of split {split!r} can be read"
                f" ({failed[members[0].clip_id].description})"
            )


def _shown(stream: Iterator, there: frozenset[str], total: int) -> Iterator:
    """The stream; progress counts what is decoded, for its rate, not what is read again."""
    fresh = total - len(there)
    ticks = progress.track(range(fresh), "preparing", fresh)
    next(ticks, None)
    for clip, decoded in stream:
        yield clip, decoded
        if clip.clip_id not in there:
            next(ticks, None)


def _readable(members: Sequence[Clip], shown: Iterator) -> Iterator:
    """The next of `shown`, as many as `members`, less those that failed."""
    failed = []
    for _ in members:
        clip, decoded = next(shown)
        if decoded.example is None:
            failed.append(Failure(clip, decoded.fault))
        else:
            yield clip.clip_id, decoded.example
    check_some_are_readable(members, Lost(tuple(failed)))


def _decoded(
    clips, cache: DecodeCache, pool: futures.Executor, workers: int
) -> Iterator[tuple[Clip, Decoded]]:
    """Yields (clip, what came of it) in the order of the clips."""
    waiting = collections.deque()
    for clip in clips:
        waiting.append((clip, pool.submit(_decode, cache, clip)))
        if len(waiting) > workers * _AHEAD_PER_WORKER:
            done, future = waiting.popleft()
            yield done, future.result() or cache.decode(done)
    for done, future in waiting:
        yield done, future.result() or cache.decode(done)


def _decode(cache: DecodeCache, clip: Clip) -> Decoded | None:
    """What came of a clip; None if that is large, and better read again in its turn."""
    decoded = cache.decode(clip)
    frames = decoded.example["frames"] if decoded.example else []
    return None if sum(map(len, frames)) > _LARGE_BYTES else decoded
