"""A folder of numbered pictures is a video: its frames, gaps and damage told, nothing beyond it."""

import csv
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import annotations, prepare
from glscl_jax.input_pipeline.annotations.source import Source
from glscl_jax.input_pipeline.decoding.containers import VideoError
from glscl_jax.input_pipeline.decoding.video import duration, measure, read_frames
from glscl_jax.input_pipeline.prepared_data import Settings, open_data
from glscl_jax.input_pipeline.preparing import builder, data_set, doctor
from glscl_jax.input_pipeline.preparing.decode_cache import DecodeCache
from tests import numbered_videos


def write(folder, count=30, name="{:06}.png", first=1, step=1):
    """Numbered pictures, each with its place from 0 in its pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for place in range(count):
        picture = Image.fromarray(numbered_videos.numbered(place))
        picture.save(folder / name.format(first + step * place))
    return folder


def read(folder, pictures_rate=10.0, **settings):
    """The frames, and the pictures' places that they carry."""
    frames = read_frames(folder, size=numbered_videos.SIZE, pictures_rate=pictures_rate, **settings)
    return frames, numbered_videos.numbers(np.asarray(frames.images))


@pytest.mark.parametrize(
    "pictures",
    [
        {},
        {"name": "frame_{}.png", "first": 0},  # 10 comes after 9
        {"name": "frame_{}.png", "first": 10, "step": 10},  # named by the video's own frames
        {"name": "v_abc-1_{:04}.jpg"},
        {"name": "{}.JPEG", "first": 98},
    ],
)
def test_pictures_are_those_of_a_video(tmp_path, pictures):
    folder = write(tmp_path / "a", **pictures)
    video = numbered_videos.write(tmp_path / "a.mp4", 30, rate=10)
    for window in ({}, {"rate": 2.0}, {"rate": 3.0}, {"start": 0.5, "end": 1.7}, {"start": 2.95}):
        film = read_frames(video, size=numbered_videos.SIZE, **window)
        frames, places = read(folder, **window)
        assert places == numbered_videos.numbers(film.images)
        assert frames.times == pytest.approx(film.times)
        assert frames.fault is None
    with pytest.raises(VideoError, match=r"no frame from 5 s on: the video has 3\.0 s"):
        read(folder, start=5.0)
    assert duration(folder, 10.0) == measure(folder, 10.0) == pytest.approx(3.0)


def test_no_picture_is_shown_twice(tmp_path):
    folder = write(tmp_path / "a", count=4)
    assert read(folder, pictures_rate=0.5)[1] == [0, 1, 2, 3]
    assert read(write(tmp_path / "b", count=1))[1] == [0]


def test_gaps_are_told(tmp_path):
    folder = write(tmp_path / "a")
    for number in (11, 12, 27):
        (folder / f"{number:06}.png").unlink()
    frames, places = read(folder)
    assert places == [0, 20]
    assert frames.times == pytest.approx([0, 2])
    assert frames.fault == (
        "3 pictures are missing, the first behind 000010.png;"
        " damaged: 1 of 3 frames lost, the first at 1.0 s"
    )
    # Also where no frame is lost by it.
    (folder / "000011.png").write_bytes((folder / "000010.png").read_bytes())
    assert read(folder)[0].fault == "2 pictures are missing, the first behind 000011.png"


def damaged(path):
    path.write_bytes(path.read_bytes()[:-40])


def linked_out(path):
    outside = path.parent.parent / "outside.png"
    path.rename(outside)
    path.symlink_to(outside)


def a_fifo(path):
    path.unlink()
    os.mkfifo(path)


def resized(path):
    Image.open(path).resize((64, 32)).save(path)


def too_large(path):
    path.write_bytes(b"P6 16000 10000 255\n")


FAULTS = [
    (damaged, "image file is truncated"),
    (lambda path: path.write_bytes(b"hello"), "not a picture that can be read"),
    (lambda path: path.write_bytes(b""), "not a picture that can be read"),
    (resized, "64 x 32 pixels, most are 48 x 48"),
    (too_large, "16000 x 10000 pixels are too many"),
    (linked_out, "a link that leads outside of its folder"),
    (a_fifo, "not a file"),
]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("spoil", "reason"), FAULTS)
def test_bad_pictures_are_lost_and_named(tmp_path, spoil, reason):
    folder = write(tmp_path / "a")
    spoil(folder / "000011.png")
    frames, places = read(folder)
    assert places == [0, 20]
    begin, _, told = frames.fault.partition("the first 000011.png: ")
    assert begin == "1 pictures left out, "
    (told, lost) = told.split("; ")
    assert reason in told
    assert lost == "damaged: 1 of 3 frames lost, the first at 1.0 s"
    # One that is not asked for is not opened.
    assert read(folder, start=1.5)[0].fault is None


def test_one_video_a_folder(tmp_path):
    folder = write(tmp_path / "series")
    write(folder, count=3, name="b_{}.png")
    with pytest.raises(VideoError, match=r"several series, of 000001\.png and of b_1\.png"):
        read(folder)
    folder = write(tmp_path / "twice")
    write(folder, count=1, name="{}.png")
    with pytest.raises(VideoError, match=r"000001\.png and 1\.png have one number: keep one"):
        read(folder)
    folder = write(tmp_path / "scattered", count=4)
    (folder / "000004.png").rename(folder / "1000000000000000.png")
    with pytest.raises(VideoError, match=r"do not follow each other: 1000000000000000\.png is beh"):
        read(folder)
    folder = write(tmp_path / "uneven", count=8, step=4)
    (folder / "000017.png").rename(folder / "000018.png")
    with pytest.raises(
        VideoError, match=r"000018\.png is behind 000013\.png, where a step of 4 is"
    ):
        read(folder)
    folder = write(tmp_path / "cover")
    write(folder, count=1, name="cover.png")
    (folder / "notes.txt").touch()
    assert read(folder)[0].fault == "1 pictures have no number, the first is cover.png"
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match="a folder without numbered pictures"):
        read(tmp_path / "empty")
    with pytest.raises(VideoError, match="say how many there are a second, --pictures_rate"):
        read(folder, pictures_rate=None)


def test_colours_are_as_they_are_shown(tmp_path):
    (tmp_path / "a").mkdir()
    red = Image.new("RGB", (40, 20), (200, 0, 0))
    red.paste((0, 0, 200), (0, 0, 20, 20))
    clear = red.convert("RGBA")
    clear.putalpha(Image.new("L", red.size, 0))
    grey = Image.fromarray(np.full((20, 40), 51 << 8, np.uint16))
    turned = red.getexif()
    turned[0x0112] = 3  # by half a turn
    red.save(tmp_path / "a" / "0.png")
    red.save(tmp_path / "a" / "1.png", exif=turned)
    clear.save(tmp_path / "a" / "2.png")
    grey.save(tmp_path / "a" / "3.png")
    red.quantize(4).save(tmp_path / "a" / "4.png")
    frames = read_frames(tmp_path / "a", size=20, rate=10, pictures_rate=10)
    assert frames.fault is None
    # The left half and the right one; the middle of the picture is what is stored.
    halves = [[tuple(image[10, 4]), tuple(image[10, 15])] for image in frames.images]
    blue_red = [(0, 0, 200), (200, 0, 0)]
    assert halves == [blue_red, blue_red[::-1], [(0, 0, 0)] * 2, [(51, 51, 51)] * 2, blue_red]


@pytest.fixture
def folder_of_clips(tmp_path):
    """Three clips of pictures and a video, one of the folders with a picture that is damaged."""
    source = tmp_path / "source"
    for name in ("one", "two", "deep/three"):
        write(source / name)
    damaged(source / "two" / "000011.png")
    write(source / "stray")
    numbered_videos.write(source / "four.mp4", 30, rate=10)
    rows = [["video", "caption", "split"], ["one", "a", "train"], ["two/", "b", "train"]]
    rows += [["deep/three", "c", "test"], ["four.mp4", "d", "test"]]
    with (source / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return source


def test_prepared_beside_videos(folder_of_clips, tmp_path):
    clips = annotations.read_folder(folder_of_clips)
    settings = Settings(
        "folder", 1.0, 48, 95, builder.annotations_digest(clips), pictures_rate=10.0
    )
    checkup = doctor.examine(clips, folder_of_clips, "folder", workers=2, pictures_rate=10.0)
    assert not checkup.failures
    assert checkup.strays == (folder_of_clips / "stray",)
    made = data_set.prepare(
        clips, folder_of_clips, tmp_path / "data", settings, workers=2, max_failed_share=0.0
    )
    assert (made.splits, made.failures) == ({"train": 2, "test": 2}, ())
    ((clip, reason),) = [(damage.clip.clip_id, damage.reason) for damage in made.damaged]
    assert clip == "two"
    assert "000011.png" in reason
    data = open_data(tmp_path / "data")
    assert data.settings.pictures_rate == 10.0
    assert "pictures_rate" in data.identity
    assert data.splits == {"train": 2, "test": 2}
    with data.records("test") as source:
        for record in map(tf.train.Example.FromString, source.read(range(2))):
            assert len(record.features.feature["frames"].bytes_list.value) == 3


def test_a_changed_picture_is_another_clip(folder_of_clips, tmp_path):
    clips = annotations.read_folder(folder_of_clips)
    settings = Settings("folder", 1.0, 48, 95, "", pictures_rate=10.0)
    cache = DecodeCache(tmp_path / "kept", folder_of_clips, settings)
    cache.start(clips)
    for clip in clips:
        cache.decode(clip)
    assert len(cache.start(clips)) == 4
    path = folder_of_clips / "one" / "000015.png"
    path.write_bytes(path.read_bytes() + b"\0")
    assert cache.start(clips) == {"two", "deep/three", "four.mp4"}


def test_the_rate_is_needed(folder_of_clips):
    clips = annotations.read_folder(folder_of_clips)
    with pytest.raises(UserError, match=r"source/one is a folder of .* a second: --pictures_rate"):
        prepare.check_pictures_rate(clips, None)
    prepare.check_pictures_rate(clips, 3.0)
    prepare.check_pictures_rate(clips[-1:], None)


def test_benchmarks_find_folders_by_their_ids(tmp_path):
    write(tmp_path / "frames" / "video7", count=2)
    write(tmp_path / "frames" / "0017_Film_00.23.28.872-00.23.34.843", count=2)
    (tmp_path / "frames" / "video8").mkdir()
    (tmp_path / "frames" / "video8" / "poster.jpg").touch()
    files = Source(tmp_path)
    assert files.video("video7") == tmp_path / "frames" / "video7"
    film = "0017_Film_00.23.28.872-00.23.34.843"
    assert files.video(film) == tmp_path / "frames" / film
    assert files.video("video8") == tmp_path / "video8.mp4"
    (tmp_path / "video7.mp4").touch()
    with pytest.raises(UserError, match=r"both .*video7 and .*video7\.mp4 are there: keep one"):
        Source(tmp_path).video("video7")
