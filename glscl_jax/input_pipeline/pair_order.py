"""Which pairs of a clip and a caption a training step reads: a pure function of its number."""

import dataclasses
import functools

import numpy as np

# Streams of random words that a seed has: the first is free, then one for every epoch.
_FIRST_EPOCH_STREAM = 1


@dataclasses.dataclass(frozen=True)
class Picked:
    """The pairs that a step reads.

    Attributes:
      clips: int64 [B], places in the split.
      captions: int64 [B]; which of the clip's.
    """

    clips: np.ndarray
    captions: np.ndarray


class TrainOrder:
    """What the global batch of each step holds.

    Each epoch shows every pair once, in an order of its own, and no clip twice in a batch. The
    last, partial batch is dropped, as in the reference: the pairs that an epoch leaves out are of
    as many clips. The captions of a clip lie evenly over the epoch.

    A clip that has more captions than an epoch has steps cannot show them all: it shows as many as
    there are steps, drawn anew each epoch. Where so many are lost that batches could not be filled,
    an epoch has fewer steps.

    Attributes:
      steps_per_epoch: U, all pairs over B, cut to an integer; or the most that can be filled.
    """

    def __init__(self, captions: np.ndarray, batch_size: int, seed: int):
        """Of a split.

        Args:
          captions: int [N], how many each clip has, 1 or more.
          batch_size: B, pairs in a global batch, N or fewer.
          seed: 0 or more.
        """
        self._captions = np.asarray(captions, np.int64)
        self._batch_size, self._seed = batch_size, seed
        self.steps_per_epoch = steps_per_epoch(self._captions, batch_size)
        # Two: a step behind an epoch's end may be asked for before the last ones in it.
        self._epoch = functools.lru_cache(maxsize=2)(self._laid_out)

    def __call__(self, step: int) -> Picked:
        """The pairs of a step, 0 or more; any is equally fast to ask for."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        whole = self._epoch(epoch)
        rows = slice(batch * self._batch_size, (batch + 1) * self._batch_size)
        return Picked(whole.clips[rows].copy(), whole.captions[rows].copy())

    def _laid_out(self, epoch: int) -> Picked:
        words = _Words(self._seed, _FIRST_EPOCH_STREAM + epoch)
        counts, shown = self._captions, self.steps_per_epoch * self._batch_size
        if counts.max() == 1:  # Any order has no clip twice.
            clips = words.shuffle(len(counts))[:shown]
            return Picked(clips, np.zeros_like(clips))
        clips = _batches(counts, self._batch_size, self.steps_per_epoch, words)
        return Picked(clips, _captions(clips, counts, words))


def steps_per_epoch(captions: np.ndarray, batch_size: int) -> int:
    """U of `TrainOrder`: the most steps that can be filled if a clip is at most once in each."""
    fewest, most = 1, int(captions.sum()) // batch_size
    # What fills U batches fills U - 1, so the largest is found by halves.
    while fewest < most:
        middle = (fewest + most + 1) // 2
        if np.minimum(captions, middle).sum() >= middle * batch_size:
            fewest = middle
        else:
            most = middle - 1
    return fewest


def _batches(counts: np.ndarray, batch_size: int, steps: int, words: "_Words") -> np.ndarray:
    """The clips of an epoch's batches, one batch after the other, int64 [U*B].

    The epoch is halved, and its halves, until each part is one batch. A clip that is to come c
    times in T batches, c <= T, goes into the first T1 of them c T1/T times, rounded up or down: no
    more than T1 times, nor than T - T1 into the rest. What rounds it is the running sum over the
    part's clips, shuffled; the sum is T B at the end, so that the first T1 get T1 B clips exactly.
    The pairs to leave out, fewer than B, are taken beforehand in the same way, and so at most one
    is a clip's.
    """
    clips = words.shuffle(len(counts))
    counts = np.minimum(counts[clips], steps)
    total = counts.sum()
    counts = counts - _portion(counts, total - steps * batch_size, total, 0, words)
    first, size = np.zeros_like(counts), np.full_like(counts, steps)
    while size.max() > 1:
        order = words.shuffle_within(first)
        clips, counts, first, size = (column[order] for column in (clips, counts, first, size))
        half = size // 2
        left = _portion(counts, half, size, first * batch_size, words)
        clips = np.concatenate([clips, clips])
        counts = np.concatenate([left, counts - left])
        first = np.concatenate([first, first + half])
        size = np.concatenate([half, size - half])
        some = counts > 0
        clips, counts, first, size = clips[some], counts[some], first[some], size[some]
    return clips[words.shuffle_within(first)]


def _portion(counts: np.ndarray, part, whole, before, words: "_Words") -> np.ndarray:
    """`counts * part / whole`, each rounded up or down, up as often as its fraction says.

    The running sum of `counts`, `before` subtracted, is a multiple of `whole / part` where a part
    ends, so that what the part's clips get sums up to exactly that.
    """
    # A random number below `whole`: without it the first clips would be rounded down.
    begin = (int(words(1)[0]) >> 33) * whole >> 31
    end = np.cumsum(counts) - before
    return (begin + end * part) // whole - (begin + (end - counts) * part) // whole


def _captions(clips: np.ndarray, counts: np.ndarray, words: "_Words") -> np.ndarray:
    """Which caption a clip shows at each of its places, int64 like `clips`: at no two the same."""
    owner = np.repeat(np.arange(len(counts)), counts)
    begin = np.cumsum(counts) - counts
    shuffled = words.shuffle_within(owner) - begin[owner]
    by_clip = np.argsort(clips, kind="stable")
    times = np.bincount(clips, minlength=len(counts))
    turn = np.empty_like(clips)
    turn[by_clip] = np.arange(len(clips)) - np.repeat(np.cumsum(times) - times, times)
    return shuffled[begin[clips] + turn]


class _Words:
    """Random words, uint64, of one stream of a seed.

    NumPy keeps the words of a bit generator from version to version, but not what its `permutation`
    makes of them, and a resumed run may have another version. All sorting is stable, so that equal
    words, too, have one order on all processors.
    """

    def __init__(self, seed: int, stream: int):
        self._draw = np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw

    def __call__(self, count: int) -> np.ndarray:
        return self._draw(count)

    def shuffle(self, count: int) -> np.ndarray:
        """0 to `count` - 1, int64."""
        return np.argsort(self(count), kind="stable")

    def shuffle_within(self, groups: np.ndarray) -> np.ndarray:
        """0 to len(groups) - 1, int64, so that the groups (numbers below 2^31) are in order."""
        within = self(len(groups)) >> np.uint64(31)
        return np.argsort(groups.astype(np.uint64) << np.uint64(33) | within, kind="stable")
