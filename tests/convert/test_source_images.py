"""How a source's images are made: read in all its spellings, or refused by name."""

import dataclasses
import json

import pytest

from convert.conversion import Options, convert_clip
from convert.readers import preprocessing
from convert.readers.hugging_face import transformers_config, transformers_model
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES
from glscl_jax.models.encoders.images import Preprocessing
from glscl_jax.models.encoders.variants import VARIANTS
from tests.clip_sources import (
    copied,
    hugging_face_directory,
    open_clip_directory,
    read,
    refused,
    torch_glscl,
)

MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
# OpenAI's own file, and those of later versions of transformers.
OLD = {
    "crop_size": 16,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": MEAN,
    "image_std": STD,
    "resample": 3,
    "size": 16,
}
NEW = {
    "crop_size": {"height": 16, "width": 16},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": MEAN,
    "image_processor_type": "CLIPImageProcessor",
    "image_std": STD,
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 16},
}
CLIP_S = {
    "resize": "crop",
    "interpolation": "bicubic",
    "image_mean": tuple(MEAN),
    "image_std": tuple(STD),
}
SIGLIP = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 16, "width": 16}}
HALF = (0.5, 0.5, 0.5)
OTHER_WAYS = [
    ({"do_normalize": False}, {"image_mean": (0.0, 0.0, 0.0), "image_std": (1.0, 1.0, 1.0)}),
    ({"resample": 2}, {"interpolation": "bilinear"}),
    ({"size": {"height": 16, "width": 16}}, {"resize": "squash"}),
    ({"image_mean": [0.5, 0.5, 0.5]}, {"image_mean": HALF}),
    ({"image_std": [0.5, 0.5, 0.5]}, {"image_std": HALF}),
]
REFUSED = [
    {"do_center_crop": False},
    {"do_resize": False},
    {"do_rescale": False},
    {"do_pad": True},
    {"rescale_factor": 1},
    {"resample": 1},
    {"size": {"height": 16, "width": 20}},
    {"size": {"shortest_edge": 20}},
    {"size": 20},
    {"crop_size": {"height": 16, "width": 12}},
    {"crop_size": 12},
    {"image_processor_type": "Siglip2ImageProcessor"},
    {"image_mean": [0.5, 0.5]},
    {"image_std": [0.5, None, 0.5]},
]
OF_ANOTHER_TYPE = [
    {"resample": [3]},
    {"resample": "bicubic"},
    {"resample": True},
    {"image_processor_type": ["CLIPImageProcessor"]},
    {"feature_extractor_type": 5},
    {"do_resize": "false"},
    {"do_normalize": 0},
    {"do_center_crop": [True]},
    {"rescale_factor": "1/255"},
    {"size": "16"},
    {"crop_size": 16.5},
    {"crop_size": {"height": [16], "width": 16}},
    {"size": {"height": [16], "width": 16}},
    {"image_mean": [[0.5], [0.5, 0.5], 0.5]},
    {"image_std": "abc"},
]


def written(folder, said, name=preprocessing.FILE):
    inside = {"image_processor": said} if name == preprocessing.PROCESSOR_FILE else said
    (folder / name).write_text(json.dumps(inside))
    return folder


@pytest.mark.parametrize("name", [preprocessing.FILE, preprocessing.PROCESSOR_FILE])
@pytest.mark.parametrize(("changes", "told"), OTHER_WAYS)
def test_another_way_is_read(tmp_path, name, changes, told):
    found = preprocessing.of_hugging_face(written(tmp_path, NEW | changes, name), 16)
    assert found == CLIP_S | told


@pytest.mark.parametrize("changes", REFUSED + OF_ANOTHER_TYPE)
@pytest.mark.parametrize("name", [preprocessing.FILE, preprocessing.PROCESSOR_FILE])
def test_what_cannot_be_done_is_refused_by_name(tmp_path, name, changes):
    with pytest.raises(UserError) as caught:
        preprocessing.of_hugging_face(written(tmp_path, NEW | changes, name), 16)
    (changed,) = changes
    assert changed in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("said", [OLD, NEW, {}, {"size": {"shortest_edge": 16}}])
def test_clip_s_own_way_is_read(tmp_path, said):
    assert preprocessing.of_hugging_face(written(tmp_path, said), 16) == CLIP_S


def test_siglip_s_way_is_another_where_nothing_is_said(tmp_path):
    found = preprocessing.of_hugging_face(written(tmp_path, SIGLIP), 16)
    assert found == CLIP_S | {"resize": "squash", "image_mean": HALF, "image_std": HALF}


def test_a_directory_without_a_processor_is_taken_for_its_kind_s(tmp_path):
    assert preprocessing.of_hugging_face(tmp_path, 16) == CLIP_S
    squashed = CLIP_S | {"resize": "squash", "image_mean": HALF, "image_std": HALF}
    assert preprocessing.of_hugging_face(tmp_path, 16, "siglip") == squashed


# ---- VideoPrism's videos -------------------------------------------------------------------------

VIDEO = {
    "video_processor_type": "LlavaOnevisionVideoProcessor",
    "crop_size": None,
    "do_center_crop": None,
    "do_normalize": False,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": MEAN,
    "image_std": STD,
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 16, "width": 16},
}
AS_THEY_ARE = {"image_mean": (0.0, 0.0, 0.0), "image_std": (1.0, 1.0, 1.0)}
VIDEOS = CLIP_S | {"resize": "squash"} | AS_THEY_ARE
VIDEO_PLACES = [(preprocessing.VIDEO_FILE, None), (preprocessing.PROCESSOR_FILE, "video_processor")]


def of_videos(folder, name, section, said):
    (folder / name).write_text(json.dumps({section: said} if section else said))
    return preprocessing.of_hugging_face(folder, 16, "videoprism")


@pytest.mark.parametrize(("name", "section"), VIDEO_PLACES)
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, {}),
        ({"video_processor_type": "VideoPrismVideoProcessor"}, {}),
        ({"resample": 2}, {"interpolation": "bilinear"}),
        (
            {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3},
            {"image_mean": HALF, "image_std": (0.25,) * 3},
        ),
        ({"size": 16, "do_center_crop": True, "crop_size": 16}, {"resize": "crop"}),
    ],
)
def test_a_videoprism_s_video_processor_is_read(tmp_path, name, section, changes, told):
    assert of_videos(tmp_path, name, section, VIDEO | changes) == VIDEOS | told


@pytest.mark.parametrize(("name", "section"), VIDEO_PLACES)
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"size": {"height": 20, "width": 20}}, "size {'height': 20"),
        ({"resample": 1}, "resample 1"),
        ({"do_rescale": False}, "do_rescale false"),
        ({"video_processor_type": "VivitVideoProcessor"}, "'VivitVideoProcessor'"),
        ({"do_normalize": None}, "has image_mean and image_std and not do_normalize"),
        ({"do_normalize": True, "image_mean": None}, "and not image_mean: give all three"),
    ],
)
def test_a_videoprism_s_other_ways_are_refused(tmp_path, name, section, changes, told):
    with pytest.raises(UserError) as caught:
        of_videos(tmp_path, name, section, VIDEO | changes)
    assert told in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_a_videoprism_s_files_transformers_first_is_read(tmp_path):
    """The section, the video's own file, the image's."""
    written(tmp_path, SIGLIP | {"resample": 2})
    found = preprocessing.of_hugging_face(tmp_path, 16, "videoprism")
    assert found["interpolation"] == "bilinear"
    assert of_videos(tmp_path, preprocessing.VIDEO_FILE, None, VIDEO) == VIDEOS
    found = of_videos(
        tmp_path, preprocessing.PROCESSOR_FILE, "video_processor", VIDEO | {"resample": 2}
    )
    assert found == VIDEOS | {"interpolation": "bilinear"}
    # Of a model of images a video's settings say nothing.
    other = tmp_path / "other"
    other.mkdir()
    of_videos(other, preprocessing.VIDEO_FILE, None, VIDEO)
    assert preprocessing.of_hugging_face(other, 16) == CLIP_S


def test_a_videoprism_is_converted_by_its_video_processor(tmp_path):
    clip = dataclasses.replace(VARIANTS["tiny-VideoPrism"], text_layers=1, vocab_size=700)
    settings = transformers_config(clip)
    path = tmp_path / "theirs"
    torch_glscl.randomise(transformers_model(settings)(settings), seed=0).save_pretrained(path)
    square = {"height": clip.image_size, "width": clip.image_size}
    said = VIDEO | {"size": square, "resample": 2}
    (path / preprocessing.VIDEO_FILE).write_text(json.dumps(said))
    convert_clip(str(path), str(tmp_path / "ours"), Options())
    images = read(tmp_path / "ours").config.clip.preprocessing
    assert (images.interpolation, images.resize) == ("bilinear", "squash")
    (path / preprocessing.VIDEO_FILE).write_text(json.dumps(said | {"do_resize": False}))
    assert "do_resize false" in refused(path, tmp_path)


# ---- Types, and sizes of one number --------------------------------------------------------------


@pytest.mark.parametrize("section", [[], "CLIPImageProcessor", 5])
def test_a_section_that_is_none_is_a_line(tmp_path, section):
    written(tmp_path, section, preprocessing.PROCESSOR_FILE)
    with pytest.raises(UserError, match=r"image_processor is .*, not a section of settings"):
        preprocessing.of_hugging_face(tmp_path, 16)


@pytest.mark.parametrize("size", [16, {"shortest_edge": 16}])
def test_a_shorter_side_alone_is_no_square(tmp_path, size):
    """As transformers' SigLIP makes of a wide picture a wide one."""
    with pytest.raises(UserError, match=r"size .*, the shorter side's alone, without do_"):
        preprocessing.of_hugging_face(written(tmp_path, SIGLIP | {"size": size}), 16, "siglip")
    told = SIGLIP | {"size": size, "do_center_crop": True, "crop_size": 16}
    found = preprocessing.of_hugging_face(written(tmp_path, told), 16, "siglip")
    assert found["resize"] == "crop"


@pytest.mark.parametrize("said", [SIGLIP, NEW])
def test_two_numbers_are_both_sides(tmp_path, said):
    found = preprocessing.of_hugging_face(written(tmp_path, said | {"size": [16, 16]}), 16)
    assert found["resize"] == "squash"


# ---- open_clip's ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "told"),
    [
        ({}, {}),
        ({"interpolation": "bilinear"}, {"interpolation": "bilinear"}),
        ({"resize_mode": "squash"}, {"resize": "squash"}),
        ({"mean": [0.5, 0.5, 0.5]}, {"image_mean": HALF}),
        ({"mean": MEAN, "std": STD, "mode": "RGB", "size": [16, 16]}, {}),
        ({"size": 16, "fill_color": 0}, {}),
    ],
)
def test_open_clip_s_ways_are_read(tmp_path, images, told):
    assert preprocessing.of_open_clip(tmp_path, images, 16) == CLIP_S | told


@pytest.mark.parametrize(
    ("images", "told"),
    [
        ({"resize_mode": "longest"}, "preprocess_cfg.resize_mode 'longest'"),
        ({"interpolation": "random"}, "preprocess_cfg.interpolation 'random'"),
        ({"size": 20}, "preprocess_cfg.size 20"),
        ({"mean": [0.5]}, "mean is [0.5], not three numbers"),
        ({"mean": [[0.5], 0.5, 0.5]}, "mean is [[0.5], 0.5, 0.5], not three numbers"),
    ],
)
def test_open_clip_s_other_ways_are_refused(tmp_path, images, told):
    path = open_clip_directory(tmp_path / "clip", {}, images=images)
    assert told in refused(path, tmp_path)


def test_a_directory_is_converted_or_refused_by_its_processor(tmp_path):
    directory = hugging_face_directory(tmp_path / "clip")
    good = copied(directory, tmp_path / "good", preprocessor_config=NEW)
    convert_clip(str(good), str(tmp_path / "out"), Options(tokenizer=str(DEMO_MERGES)))
    assert read(tmp_path / "out").config.clip.image_size == 16
    assert read(tmp_path / "out").config.clip.preprocessing == Preprocessing(16)
    other = copied(directory, tmp_path / "other", preprocessor_config=NEW | {"do_normalize": False})
    convert_clip(str(other), str(tmp_path / "raw"), Options(tokenizer=str(DEMO_MERGES)))
    images = read(tmp_path / "raw").config.clip.preprocessing
    assert (images.mean, images.std) == ((0, 0, 0), (1, 1, 1))
    bad = copied(directory, tmp_path / "bad", preprocessor_config=NEW | {"do_resize": False})
    assert "do_resize false" in refused(bad, tmp_path, tokenizer=str(DEMO_MERGES))
