"""How pictures become squares: as the libraries' own image processors make them, for any model."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import pipeline, video_files
from glscl_jax.input_pipeline.decoding import geometry, video
from glscl_jax.input_pipeline.prepare import prepare_source
from glscl_jax.input_pipeline.prepared_data import SETTINGS_FILE, Settings, open_data
from glscl_jax.models.encoders.images import INTERPOLATIONS, Preprocessing
from glscl_jax.models.glscl import GLSCLConfig, model_settings
from glscl_jax.models.model_file import read_model_config
from tests.builders import SMALL_CLIP

SIZE = 32
SQUASHED = dataclasses.replace(
    SMALL_CLIP, image_size=48, resize="squash", interpolation="bilinear", image_mean=(0.5, 0.5, 0.5)
)


@pytest.mark.parametrize("shape", [(48, 64), (100, 70), (32, 32), (20, 90)])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_squares_are_those_of_transformers_processors(shape, interpolation):
    from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    picture = Image.fromarray(noise).resize(shape[::-1], Image.Resampling.BICUBIC)
    plain = {"do_normalize": False, "do_rescale": False}
    plain["resample"] = {"bicubic": 3, "bilinear": 2}[interpolation]
    square = {"height": SIZE, "width": SIZE}
    processors = {
        "squash": SiglipImageProcessorPil(size=square, **plain),
        "crop": CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=square, **plain),
    }
    for resize, processor in processors.items():
        (expected,) = processor(picture, return_tensors="np")["pixel_values"]
        found = geometry.fit(
            np.asarray(picture), SIZE, resize=resize, interpolation=interpolation
        ).astype(int)
        assert abs(found - expected.transpose(1, 2, 0)).max() <= 1


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """What `prepare --for` reads of a model directory, of one that squashes."""
    folder = tmp_path_factory.mktemp("squashed")
    settings = model_settings(GLSCLConfig(clip=SQUASHED))
    (folder / "model.json").write_text(json.dumps(settings))
    return folder


def test_prepared_for_a_model_frames_are_as_it_wants_them(shapes, model, tmp_path):
    source = shapes / "videos"
    prepare_source(source, tmp_path, for_model=model, frame_rate=2.0)
    data = open_data(tmp_path)
    images = SQUASHED.preprocessing
    settings = data.settings
    stored = Preprocessing(settings.image_size, settings.resize, settings.interpolation)
    assert (stored.size, stored.resize, stored.interpolation) == (48, "squash", "bilinear")
    batch = next(pipeline.eval_batches(data, "val", batch_size=1, num_frames=2))
    (clip,) = batch.clip_ids
    how = {"resize": "squash", "interpolation": "bilinear"}
    frames = video.read_frames(source / clip, size=48, rate=2.0, **how).images
    taken = frames[video_files.pick(len(frames), 2)].astype(int)
    assert abs(batch.frames[0] - taken).max() <= 30  # JPEG's share
    assert abs(batch.frames[0] - taken).mean() < 1
    # The same without a data set.
    read, _ = video_files.read_videos([source / clip], size=48, rate=2.0, num_frames=2, **how)
    np.testing.assert_array_equal(read[0], taken)
    pipeline.check_settings(data, frame_rate=2.0, images=images)


def test_data_of_another_way_is_refused_with_a_way_out(shapes):
    data = open_data(shapes / "data")
    images = Preprocessing(32, resize="squash", interpolation="bilinear")
    with pytest.raises(UserError) as caught:
        pipeline.check_settings(data, frame_rate=2.0, images=images)
    told = str(caught.value)
    assert "has resize crop, the config squash: prepare again with --resize squash" in told
    assert "has interpolation bicubic, the config bilinear" in told


@pytest.mark.parametrize("flag", ["--image_size=32", "--resize=crop", "--interpolation=bicubic"])
def test_a_model_and_a_flag_that_differ(shapes, refusal, model, tmp_path, flag):
    prepare = "glscl_jax.input_pipeline.prepare"
    arguments = (f"--source={shapes / 'videos'}", f"--data_dir={tmp_path}", f"--for={model}", flag)
    told = refusal(prepare, *arguments)
    assert f"{flag.replace('=', ' ')}: the model of --for {model} takes" in told
    assert not any(tmp_path.iterdir())


def test_a_model_s_own_pictures_come_back_from_its_settings(model):
    assert read_model_config(model).clip == SQUASHED


def test_no_model_to_prepare_for(shapes, refusal, tmp_path):
    prepare = "glscl_jax.input_pipeline.prepare"
    arguments = (f"--source={shapes / 'videos'}", f"--data_dir={tmp_path}", f"--for={tmp_path}")
    assert "is no checkpoint directory (no model.json)" in refusal(prepare, *arguments)


def test_what_was_always_so_is_not_written_down(shapes):
    """Data sets and runs from before there was a choice are the same data still."""
    data = open_data(shapes / "data")
    (written,) = (shapes / "data").rglob(SETTINGS_FILE)
    written = json.loads(written.read_text())
    late = {"resize", "interpolation"}
    assert not late & (written.keys() | data.identity.keys())
    assert Settings("folder", 2.0, 32, 95, "", resize="squash").metadata()["resize"] == "squash"
