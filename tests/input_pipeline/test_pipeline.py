"""Batches hold what the records hold, in an order that only the seed and the step decide."""

import dataclasses
import io
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import batch_reader, pipeline, rendered
from glscl_jax.input_pipeline.annotations import Clip
from glscl_jax.input_pipeline.captions import caption_counts, captions
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from glscl_jax.input_pipeline.decoding import video
from glscl_jax.input_pipeline.pair_order import TrainOrder
from glscl_jax.input_pipeline.prepared_data import Settings, open_data
from glscl_jax.input_pipeline.preparing import builder
from glscl_jax.models.encoders.images import Preprocessing
from tests.server import REPO

SIZE, NUM_FRAMES, NUM_WORDS, BATCH = 24, 4, 12, 6
COUNTS = {"train": 20, "val": 7}
SETTINGS = Settings(
    dataset="folder", frame_rate=1.0, image_size=SIZE, jpeg_quality=90, annotations="none"
)


def write(directory, split_examples, settings=SETTINGS):
    with builder.written(split_examples, directory, settings):
        pass
    return open_data(directory)


def clip_and_frames(split, number):
    """A clip of 1 to 9 coloured frames with 1 to 4 captions."""
    rng = np.random.default_rng([number, len(split)])
    count = 1 + number % 9
    captions = [f"the {split} clip {number} said {way}" for way in range(1 + number % 4)]
    coarse = rng.integers(0, 256, (count, 4, 4, 3), np.uint8)
    images = [np.asarray(Image.fromarray(image).resize((SIZE, SIZE))) for image in coarse]
    clip = Clip(f"{split}{number}", pathlib.Path("x.mp4"), tuple(captions), None, None, split)
    return clip, video.Frames(np.stack(images), np.arange(count, dtype=float))


def examples(split, settings=SETTINGS):
    for number in range(COUNTS[split]):
        clip, frames = clip_and_frames(split, number)
        yield clip.clip_id, builder.example(clip, frames, pathlib.Path(), settings)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    return write(directory, {split: examples(split) for split in COUNTS})


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer.from_merges(DEMO_MERGES)


@pytest.fixture
def train(data, tokenizer):
    def batches(**changes):
        arguments = {
            "batch_size": BATCH,
            "num_frames": NUM_FRAMES,
            "num_words": NUM_WORDS,
            "seed": 7,
            "first_step": 0,
            "num_steps": 8,
        }
        return pipeline.train_batches(data, "train", tokenizer, **(arguments | changes))

    return batches


def assert_equal(batches, others):
    batches, others = list(batches), list(others)
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


def records(data, split):
    """The split's records in order, read by TFDS itself."""
    return list(data.builder.as_data_source(split))


def expected_frames(record, num_frames=NUM_FRAMES):
    """Frames and mask from a record, by Pillow and NumPy."""
    jpegs = list(record["frames"])
    if len(jpegs) > num_frames:
        jpegs = [jpegs[i] for i in np.linspace(0, len(jpegs) - 1, num_frames).astype(int)]
    frames = np.zeros((num_frames, SIZE, SIZE, 3), np.uint8)
    for place, jpeg in enumerate(jpegs):
        frames[place] = np.asarray(Image.open(io.BytesIO(jpeg)))
    return frames, np.arange(num_frames) < len(jpegs)


# ---- Training batches ------------------------------------------------------------------------


def test_train_batches_hold_the_records(data, train, tokenizer):
    stored = records(data, "train")
    order = TrainOrder(np.array([len(record["captions"]) for record in stored]), BATCH, 7)
    # 50 pairs: an epoch of eight steps, of which two pairs are dropped, and one step more.
    assert order.steps_per_epoch == 8
    for step, batch in enumerate(train(num_steps=9)):
        assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
            "text_ids": ((BATCH, NUM_WORDS), "int32"),
            "text_mask": ((BATCH, NUM_WORDS), "int32"),
            "frames": ((BATCH, NUM_FRAMES, SIZE, SIZE, 3), "uint8"),
            "frame_mask": ((BATCH, NUM_FRAMES), "int32"),
            "clip_index": ((BATCH,), "int32"),
        }
        picked = order(step)
        np.testing.assert_array_equal(batch["clip_index"], picked.clips)
        captions = []
        for row, (clip, number) in enumerate(zip(picked.clips, picked.captions, strict=True)):
            captions.append(stored[clip]["captions"][number].decode())
            frames, mask = expected_frames(stored[clip])
            np.testing.assert_array_equal(batch["frame_mask"][row], mask)
            np.testing.assert_array_equal(batch["frames"][row], frames)
        tokens = tokenizer(captions, NUM_WORDS)
        np.testing.assert_array_equal(batch["text_ids"], tokens.ids)
        np.testing.assert_array_equal(batch["text_mask"], tokens.mask)
    assert step == 8


def test_the_records_hold_the_clips(data):
    # The other end of the comparison above: what was written, but for JPEG's loss.
    stored = {record["clip_id"].decode(): record for record in records(data, "train")}
    assert len(stored) == 20
    for number in range(20):
        clip, frames = clip_and_frames("train", number)
        record = stored[clip.clip_id]
        assert [caption.decode() for caption in record["captions"]] == list(clip.captions)
        found, mask = expected_frames(record, 9)
        assert mask.sum() == len(frames.images)
        assert abs(found[mask].astype(int) - frames.images).mean() < 6


@pytest.mark.parametrize("first_step", [1, 3, 7])
def test_a_resumed_run_reads_what_it_would_have_read(train, first_step):
    whole = list(train())
    assert_equal(whole[first_step:], train(first_step=first_step))


@pytest.mark.parametrize(("part_bytes", "size"), [(1, 1), (15_000, 2), (21_000, 3)])
def test_batches_are_the_same_in_parts(data, train, monkeypatch, part_bytes, size):
    def evaluated():
        return list(pipeline.eval_batches(data, "val", batch_size=BATCH, num_frames=NUM_FRAMES))

    clip_bytes = NUM_FRAMES * SIZE**2 * 3
    assert batch_reader.part_size(BATCH, clip_bytes) == BATCH
    whole, whole_videos = list(train()), evaluated()
    monkeypatch.setattr(batch_reader, "_PART_BYTES", part_bytes)
    assert batch_reader.part_size(BATCH, clip_bytes) == size
    assert_equal(whole, train())
    for batch, other in zip(evaluated(), whole_videos, strict=True):
        np.testing.assert_array_equal(batch.frames, other.frames)
        np.testing.assert_array_equal(batch.frame_mask, other.frame_mask)
        assert (batch.clip_ids, batch.captions) == (other.clip_ids, other.captions)


def test_a_late_step_is_as_near_as_the_first(data, train):
    # One that counted its way there would not end.
    (batch,) = train(first_step=10**9, num_steps=10**9 + 1)
    picked = TrainOrder(caption_counts(data, "train"), BATCH, 7)(10**9)
    np.testing.assert_array_equal(batch["clip_index"], picked.clips)


@pytest.mark.parametrize("process_count", [2, 3])
def test_hosts_share_the_batch_of_one(train, process_count):
    hosts = [
        list(train(process_index=index, process_count=process_count, num_steps=4))
        for index in range(process_count)
    ]
    joined = [
        {name: np.concatenate([share[name] for share in shares]) for name in shares[0]}
        for shares in zip(*hosts, strict=True)
    ]
    assert_equal(joined, train(num_steps=4))


def test_a_finished_run_has_no_more_batches(train):
    assert list(train(first_step=8)) == []


def test_one_frame_a_clip(data, train):
    stored = records(data, "train")
    batch = next(train(num_frames=1))
    assert batch["frame_mask"].tolist() == [[1]] * BATCH
    for row, clip in enumerate(batch["clip_index"]):
        frames, _ = expected_frames(stored[clip], 1)
        np.testing.assert_array_equal(batch["frames"][row], frames)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 5, 12, 64])
def test_frames_are_picked_as_linspace_picks(num_frames):
    for count in range(1, 200):
        picks = np.arange(count)
        if count > num_frames:
            picks = np.linspace(0, count - 1, num_frames).astype(int)
        np.testing.assert_array_equal(pipeline.pick_frames(count, num_frames).numpy(), picks)


def test_an_epoch_passes_over_pairs(data):
    assert caption_counts(data, "train").sum() == 50
    assert pipeline.steps_per_epoch(data, "train", BATCH) == 8
    # In so large batches a clip's four captions would meet.
    assert pipeline.steps_per_epoch(data, "train", 20) == 1


def test_captions_are_read_once(data, tmp_path):
    told = [[each.decode() for each in one["captions"]] for one in records(data, "train")]
    write(tmp_path, {split: examples(split) for split in COUNTS})
    path = pathlib.Path(open_data(tmp_path).builder.data_dir) / "captions-train.json"
    # A data set of before, one with captions of another, or numbers alone, or damaged.
    for found in (None, '[["a"], ["b"]]', json.dumps([2] * 20), json.dumps([[]] * 20), "[4, 4"):
        if found is not None:
            path.write_text(found)
        assert captions(open_data(tmp_path), "train") == told
        assert json.loads(path.read_text()) == told
    assert caption_counts(open_data(tmp_path), "train").tolist() == [*map(len, told)]
    # What is kept is what counts: the records are not looked at.
    path.write_text(json.dumps([["a", "b"]] * 20))
    assert caption_counts(open_data(tmp_path), "train").tolist() == [2] * 20
    assert sorted(file.name for file in path.parent.iterdir() if "captions" in file.name) == [
        "captions-train.json"
    ]


def test_captions_are_counted_where_nothing_can_be_kept(tmp_path, monkeypatch):
    write(tmp_path, {split: examples(split) for split in COUNTS})

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(pathlib.Path, "write_text", refuse)
    data = open_data(tmp_path)
    assert caption_counts(data, "train").sum() == 50
    assert not list(pathlib.Path(data.builder.data_dir).glob("captions*"))


def test_counts_that_the_records_belie_are_an_error(tmp_path, tokenizer):
    data = write(tmp_path, {split: examples(split) for split in COUNTS})
    path = pathlib.Path(data.builder.data_dir) / "captions-train.json"
    path.write_text(json.dumps([["a"] * 9] * 20))
    batches = pipeline.train_batches(
        data, "train", tokenizer, batch_size=4, num_frames=2, num_words=8, seed=0,
        first_step=0, num_steps=45,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"split 'train' .*out of bounds.*prepare it again"):
        list(batches)


# ---- Evaluation batches ----------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
def test_evaluation_sees_each_clip_once(data, batch_size):
    stored = records(data, "val")
    seen = 0
    for batch in pipeline.eval_batches(data, "val", batch_size=batch_size, num_frames=NUM_FRAMES):
        assert batch.frames.shape == (batch_size, NUM_FRAMES, SIZE, SIZE, 3)
        assert batch.frame_mask.shape == (batch_size, NUM_FRAMES)
        assert batch.frames.dtype == np.uint8
        assert batch.frame_mask.dtype == np.int32
        assert batch.real == len(batch.clip_ids) == len(batch.captions) > 0
        for row in range(batch_size):
            # Past the end the last clip is repeated: never a clip without frames.
            record = stored[min(seen + row, len(stored) - 1)]
            frames, mask = expected_frames(record)
            np.testing.assert_array_equal(batch.frames[row], frames)
            np.testing.assert_array_equal(batch.frame_mask[row], mask)
            if row < batch.real:
                assert batch.clip_ids[row] == record["clip_id"].decode()
                assert batch.captions[row] == [each.decode() for each in record["captions"]]
        seen += batch.real
    assert seen == len(stored) == 7


def test_hosts_share_an_evaluation(data):
    def batches(**host):
        found = pipeline.eval_batches(data, "val", batch_size=6, num_frames=NUM_FRAMES, **host)
        return list(found)

    alone = batches()
    shares = [batches(process_index=index, process_count=2) for index in range(2)]
    # 7 clips are 6 and 1: in the last batch the second host has none, but takes part.
    assert [[batch.real for batch in share] for share in shares] == [[3, 1], [3, 0]]
    for one, *both in zip(alone, *shares, strict=True):
        np.testing.assert_array_equal(one.frames, np.concatenate([b.frames for b in both]))
        assert one.clip_ids == [name for batch in both for name in batch.clip_ids]
        assert one.captions == [each for batch in both for each in batch.captions]


# ---- From real video files -------------------------------------------------------------------


def test_rendered_videos_come_through(tmp_path, tokenizer):
    told = rendered.scenes(seed=1, num_train=4, num_held_out=4)[:4]
    (tmp_path / "videos").mkdir()
    setup = Settings("folder", 2.0, 64, 95, "none")

    def split_examples():
        for scene in told:
            path = tmp_path / scene.video
            rendered.write_video(rendered.render_clip(scene), path)
            clip = Clip(scene.video, path, (scene.caption,), None, None, scene.split)
            frames = video.read_frames(path, size=64, rate=2.0, start=None, end=None)
            yield clip.clip_id, builder.example(clip, frames, tmp_path, setup)

    data = write(tmp_path, {"train": split_examples()}, setup)
    (batch,) = pipeline.train_batches(
        data, "train", tokenizer, batch_size=4, num_frames=6, num_words=40, seed=0,
        first_step=0, num_steps=1,
    )  # fmt: skip
    names = [record["clip_id"].decode() for record in records(data, "train")]
    by_name = {scene.video: scene for scene in told}
    for row, clip in enumerate(batch["clip_index"]):
        scene = by_name[names[clip]]
        # 12 frames a second, of which every sixth is stored.
        drawn = rendered.render_clip(scene)[::6]
        assert batch["frame_mask"][row].tolist() == [1] * len(drawn) == [1] * 6
        assert abs(batch["frames"][row].astype(int) - drawn).mean() < 6
        ids = tokenizer([scene.caption], 40).ids[0]
        np.testing.assert_array_equal(batch["text_ids"][row], ids)


# ---- A user's mistakes, and bad records ------------------------------------------------------


def test_settings_that_differ(data):
    pipeline.check_settings(data, frame_rate=1.0, images=Preprocessing(SIZE))
    with pytest.raises(UserError) as caught:
        pipeline.check_settings(data, frame_rate=2.0, images=Preprocessing(SIZE))
    assert str(caught.value) == (
        "the prepared data set has frame_rate 1.0, the config 2.0: prepare again with"
        " --frame_rate 2.0 --overwrite, or take a config of frame_rate 1.0"
    )
    with pytest.raises(UserError, match="has image_size 24, the config 224: prepare again"):
        pipeline.check_settings(data, frame_rate=1.0, images=Preprocessing(224))
    # What is told to be given is what would fit, to the last digit.
    film = dataclasses.replace(
        data, settings=dataclasses.replace(data.settings, frame_rate=30_000 / 1001)
    )
    flags_of = {"frame_rate": "config.data.frame_rate"}
    with pytest.raises(UserError) as caught:
        pipeline.check_settings(film, frame_rate=1.0, images=Preprocessing(SIZE), flags_of=flags_of)
    given = str(caught.value).rpartition("--config.data.frame_rate=")[2]
    pipeline.check_settings(film, frame_rate=float(given), images=Preprocessing(SIZE))


def test_what_does_not_fit_is_said_before_reading(data, train, tokenizer):
    with pytest.raises(UserError, match=r"no split 'tset' .* train, val"):
        pipeline.eval_batches(data, "tset", batch_size=2, num_frames=2)
    with pytest.raises(UserError, match=r"batch_size 21 .* 'train' has 20 clips, .*=20 or less"):
        train(batch_size=21)
    with pytest.raises(UserError, match="batch_size 0: take 1 or more"):
        train(batch_size=0)
    with pytest.raises(UserError, match="num_frames 0: take 1 or more"):
        train(num_frames=0)
    with pytest.raises(UserError, match="batch_size 6 does not divide among 4 hosts"):
        train(process_count=4)
    with pytest.raises(UserError, match="batch_size 0: take 1 or more"):
        pipeline.eval_batches(data, "val", batch_size=0, num_frames=2)
    with pytest.raises(UserError, match="at least"):
        train(num_words=1)


def bad_data(directory, change):
    clip, frames = clip_and_frames("train", 3)
    record = builder.example(clip, frames, pathlib.Path(), SETTINGS)
    change(record)
    return write(directory, {"train": iter([(clip.clip_id, record)])})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.update(frames=[], frame_times=[]), "clip train3 has no frames"),
        (lambda record: record.update(frames=[b"no JPEG"] * 4), "Unknown image"),
        (lambda record: record["frames"].__setitem__(0, record["frames"][0][:-200]), "JPEG"),
    ],
)
def test_bad_records_are_errors(tmp_path, tokenizer, change, message):
    data = bad_data(tmp_path, change)
    batches = pipeline.train_batches(
        data, "train", tokenizer, batch_size=1, num_frames=2, num_words=8, seed=0,
        first_step=0, num_steps=1,
    )  # fmt: skip
    with pytest.raises(UserError, match=message) as caught:
        next(batches)
    assert "\n" not in str(caught.value)
    assert "{{" not in str(caught.value)


def test_a_clip_without_captions_is_an_error(tmp_path):
    data = bad_data(tmp_path, lambda record: record.update(captions=[]))
    with pytest.raises(
        UserError, match=r"'train' .*: clip train3 has no captions; prepare it again"
    ):
        pipeline.steps_per_epoch(data, "train", 1)


# ---- Ending ----------------------------------------------------------------------------------


def test_a_closed_iterator_is_at_its_end(train):
    batches = train()
    next(batches)
    batches.close()
    batches.close()
    assert list(batches) == []


@pytest.mark.skipif(not pathlib.Path("/proc/self/task").exists(), reason="counts Linux threads")
def test_closed_iterators_leave_no_threads(train):
    def threads():
        return sum(1 for _ in pathlib.Path("/proc/self/task").iterdir())

    next(train())
    before = threads()
    for _ in range(8):
        batches = train()
        next(batches)
        batches.close()
    # On a busy machine they take their time to end.
    deadline = time.monotonic() + 60
    while threads() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threads() <= before


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="counts Linux's files")
def test_validations_leave_no_files_open(data, train, tokenizer, tmp_path):
    def files():
        return sum(1 for path in pathlib.Path("/proc/self/fd").iterdir() if is_record(path))

    def is_record(path):
        try:
            return "array_record" in str(path.readlink())
        except OSError:  # the listing's own
            return False

    def validate(split="val"):
        return pipeline.eval_batches(data, split, batch_size=4, num_frames=1)

    kept = train()
    next(kept)
    assert files() == 1  # that of the training that goes on meanwhile
    for _ in range(8):
        assert sum(batch.real for batch in validate()) == 7
    # Nor do batches that are read in part and closed, or dropped, or that end in an error.
    closed = validate("train")
    next(closed)
    closed.close()
    next(validate("train"))
    bad = bad_data(tmp_path, lambda record: record.update(frames=[b"no JPEG"] * 4))
    with pytest.raises(UserError, match="Unknown image"):
        list(pipeline.eval_batches(bad, "train", batch_size=1, num_frames=2))
    assert files() == 1
    next(kept)
    kept.close()
    assert files() == 0


@pytest.mark.parametrize(
    ("ending", "status"), [("pass", 0), pytest.param("1 / 0", 1, marks=pytest.mark.slow)]
)
def test_a_program_may_end_in_mid_epoch(tmp_path, ending, status):
    # Without care TensorFlow's threads call into Python while it shuts down, and hang.
    write(tmp_path, {"train": examples("train")})
    program = f"""if True:
        import pathlib
        from glscl_jax.input_pipeline import pipeline, prepared_data
        from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
        from glscl_jax.input_pipeline.tokenizer import Tokenizer
        data = prepared_data.open_data(pathlib.Path({str(tmp_path)!r}))
        batches = pipeline.train_batches(
            data, "train", CLIPTokenizer.from_merges(DEMO_MERGES), batch_size=4, num_frames=4,
            num_words=8, seed=0, first_step=0, num_steps=10**6)
        next(batches)
        {ending}
    """
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=REPO, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stderr
    assert "Exception ignored" not in done.stderr
