"""Small videos of kinds that people have reported, through `prepare` in one run."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from glscl_jax.input_pipeline.prepared_data import open_data
from tests.conftest import SHARED
from tests.pictures import corners, roundness

CASES = SHARED / "cases" / "videos"
SIZE = 120  # as high as the pictures
# What is stored at a frame a second: the corners and the frames' numbers.
UPRIGHT = "RGBW"
STORED = {
    "good.mp4": (UPRIGHT, [0, 10, 20]),
    "hflip.mp4": ("GRWB", None),
    "matrix_zero.mp4": (UPRIGHT, [0, 10]),
    "deg3.mp4": (UPRIGHT, [0, 10]),
    "deg45.mp4": (UPRIGHT, [0, 10]),
    "rot90_scaled.mp4": ("BRWG", None),
    "burst.flv": (UPRIGHT, [9, 19, 29, 39]),
    "joined.ts": (UPRIGHT, [0, 20, 40, 100, 120, 140]),
    "last_frame_an_hour.mp4": (UPRIGHT, [0, 10, 20]),
    "gap_100_hours.mkv": (UPRIGHT, [0, 1, 11, 21]),
    "intra_refresh.mp4": (UPRIGHT, list(range(0, 200, 10))),
    "intra_refresh.mp4#t=9": (UPRIGHT, list(range(90, 200, 10))),
    "intra_refresh.mp4#t=17": (UPRIGHT, [170, 180, 190]),
    "cover_first.mp4": (UPRIGHT, [0, 10, 20]),
    "starts_07s.mkv": (UPRIGHT, [0, 10, 20]),
}


def number(image):
    """Ten bits in the middle row of a picture of 160 x 120, cropped to 120 x 120."""
    return sum((image[60, 15 + 9 * bit + 4].mean() > 128) << bit for bit in range(10))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, forks):
    """What the program said, the records by their ids, and damaged.csv."""
    if not CASES.is_dir():
        pytest.skip("the small videos (../shared/cases) are not here")
    folder = tmp_path_factory.mktemp("cases")
    starts = [("intra_refresh.mp4", "9.0"), ("intra_refresh.mp4", "17.0")]
    with (folder / "captions.csv").open("w", encoding="utf-8") as file:
        file.write("video,caption,start\n")
        for name, start in [(path.name, "") for path in sorted(CASES.iterdir())] + starts:
            file.write(f"{name},{name} from {start},{start}\n")
    for path in CASES.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    data = folder / "data"
    flags = ["--source", folder, "--data_dir", data, f"--image_size={SIZE}"]
    done = forks("glscl_jax.input_pipeline.prepare", *flags)
    there = open_data(data)
    source = there.records("train")
    found = source.read(range(len(source)))
    records = [there.features.deserialize_example_np(record) for record in found]
    with (data / "damaged.csv").open(encoding="utf-8", newline="") as file:
        damaged = {row["clip"]: row["reason"] for row in csv.DictReader(file)}
    assert not (data / "failed.csv").exists()
    return done.stdout, {record["clip_id"].decode(): record for record in records}, damaged


def images(record):
    return np.stack([np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in record["frames"]])


def test_the_cases_are_stored_as_players_show_them(prepared):
    _, records, damaged = prepared
    assert set(records) == {*STORED, "half_width_2_1.mp4"}
    for clip, (shown, frames) in STORED.items():
        pictures = images(records[clip])
        assert {corners(picture) for picture in pictures} == {shown}, clip
        if frames is not None:
            assert [number(picture) for picture in pictures] == frames, clip
    disc = images(records["half_width_2_1.mp4"])[0]
    assert roundness(disc) == pytest.approx(1, abs=0.06)
    assert damaged == {"gap_100_hours.mkv": "its clock jumps from 0.0 s to 360,000.0 s"}


def test_the_doctor_measures_by_frames_what_a_header_tells(prepared):
    said, *_ = prepared
    outliers = said.partition("duration outliers:")[2].split("\n\n")[0]
    assert "gap_100_hours.mkv: 360003.0 s" in outliers
    for name in ("last_frame_an_hour", "starts_07s", "joined"):
        assert name not in outliers
