"""From a video file to the tensor in the model, beside the reference's recipe on the same file."""

import pathlib

import av
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from glscl_jax.input_pipeline import pipeline
from glscl_jax.input_pipeline.annotations import Clip
from glscl_jax.input_pipeline.decoding import video
from glscl_jax.input_pipeline.prepared_data import Settings, open_data
from glscl_jax.input_pipeline.preparing import builder
from glscl_jax.models.encoders.images import Preprocessing
from yardsticks import moving_clips

SIZE, NUM_FRAMES = 224, 12
SECONDS = {"long": 14, "short": 5}
# CLIP's, as its own preprocessing has them.
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """H.264 at 30 frames a second, 320 x 240, one longer and one shorter than 12 s."""
    folder = tmp_path_factory.mktemp("videos")
    for number, (name, seconds) in enumerate(SECONDS.items()):
        moving_clips.write_clip(folder / f"{name}.mp4", seconds, number, preset="veryfast")
    return folder


def reference_frames(path: pathlib.Path) -> np.ndarray:
    """One frame a second through Pillow's bicubic filter and the crop, uint8 [V,224,224,3].

    Nothing of the library: every frame is decoded, and the wanted ones picked by number.
    """
    with av.open(path) as container:
        every = [frame.to_image() for frame in container.decode(video=0)]
    pictures = []
    for position in range(0, len(every), moving_clips.RATE):
        picture = every[position].resize((int(224 * 320 / 240), 224), Image.Resampling.BICUBIC)
        left = round((picture.width - 224) / 2)
        pictures.append(np.asarray(picture.crop((left, 0, left + 224, 224))))
    return np.stack(pictures)


def reference_tensor(path: pathlib.Path) -> np.ndarray:
    """The reference's video tensor: at most 12 of the frames, normalised, zeros behind them."""
    frames = reference_frames(path)
    if len(frames) > NUM_FRAMES:
        frames = frames[np.linspace(0, len(frames) - 1, NUM_FRAMES, dtype=int)]
    tensor = np.zeros((NUM_FRAMES, SIZE, SIZE, 3))
    tensor[: len(frames)] = (frames / 255 - MEAN) / STD
    return tensor


def test_frames_are_those_of_pillows_bicubic_path(videos):
    for name, seconds in SECONDS.items():
        frames = video.read_frames(videos / f"{name}.mp4", size=SIZE)
        expected = reference_frames(videos / f"{name}.mp4")
        assert frames.images.shape == (seconds, SIZE, SIZE, 3)
        np.testing.assert_array_equal(frames.images, expected)


def test_undamaged_by_jpeg_the_tensor_is_the_references(videos):
    expected = reference_tensor(videos / "short.mp4")[: SECONDS["short"]]
    frames = video.read_frames(videos / "short.mp4", size=SIZE).images[None]
    tensor = Preprocessing(224).normalize(jnp.asarray(frames), jnp.ones(frames.shape[:2]))[0]
    # float32 here, float64 there.
    np.testing.assert_allclose(tensor, expected, atol=2e-6)


def prepared(videos, folder, quality):
    """The tensors that reach the model from a data set of the two clips, by their ids."""
    settings = Settings("folder", 1.0, SIZE, quality, "none")
    examples = []
    for name in SECONDS:
        clip = Clip(name, videos / f"{name}.mp4", ("a view",), None, None, "train")
        frames = video.read_frames(clip.video, size=SIZE)
        examples.append((name, builder.example(clip, frames, videos, settings)))
    folder.mkdir()
    with builder.written({"train": examples}, folder, settings):
        pass
    data = open_data(folder)
    (batch,) = pipeline.eval_batches(data, "train", batch_size=2, num_frames=NUM_FRAMES)
    tensors = Preprocessing(224).normalize(jnp.asarray(batch.frames), jnp.asarray(batch.frame_mask))
    return dict(zip(batch.clip_ids, np.asarray(tensors), strict=True))


@pytest.mark.parametrize(
    ("quality", "largest", "mean"),
    # Of frames stored as JPEG, at prepare's default quality and at the best, where 1 of 255 is
    # 0.0146. Measured on these clips, whose fine grain is what JPEG likes least: largest 0.228 and
    # mean 0.0295 at 95, largest 0.058 and mean 0.0070 at 100.
    [(95, 0.25, 0.032), (100, 0.065, 0.0078)],
)
def test_the_model_sees_the_references_tensor(videos, tmp_path, quality, largest, mean):
    tensors = prepared(videos, tmp_path / "data", quality)
    assert tensors.keys() == SECONDS.keys()
    differences = []
    for name, tensor in tensors.items():
        expected = reference_tensor(videos / f"{name}.mp4")
        assert tensor.shape == expected.shape
        np.testing.assert_array_equal((tensor == 0).all((1, 2, 3)), (expected == 0).all((1, 2, 3)))
        real = min(SECONDS[name], NUM_FRAMES)
        differences.append(np.abs(tensor - expected)[:real].ravel())
    differences = np.concatenate(differences)
    assert largest / 2 < differences.max() < largest
    assert mean / 2 < differences.mean() < mean
