"""The demo's clips are real videos, and words alone cannot tell them apart."""

import collections
import itertools
import re

import numpy as np
import pytest

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import rendered
from glscl_jax.input_pipeline.annotations import read_folder
from glscl_jax.input_pipeline.decoding import video
from glscl_jax.input_pipeline.rendered import COLOURS, MOTIONS, SHAPES, Event, Scene

CONTENT = {*COLOURS, *SHAPES, *MOTIONS}


@pytest.fixture(scope="module")
def told():
    return rendered.scenes()


def of_split(told, split):
    return [scene for scene in told if scene.split == split]


def words(text):
    return re.findall(r"\w+", text)


def test_splits_share_no_bag_and_no_pair_of_events(told):
    assert collections.Counter(scene.split for scene in told) == {
        "train": 4000,
        "val": 500,
        "test": 500,
    }
    bags = {s: {scene.bag for scene in of_split(told, s)} for s in ("train", "val", "test")}
    pairs = {
        s: {frozenset(scene.events) for scene in of_split(told, s)}
        for s in ("train", "val", "test")
    }
    assert [len(bags[s]) for s in bags] == [290, 125, 125]
    for one, other in itertools.combinations(bags, 2):
        assert not bags[one] & bags[other]
        assert not pairs[one] & pairs[other]


def test_events_of_a_clip_differ_in_everything(told):
    for scene in told:
        assert len(scene.bag) == 6


def test_held_out_bags_have_four_clips_each(told):
    for split in ("val", "test"):
        by_bag = collections.defaultdict(list)
        for scene in of_split(told, split):
            by_bag[scene.bag].append(scene.events)
        for variants in by_bag.values():
            assert len(set(variants)) == len(variants) == 4
            # Both orders of two bindings, and colours keep their shapes: motions were swapped.
            assert {(b, a) for a, b in variants} == set(variants)
            assert len({frozenset(events) for events in variants}) == 2
            assert len({(e.colour, e.shape) for events in variants for e in events}) == 2


def test_training_has_all_eight_variants_of_its_bags():
    every = rendered.scenes(num_train=8 * 290)
    train = of_split(every, "train")
    assert len({scene.events for scene in train}) == 8 * 290
    # More clips than scenes: all come again before one comes a third time.
    counts = collections.Counter(scene.events for scene in of_split(rendered.scenes(), "train"))
    assert set(counts.values()) == {1, 2}


def test_every_event_of_the_test_split_was_seen_in_training(told):
    seen = {event for scene in of_split(told, "train") for event in scene.events}
    assert {event for scene in told for event in scene.events} <= seen
    vocabulary = {word for scene in of_split(told, "train") for word in words(scene.caption)}
    assert {word for scene in told for word in words(scene.caption)} <= vocabulary


def test_a_bag_of_words_finds_one_in_four(told):
    """The best that any scorer blind to word order can do, ties broken at random."""
    for split in ("val", "test"):
        scenes = of_split(told, split)
        columns = sorted(CONTENT)

        def counts(tokens, columns=columns):
            tokens = list(tokens)
            return [tokens.count(word) for word in columns]

        texts = np.array([counts(words(scene.caption)) for scene in scenes])
        videos = np.array([counts(scene.bag) for scene in scenes])
        scores = -abs(texts[:, None] - videos[None]).sum(-1)
        best = scores == scores.max(1, keepdims=True)
        recall = np.mean(np.diagonal(best) / best.sum(1))
        assert recall == 0.25


def test_captions_say_what_happens_in_order(told):
    for scene in told:
        content = [word for word in words(scene.caption) if word in CONTENT]
        expected = [w for e in scene.events for w in (e.colour, e.shape, e.motion)]
        assert content == expected


def test_wordings_tell_nothing_of_the_split(told):
    def wording(scene):
        return re.sub(r"\w+", lambda w: "_" if w[0] in CONTENT else w[0], scene.caption)

    train = collections.Counter(wording(scene) for scene in of_split(told, "train"))
    assert len(train) == len(rendered.TEMPLATES) * len(rendered.VERBS) ** 2
    share = 1 / len(train)
    for split in ("train", "val", "test"):
        scenes = of_split(told, split)
        used = collections.Counter(wording(scene) for scene in scenes)
        expected = share * len(scenes)
        statistic = sum((used[w] - expected) ** 2 / expected for w in train)
        # Chi-squared of 53 degrees of freedom: 90 is passed once in a thousand.
        assert statistic < 90


def test_scenes_follow_from_the_seed(told):
    assert rendered.scenes() == told
    assert rendered.scenes(seed=1) != told
    # The number of training clips leaves the others as they are.
    few = rendered.scenes(num_train=10)
    assert len(few) == 1010
    assert few == told[:1010]


@pytest.mark.parametrize("held_out", [6, 1080, 4000])
def test_too_many_held_out(held_out):
    with pytest.raises(UserError, match="a multiple of 4, at most 1076"):
        rendered.scenes(num_held_out=held_out)
    assert len(rendered.scenes(num_train=1, num_held_out=1076)) == 2153


def shown(frame):
    """Where the shape is: backgrounds are dark in every channel."""
    return frame.max(-1) > 120


def test_motion_is_plain_in_three_frames(told):
    for scene in told[:60]:
        clip = rendered.render_clip(scene)
        assert clip.shape == (36, 64, 64, 3)
        assert clip.dtype == np.uint8
        for event, frames in zip(scene.events, (clip[0:18:6], clip[18:36:6]), strict=True):
            centres = []
            for frame in frames:
                y, x = np.nonzero(shown(frame))
                centres.append((x.mean(), y.mean()))
                # A third to nearly half of the frame wide, and inside it.
                assert 17 <= np.ptp(x) + 1 <= 30
                assert 17 <= np.ptp(y) + 1 <= 30
            steps = np.diff(centres, axis=0)
            # As on a screen: x grows to the right, y downwards.
            axis, sign = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}[
                event.motion
            ]
            along = sign * steps[:, axis]
            assert (along > 8).all()
            assert abs(steps[:, 1 - axis].sum()) < 1


def test_colours_and_shapes_are_drawn_as_named():
    """Nearest named colour at the centre; the shapes by their area and where it lies."""
    for number, (colour, shape) in enumerate(itertools.product(COLOURS, SHAPES)):
        events = (Event(colour, shape, "up"), Event(colour, shape, "left"))
        clip = rendered.render_clip(Scene(number, events, "", "train", 0))
        for frame in clip[::9]:
            mask = shown(frame)
            y, x = np.nonzero(mask)
            centre = frame[round(y.mean()), round(x.mean())].astype(float)
            named = np.array(list(COLOURS.values()), float)
            # By hue and saturation: shades vary.
            distance = np.linalg.norm(centre / centre.max() - named / named.max(1)[:, None], axis=1)
            assert list(COLOURS)[int(distance.argmin())] == colour
            filled = mask.sum() / ((np.ptp(x) + 1) * (np.ptp(y) + 1))
            top, bottom = (y < y.mean()).sum(), (y > y.mean()).sum()
            if shape == "square":
                assert filled > 0.9
            elif shape == "circle":
                assert 0.7 < filled < 0.9
            elif shape == "triangle":
                assert filled < 0.65
                assert x[y == y.min()].size < x[y == y.max() - 1].size / 3
            else:
                assert filled < 0.65
                assert abs(top - bottom) < 0.2 * len(y)


def test_videos_decode_to_what_was_drawn(told, tmp_path):
    clip = rendered.render_clip(told[0])
    rendered.write_video(clip, tmp_path / "a.mp4")
    rendered.write_video(rendered.render_clip(told[0]), tmp_path / "b.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    frames = video.read_frames(tmp_path / "a.mp4", size=64, rate=12)
    assert len(frames.images) == 36
    assert abs(frames.images.astype(int) - clip).mean() < 4
    twice = video.read_frames(tmp_path / "a.mp4", size=32, rate=2)
    np.testing.assert_allclose(twice.times, [0, 0.5, 1, 1.5, 2, 2.5])


def test_the_program_goes_on_where_it_was_stopped(forks, tmp_path):
    def call(*more):
        sizes = "--clips=8", "--held_out=4"
        program = "glscl_jax.input_pipeline.rendered"
        return forks(program, "--out", tmp_path / "out", *sizes, *more, check=False)

    first = call()
    assert first.returncode == 0, first.stderr
    assert first.stderr.startswith("rendering: 16 of 16, ")
    clips = read_folder(tmp_path / "out")
    told = rendered.scenes(0, 8, 4)
    assert [clip.captions for clip in clips] == [(scene.caption,) for scene in told]
    assert [clip.split for clip in clips] == [scene.split for scene in told]
    whole = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    assert len(whole) == 18

    # As a kill in the middle leaves it.
    (tmp_path / "out" / "captions.csv").unlink()
    clips[3].video.unlink()
    clips[5].video.rename(clips[5].video.with_name(f"{clips[5].video.name}.part"))
    again = call()
    assert again.stdout.startswith("rendered 2 clips")
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == whole

    assert "holds these 16 clips already" in call().stdout
    other = call("--seed=1")
    assert other.returncode == 2
    assert re.fullmatch(r"error: --out \S+ holds clips of other settings: .*\n", other.stderr)


def test_a_folder_of_other_things_is_left_alone(tmp_path, told):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is no empty folder"):
        rendered.claim_folder(tmp_path, told)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
