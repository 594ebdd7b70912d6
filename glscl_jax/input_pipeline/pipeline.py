"""Prepared clips to batches of arrays, with tf.data: read at random, decode, sample, pad, mask.

The only state of training input is the number of the step. What a step reads is a pure function
of it and the seed, so a run resumes at any step, at once and exactly, on any number of hosts.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from glscl_jax.errors import Problems, UserError
from glscl_jax.input_pipeline import batch_reader, pair_order
from glscl_jax.input_pipeline.captions import caption_counts
from glscl_jax.input_pipeline.prepared_data import PreparedData
from glscl_jax.input_pipeline.records import Records
from glscl_jax.input_pipeline.tokenizer import Tokenizer
from glscl_jax.models.encoders.images import Preprocessing

# The GPU is JAX's: TensorFlow would take nearly all of its memory at its first operation.
tf.config.set_visible_devices([], "GPU")

# "text_ids" and "text_mask" int32 [B, L], "frames" uint8 [B, V, S, S, 3], "frame_mask" int32
# [B, V], and "clip_index" int32 [B], the clip's place in its split. A plain dict of arrays, which
# JAX maps over and puts on devices as it is.
TrainBatch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class VideoBatch:
    """A host's share of an evaluation batch, always of full size B.

    Attributes:
      frames: uint8 [B, V, S, S, 3]. Rows past the real clips repeat the split's last clip.
      frame_mask: int32 [B, V], 1 on real frames; the others are zero.
      clip_ids: the real clips' ids.
      captions: all captions of each real clip.
    """

    frames: np.ndarray
    frame_mask: np.ndarray
    clip_ids: list[str]
    captions: list[list[str]]

    @property
    def real(self) -> int:
        """The number of real clips, which come first; 0 to B."""
        return len(self.clip_ids)


def steps_per_epoch(data: PreparedData, split: str, batch_size: int) -> int:
    """Full global batches in one pass over a split's pairs; see `pair_order.TrainOrder`.

    Raises:
      UserError: there is no such split, or the batch is larger than it.
    """
    return pair_order.steps_per_epoch(fitting_captions(data, split, batch_size), batch_size)


def fitting_captions(data: PreparedData, split: str, batch_size: int) -> np.ndarray:
    """`caption_counts` of a split whose clips can fill a batch; errors as `steps_per_epoch`'s."""
    return fitting(caption_counts(data, split), split, batch_size)


def fitting(counts: np.ndarray, split: str, batch_size: int) -> np.ndarray:
    """`counts`, captions of each clip of a split, if the clips can fill a batch; else raises."""
    if not len(counts):
        raise UserError(
            f"split {split!r} has no clips to train on: prepare some, or name another split with "
            "--config.data.train_split"
        )
    if not 1 <= batch_size <= len(counts):
        raise UserError(
            f"config.batch_size {batch_size} does not fit: split {split!r} has {len(counts)} clips,"
            f" and a batch has none twice: give --config.batch_size={len(counts)} or less"
        )
    return counts


def check_settings(
    data: PreparedData,
    *,
    frame_rate: float,
    images: Preprocessing,
    flags_of: Mapping[str, str] | None = None,
) -> None:
    """Compares a prepared data set with what a model is to be fed.

    Args:
      data: the data set.
      frame_rate: frames a second.
      images: how the model wants them made.
      flags_of: the flags by which one of them can follow the data instead.

    Raises:
      UserError: it was made with another frame rate or image size, or squares were made otherwise.
    """
    wanted = {
        "frame_rate": frame_rate,
        "image_size": images.size,
        "resize": images.resize,
        "interpolation": images.interpolation,
    }
    problems = Problems()
    for name, value in wanted.items():
        prepared = getattr(data.settings, name)
        if prepared != value:
            flag = (flags_of or {}).get(name)
            other = f"give --{flag}={prepared}" if flag else f"take a config of {name} {prepared}"
            problems.add(
                f"the prepared data set has {name} {prepared}, the config {value}: prepare again"
                f" with --{name} {value} --overwrite, or {other}"
            )
    problems.raise_all()


def train_batches(
    data: PreparedData,
    split: str,
    tokenizer: Tokenizer,
    *,
    batch_size: int,
    num_frames: int,
    num_words: int,
    seed: int,
    first_step: int,
    num_steps: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[TrainBatch]:
    """This host's shares of the global batches of steps `first_step` to `num_steps` - 1.

    The hosts' shares, one after the other, are the batch that a single host reads. A batch never
    holds a clip twice; it may hold two clips cut from one video.

    Args:
      data: what to read.
      split: which part of it.
      tokenizer: for the captions.
      batch_size: pairs in a global batch, each of another clip; a multiple of `process_count`.
      num_frames: V; of more stored frames, V evenly spaced ones are taken.
      num_words: L, the places of a caption.
      seed: of the order of the pairs, 0 or more.
      first_step: the step to begin or to resume at.
      num_steps: the run's whole length.
      process_index: which host this is.
      process_count: how many hosts there are.

    Returns:
      An iterator with `close`, which stops reading ahead; so does dropping it.

    Raises:
      UserError: at once if the split or a size does not fit; on the way if a record cannot be
        read.
    """
    _check_sizes(batch_size=batch_size, num_frames=num_frames)
    picked = pair_order.TrainOrder(fitting_captions(data, split, batch_size), batch_size, seed)
    tokenizer([], num_words)  # raises here and now if `num_words` is too few
    share = _share(batch_size, process_index, process_count)
    records = data.records(split)

    def pick(step: int) -> tuple[np.ndarray, np.ndarray]:
        whole = picked(step)
        return whole.clips[share], whole.captions[share]

    def example(record, clip, caption):
        fields = _fields(data, record)
        return {
            "caption": fields["captions"][caption],
            "clip_index": tf.cast(clip, tf.int32),
            **_frames(fields, num_frames, data.settings.image_size),
        }

    def tokenize(captions: np.ndarray):
        tokens = tokenizer([caption.decode() for caption in captions], num_words)
        return tokens.ids, tokens.mask

    def with_ids(batch):
        ids, mask = tf.numpy_function(tokenize, [batch.pop("caption")], [tf.int32, tf.int32])
        return {"text_ids": ids, "text_mask": mask, **batch}

    steps = tf.data.Dataset.range(first_step, num_steps)
    own = batch_size // process_count
    part = _part_size(data, own, num_frames)
    parts = _parts(steps, records, pick, example, part).map(_plain(with_ids))
    return batch_reader.Reader(
        records, parts, split, own // part, functools.partial(batch_reader.join, batch_size=own)
    )


def eval_batches(
    data: PreparedData,
    split: str,
    *,
    batch_size: int,
    num_frames: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[VideoBatch]:
    """This host's shares of a split in its own order, every clip once.

    Arguments and errors are those of `train_batches`, but `batch_size` may be larger than the
    split. All hosts get equally many batches.
    """
    _check_sizes(batch_size=batch_size, num_frames=num_frames)
    share = _share(batch_size, process_index, process_count)
    records = data.records(split)

    def pick(step: int) -> tuple[np.ndarray, np.ndarray]:
        places = np.arange(batch_size)[share] + step * batch_size
        return np.minimum(places, len(records) - 1), places

    def example(record, _, place):
        fields = _fields(data, record)
        kept = {"clip_id": fields["clip_id"], "captions": fields["captions"], "place": place}
        return kept | _frames(fields, num_frames, data.settings.image_size)

    def video_batch(parts) -> VideoBatch:
        clip_ids, captions = [], []

        def arrays():
            for part in parts:
                real = int(np.count_nonzero(part.pop("place") < len(records)))
                clip_ids.extend(clip_id.decode() for clip_id in part.pop("clip_id")[:real])
                told = part.pop("captions")[:real]
                captions.extend([one.decode() for one in of_clip] for of_clip in told)
                yield part

        joined = batch_reader.join(arrays(), own)
        return VideoBatch(joined["frames"], joined["frame_mask"], clip_ids, captions)

    steps = tf.data.Dataset.range(-(-len(records) // batch_size))
    own = batch_size // process_count
    part = _part_size(data, own, num_frames)
    parts = _parts(steps, records, pick, example, part)
    return batch_reader.Reader(records, parts, split, own // part, video_batch)


def pick_frames(count: tf.Tensor, num_frames: int) -> tf.Tensor:
    """Which of `count` stored frames to take, int32 [V or fewer].

    All, or if they are more than V, `linspace(0, count - 1, V)` cut to integers: in float64 and
    in NumPy's order of operations, which decides where a product falls just short of an integer.
    """
    if num_frames == 1:
        return tf.zeros([1], tf.int32)
    gap = tf.cast(count - 1, tf.float64) / (num_frames - 1)
    inner = tf.cast(tf.range(num_frames - 1, dtype=tf.float64) * gap, tf.int32)
    spaced = tf.concat([inner, [count - 1]], 0)
    return tf.cond(count > num_frames, lambda: spaced, lambda: tf.range(count))


def _fields(data: PreparedData, record: tf.Tensor) -> dict[str, tf.Tensor]:
    """A record's features, JPEG not yet decoded."""
    fields = data.features.deserialize_example(record)
    checks = []
    for name in ("frames", "captions"):
        told = tf.strings.join(["clip ", fields["clip_id"], f" has no {name}"])
        checks.append(tf.debugging.Assert(tf.size(fields[name]) > 0, [told]))
    # Else what stumbles over an empty list may be the first to speak.
    with tf.control_dependencies(checks):
        return {name: tf.identity(value) for name, value in fields.items()}


def _frames(fields, num_frames: int, size: int) -> dict[str, tf.Tensor]:
    """A record's frames uint8 [V, S, S, 3] and their mask int32 [V]."""
    taken = tf.gather(fields["frames"], pick_frames(tf.size(fields["frames"]), num_frames))
    shape = tf.TensorSpec([None, None, 3], tf.uint8)
    frames = tf.map_fn(_plain(_decode), taken, fn_output_signature=shape)
    padding = num_frames - tf.size(taken)
    frames = tf.pad(frames, [[0, padding], [0, 0], [0, 0], [0, 0]])
    return {
        "frames": tf.ensure_shape(frames, [num_frames, size, size, 3]),
        "frame_mask": tf.sequence_mask(tf.size(taken), num_frames, tf.int32),
    }


def _plain(function: Callable) -> Callable:
    """`function` as tf.data may take it: not rewritten, as nothing in it branches on a tensor."""
    return tf.autograph.experimental.do_not_convert(function)


def _decode(jpeg: tf.Tensor) -> tf.Tensor:
    # Equal to Pillow's decoder bit for bit. TensorFlow's default, the fast transform, is off by
    # up to 7 of 255 and hardly faster.
    return tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name} {size}: take 1 or more")


def _share(batch_size: int, process_index: int, process_count: int) -> slice:
    """Which clips of a global batch this host reads."""
    if batch_size % process_count:
        raise UserError(
            f"batch_size {batch_size} does not divide among {process_count} hosts;"
            f" take a multiple of {process_count}"
        )
    each = batch_size // process_count
    return slice(process_index * each, (process_index + 1) * each)


def _part_size(data: PreparedData, own: int, num_frames: int) -> int:
    """Clips that tf.data puts together, of a host's `own` in a batch."""
    return batch_reader.part_size(own, num_frames * data.settings.image_size**2 * 3)


def _parts(
    steps: tf.data.Dataset, records: Records, pick: Callable, example: Callable, size: int
) -> tf.data.Dataset:
    """The steps' records, `size` at a time: `example(record, clip, number)` of each, in batches.

    `pick(step)` says which: clips and a number for each, int64 [B].
    """

    def fetch(clips):
        # As objects: NumPy's own bytes would lose the zeros at the end of a record.
        return np.array(records.read(clips.tolist()), dtype=object)

    def pick_step(step):
        picked = tf.numpy_function(lambda step: pick(int(step)), [step], [tf.int64, tf.int64])
        return tuple(tf.ensure_shape(column, [None]) for column in picked)

    def read(clips, numbers):
        found = tf.ensure_shape(tf.numpy_function(fetch, [clips], tf.string), [size])
        return found, clips, numbers

    places = steps.map(_plain(pick_step)).unbatch().batch(size, drop_remainder=True)
    examples = places.map(_plain(read)).prefetch(1).unbatch()
    return examples.map(_plain(example), num_parallel_calls=batch_reader.cores()).ragged_batch(size)
