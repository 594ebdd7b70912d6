"""An epoch is every pair of a clip and a caption once, and no batch holds a clip twice."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glscl_jax.input_pipeline.pair_order import TrainOrder, steps_per_epoch

# Numbers of captions that make trouble: one clip with most of them, all with as many as there are
# steps, many with one.
COUNTS = st.one_of(
    st.lists(st.integers(1, 6), min_size=1, max_size=40),
    st.lists(st.sampled_from([1, 1, 1, 50]), min_size=1, max_size=30),
    st.builds(lambda count, clips: [count] * clips, st.integers(1, 30), st.integers(1, 12)),
    st.builds(lambda many, ones: [many] + [1] * ones, st.integers(1, 200), st.integers(0, 40)),
)
SEEDS, EPOCHS = st.integers(0, 2**63), st.integers(0, 2**40)


@st.composite
def sizes(draw):
    """Numbers of captions, and a batch that their clips can fill."""
    captions = np.array(draw(COUNTS))
    return captions, draw(st.integers(1, len(captions)))


def epoch_of(order: TrainOrder, epoch: int = 0):
    """The clips and captions of an epoch's batches, int64 [U,B] each."""
    first = epoch * order.steps_per_epoch
    steps = [order(step) for step in range(first, first + order.steps_per_epoch)]
    return np.stack([each.clips for each in steps]), np.stack([each.captions for each in steps])


def check_epoch(captions, batch_size, clips, shown):
    """Returns how many pairs of each clip are left out."""
    steps = len(clips)
    assert clips.shape == shown.shape == (steps, batch_size)
    assert all(len(set(batch)) == batch_size for batch in clips.tolist())
    assert ((shown >= 0) & (shown < captions[clips])).all()
    pairs = set(zip(clips.ravel().tolist(), shown.ravel().tolist(), strict=True))
    assert len(pairs) == steps * batch_size
    return captions - np.bincount(clips.ravel(), minlength=len(captions))


@given(sizes(), SEEDS, EPOCHS)
@settings(deadline=None, max_examples=300)
def test_an_epoch_shows_every_pair_once(sized, seed, epoch):
    captions, batch_size = sized
    order = TrainOrder(captions, batch_size, seed)
    left_out = check_epoch(captions, batch_size, *epoch_of(order, epoch))
    # All pairs fit if no clip has more of them than there are steps: then less than a batch is left
    # out, and of no clip two.
    if captions.max() <= captions.sum() // batch_size:
        assert order.steps_per_epoch == captions.sum() // batch_size
        assert left_out.sum() < batch_size
        assert left_out.max(initial=0) <= 1
    # Else that clip shows as many as there are steps, or one less.
    beyond = np.maximum(captions - order.steps_per_epoch, 0)
    assert ((left_out - beyond >= 0) & (left_out - beyond <= 1)).all()
    assert (left_out - beyond).sum() < batch_size


def most_steps(captions, batch_size: int) -> int:
    """Slowly: filling batches from the clips that have most left wastes none."""
    left, steps = sorted(captions, reverse=True), 0
    while sum(count > 0 for count in left) >= batch_size:
        left = sorted([count - 1 for count in left[:batch_size]] + left[batch_size:], reverse=True)
        steps += 1
    return steps


@given(sizes())
@settings(deadline=None, max_examples=200)
def test_no_more_batches_could_be_filled(sized):
    captions, batch_size = sized
    assert steps_per_epoch(captions, batch_size) == most_steps(captions.tolist(), batch_size)


@given(sizes(), SEEDS, EPOCHS)
@settings(deadline=None, max_examples=50)
def test_a_step_is_the_same_whatever_was_asked_before(sized, seed, epoch):
    captions, batch_size = sized
    first = TrainOrder(captions, batch_size, seed)
    clips, shown = epoch_of(first, epoch)
    start = epoch * first.steps_per_epoch
    for step in reversed(range(len(clips))):
        again = TrainOrder(captions, batch_size, seed)(start + step)
        np.testing.assert_array_equal(again.clips, clips[step])
        np.testing.assert_array_equal(again.captions, shown[step])


def test_the_order_stays_what_it_was():
    # A run that resumes under another version of NumPy or of this library must find these.
    order = TrainOrder(np.ones(9, int), 4, 42)
    assert order(0).clips.tolist() == [4, 5, 3, 0]
    assert order(3).clips.tolist() == [5, 1, 4, 8]
    order = TrainOrder(np.array([1, 3, 2, 5, 4, 1, 3]), 4, 42)
    clips, shown = epoch_of(order)
    assert clips.tolist() == [[6, 1, 3, 4], [2, 3, 5, 6], [4, 6, 1, 3], [0, 3, 1, 4]]
    assert shown.tolist() == [[0, 1, 1, 0], [0, 4, 0, 2], [2, 1, 0, 0], [0, 2, 2, 3]]


# Videos of the size that the benchmarks have: 9,000 of 20 captions; 1,200 of 18 to 81.
@pytest.mark.parametrize("name", ["msrvtt", "msvd"])
def test_benchmarks_of_their_size(name):
    captions = np.full(9000, 20)
    if name == "msvd":
        captions = np.random.default_rng(0).integers(18, 64, 1200)
        captions[0] = 81
        captions[1:200] += (48_774 - captions.sum()) // 199
        captions[1] += 48_774 - captions.sum()
    order = TrainOrder(captions, 128, 42)
    assert order.steps_per_epoch == {"msrvtt": 1406, "msvd": 381}[name]
    clips, shown = epoch_of(order)
    left_out = check_epoch(captions, 128, clips, shown)
    assert left_out.sum() == {"msrvtt": 32, "msvd": 6}[name]
    assert left_out.max() == 1
    # A clip's captions lie over the whole epoch: half of them, but for one, in its first half.
    early = np.bincount(clips[: len(clips) // 2].ravel(), minlength=len(captions))
    assert abs(early - captions / 2).max() < 2
    # And next to other clips in every batch.
    neighbours = collections.Counter()
    for batch in clips[(clips == 5).any(axis=1)]:
        neighbours.update(batch.tolist())
    assert max(neighbours[clip] for clip in range(len(captions)) if clip != 5) <= captions[5] / 2


def test_epochs_and_seeds_have_orders_of_their_own():
    def of_epoch(captions, seed, epoch):
        clips, shown = epoch_of(TrainOrder(captions, 25, seed), epoch)
        return tuple(clips.ravel()), tuple(shown.ravel())

    for captions in (np.ones(50, int), np.arange(1, 51)):
        orders = {of_epoch(captions, seed, epoch) for seed in range(5) for epoch in range(5)}
        assert len(orders) == 25


@pytest.mark.parametrize("captions", [[1] * 8, [3] * 8])
def test_every_clip_is_as_likely_in_every_place(captions):
    order = TrainOrder(np.array(captions), 4, 1)
    clips, first, shown = (collections.Counter() for _ in range(3))
    for epoch in range(2000):
        picked = order(epoch * order.steps_per_epoch)
        clips.update(picked.clips.tolist())
        first[int(picked.clips[0])] += 1
        shown[int(picked.captions[0])] += 1
    # 1,000 and 250 are expected of each; 5 standard deviations are 112 and 74.
    assert all(abs(clips[clip] - 1000) < 112 for clip in range(8))
    assert all(abs(first[clip] - 250) < 74 for clip in range(8))
    each = 2000 / captions[0]
    assert all(abs(shown[caption] - each) < 110 for caption in range(captions[0]))


def test_every_pair_is_as_likely_to_be_left_out():
    captions, epochs = np.array([1, 2, 3, 4, 3, 4, 2, 3]), 1500
    order = TrainOrder(captions, 4, 3)
    shown = np.zeros((len(captions), captions.max()), int)
    for epoch in range(epochs):
        clips, numbers = epoch_of(order, epoch)
        shown[clips.ravel(), numbers.ravel()] += 1
    left_out = (epochs - shown)[np.arange(captions.max()) < captions[:, None]]
    # 2 of 22 pairs each epoch: 136 of each are expected; 5 standard deviations are 56.
    assert left_out.sum() == 2 * epochs
    assert abs(left_out - 2 * epochs / 22).max() < 56
