"""How a source's images are made: CLIP's way is read in all its spellings, others refused."""

import json

import pytest

from convert.conversion import Options, convert_clip
from convert.readers import preprocessing
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.tokenizer import DEMO_MERGES
from tests.clip_sources import copied, hugging_face_directory, open_clip_directory, read, refused

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
WAYS = [
    {"do_normalize": False},
    {"do_center_crop": False},
    {"do_resize": False},
    {"do_rescale": False},
    {"rescale_factor": 1},
    {"resample": 2},
    {"size": {"height": 16, "width": 16}},
    {"size": {"shortest_edge": 20}},
    {"size": 20},
    {"crop_size": {"height": 16, "width": 12}},
    {"crop_size": 12},
    {"image_processor_type": "SiglipImageProcessor"},
    {"image_mean": [0.5, 0.5, 0.5]},
    {"image_std": [0.5, 0.5, 0.5]},
]


@pytest.mark.parametrize("changes", WAYS)
@pytest.mark.parametrize("name", [preprocessing.FILE, preprocessing.PROCESSOR_FILE])
def test_another_way_is_refused_by_name(tmp_path, name, changes):
    said = NEW | changes
    inside = {"image_processor": said} if name == preprocessing.PROCESSOR_FILE else said
    (tmp_path / name).write_text(json.dumps(inside))
    with pytest.raises(UserError) as caught:
        preprocessing.check_hugging_face(tmp_path, 16)
    (changed,) = changes
    told = {"image_mean": "normalised by", "image_std": "normalised by"}.get(changed, changed)
    assert told in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("said", [OLD, NEW, {}, {"size": {"shortest_edge": 16}}])
def test_clip_s_own_way_is_read(tmp_path, said):
    (tmp_path / preprocessing.FILE).write_text(json.dumps(said))
    preprocessing.check_hugging_face(tmp_path, 16)


@pytest.mark.parametrize(
    ("images", "told"),
    [
        ({"interpolation": "bilinear"}, "preprocess_cfg.interpolation 'bilinear'"),
        ({"resize_mode": "squash"}, "preprocess_cfg.resize_mode 'squash'"),
        ({"resize_mode": "longest"}, "resize_mode 'longest'"),
        ({"size": 20}, "preprocess_cfg.size 20"),
        ({"mean": [0.5, 0.5, 0.5]}, "normalised by"),
    ],
)
def test_open_clip_s_other_ways_are_refused(tmp_path, images, told):
    path = open_clip_directory(tmp_path / "clip", {}, images=images)
    assert told in refused(path, tmp_path)


def test_open_clip_s_usual_way_is_read(tmp_path):
    images = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    for size in (16, [16, 16]):
        preprocessing.check_open_clip(tmp_path, images | {"mode": "RGB", "size": size}, 16)


def test_a_directory_is_converted_or_refused_by_its_processor(tmp_path):
    directory = hugging_face_directory(tmp_path / "clip")
    good = copied(directory, tmp_path / "good", preprocessor_config=NEW)
    convert_clip(str(good), str(tmp_path / "out"), Options(tokenizer=str(DEMO_MERGES)))
    assert read(tmp_path / "out").config.clip.image_size == 16
    bad = copied(directory, tmp_path / "bad", preprocessor_config=NEW | {"do_normalize": False})
    assert "do_normalize false" in refused(bad, tmp_path, tokenizer=str(DEMO_MERGES))
