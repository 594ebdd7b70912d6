"""Ids without files are paired with files of other names; links that lead out are named."""

import csv
import pathlib
import unicodedata

import pytest

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import annotations, rendered
from glscl_jax.input_pipeline.annotations import folder as own_folder
from glscl_jax.input_pipeline.annotations import source
from glscl_jax.input_pipeline.preparing import doctor
from glscl_jax.input_pipeline.preparing.near_matches import near_matches
from tests import benchmark_files
from tests.conftest import one_line_error

PROGRAM = "glscl_jax.input_pipeline.prepare"
DECOMPOSED = unicodedata.normalize("NFD", "café.mp4")


def near(missing, files, used=()):
    root = pathlib.Path("/videos")
    found = near_matches(
        [root / name for name in missing],
        [root / name for name in files],
        {root / name for name in used},
        root,
    )
    return {
        path.relative_to(root).as_posix(): (match.path.as_posix(), *match.differs)
        for path, match in found.items()
    }


@pytest.mark.parametrize(
    ("missing", "there", "differs"),
    [
        ("café.mp4", DECOMPOSED, ["Unicode form"]),
        (DECOMPOSED, "café.mp4", ["Unicode form"]),
        ("a.mp4", "A.MP4", ["case"]),
        ("Kitchen/one.mp4", "kitchen/one.mp4", ["case"]),
        ("a.mp4", "a.webm", ["ending"]),
        ("a.mp4", "a", ["ending"]),
        ("a", "a.mp4", ["ending"]),
        ("a.mp4", "a.mp4.part", ["ending"]),
        ("a.mp4", "a.mp4.mkv", ["ending"]),
        ("kitchen\\one.mp4", "kitchen/one.mp4", ["backslashes"]),
        ("C:\\films\\one.mp4", "one.mp4", ["backslashes", "folder"]),
        ("v_abc.mp4", "abc.mp4", ["v_"]),
        ("abc.mp4", "v_abc.mkv", ["ending", "v_"]),
        ("a b.mp4", "a_b.mp4", ["spaces"]),
        ("a.mp4", "deep/er/a.mp4", ["folder"]),
        ("videos/a.mp4", "a.avi", ["ending", "folder"]),
        ("12@N02_134_87ef41.mov", "12@N02_134.mp4", ["ending", "Flickr's user and hash"]),
        ("12@N02_134_87ef41.mov", "12@N02_134_87ef41", ["ending"]),
        ("12@N02_134_87ef41.mov", "12@N02_134_00aa00.mov", ["Flickr's user and hash"]),
        ("12@N02_134_87ef41.mov", "134.mov", ["Flickr's user and hash"]),
    ],
)
def test_names_that_changed_on_their_way(missing, there, differs):
    assert near([missing], [there, "other.mp4"]) == {missing: (there, *differs)}


def test_the_nearest_is_meant():
    assert near(["a.mp4"], ["A.MKV", "A.mp4", "x/a.mp4"]) == {"a.mp4": ("A.mp4", "case")}


@pytest.mark.parametrize(
    ("missing", "files", "used"),
    [
        (["a.mp4"], ["b.mp4", "aa.mp4", "a.b.mp4"], []),
        # Which of two?
        (["a.mp4"], ["x/a.mp4", "y/a.mp4"], []),
        (["x/a.mp4", "y/a.mp4"], ["a.mp4"], []),
        # Somebody else's.
        (["0002/video.mp4"], ["0001/video.mp4"], ["0001/video.mp4"]),
    ],
)
def test_no_guess(missing, files, used):
    assert near(missing, files, used) == {}


@pytest.fixture
def own(tmp_path):
    """A folder of two videos, of which the caption file names one in another case."""
    (tmp_path / "videos").mkdir()
    for name, scene in zip(("One.MP4", "two.mp4"), rendered.scenes(0, 4, 4), strict=False):
        rendered.write_video(rendered.render_clip(scene), tmp_path / "videos" / name)
    return tmp_path / "videos"


def captions(folder, *names):
    rows = "".join(f"{name},x\n" for name in names)
    (folder / "captions.csv").write_text(f"video,caption\n{rows}")


def test_the_line_and_the_file_say_it(own, tmp_path, forks):
    captions(own, "one.mp4", "two.mp4", "gone.mp4")
    hint = "did you mean One.MP4? (differs in case)"
    flags = f"--source={own}", "--image_size=32"
    done = forks(PROGRAM, *flags, "--check", check=False)
    assert f"first {own}/one.mp4: no such file: {hint}" in one_line_error(done)
    assert f"ids without files: 2\n  one.mp4: {hint}\n  gone.mp4\n" in done.stdout
    assert "1 of them may mean a file of another name" in done.stdout
    assert "files without ids: 1\n  One.MP4" in done.stdout
    for more in (), ("--max_failed_share=0.7",):
        done = forks(PROGRAM, *flags, f"--data_dir={tmp_path / 'data'}", *more, check=False)
        assert done.returncode == (0 if more else 2)
        with (tmp_path / "data" / "failed.csv").open() as file:
            told = {row["clip"]: row["reason"] for row in csv.DictReader(file)}
        assert told == {"one.mp4": f"no such file: {hint}", "gone.mp4": "no such file"}


def test_benchmarks_without_their_prefix(tmp_path):
    folder = benchmark_files.write("activitynet", tmp_path / "net")
    videos = sorted(folder.rglob("v_*.*"))
    for path in videos[:3]:
        path.rename(path.with_name(path.name.removeprefix("v_")))
    clips = annotations.READERS["activitynet"](folder)
    found = doctor.examine(clips, folder, "activitynet", workers=2)
    assert len(found.missing) == len(found.near) == 3
    path = videos[0]
    renamed = path.relative_to(folder).with_name(path.name[2:])
    assert found.near[path.stem].startswith(f"did you mean {renamed.as_posix()}? (differs in ")
    assert "v_" in found.near[path.stem].split("differs in")[1]


@pytest.fixture
def linked(own, tmp_path):
    """A folder with a linked folder and a file that lead out, and one that stays inside."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "films").symlink_to(own)
    (folder / "two.mp4").symlink_to(own / "two.mp4")
    (folder / "real.mp4").write_bytes((own / "two.mp4").read_bytes())
    (folder / "again.mp4").symlink_to("real.mp4")
    return folder


def test_links_out_are_named_with_the_way_out(linked, own):
    captions(linked, "real.mp4", "again.mp4", "two.mp4", "films/One.MP4", "films/two.mp4", "../a")
    reading = own_folder.read(linked)
    assert [clip.clip_id for clip in reading.clips] == ["real.mp4", "again.mp4"]
    told = [row.reason for row in reading.bad]
    way_out = "put what it leads to there, or give --follow_links"
    for row, link, target in zip(
        told, ("two.mp4", "films", "films"), (own / "two.mp4", own, own), strict=False
    ):
        assert row.endswith(f"{linked / link} is a link out of {linked}, to {target}: {way_out}")
    assert "leads outside of the folder: give a path relative to it" in told[3]
    with source.links_followed(True):
        reading = own_folder.read(linked)
    assert len(reading.clips) == 5
    # What is no link stays outside.
    assert [row.place for row in reading.bad] == ["line 7"]


def test_a_caption_file_that_is_linked_from_elsewhere(linked, tmp_path):
    captions(tmp_path, "real.mp4")
    (linked / "captions.csv").symlink_to(tmp_path / "captions.csv")
    with pytest.raises(UserError, match=r"captions\.csv is a link out of .*--follow_links"):
        own_folder.read(linked)
    with source.links_followed(True):
        assert own_folder.read(linked).clips


def test_a_source_that_is_a_link_itself(linked, tmp_path):
    captions(linked, "real.mp4", "two.mp4")
    (tmp_path / "link").symlink_to(linked)
    reading = own_folder.read(tmp_path / "link")
    assert len(reading.clips) == len(reading.bad) == 1
    assert "link/two.mp4 is a link out of" in reading.bad[0].reason


def test_linked_folders_of_benchmarks(tmp_path, forks):
    folder = benchmark_files.write("msvd", tmp_path / "msvd")
    (folder / "YouTubeClips").rename(tmp_path / "elsewhere")
    (folder / "YouTubeClips").symlink_to(tmp_path / "elsewhere")
    # A link in a circle is entered once.
    (tmp_path / "elsewhere" / "loop").symlink_to(folder)
    flags = "--dataset=msvd", f"--source={folder}", "--check", "--allow_partial"
    done = forks(PROGRAM, *flags)
    assert "ids without files: 20" in done.stdout
    assert (
        f"links leading out: 1\n  YouTubeClips leads to {tmp_path}/elsewhere: put what it leads to"
        " there, or give --follow_links\n"
    ) in done.stdout
    done = forks(PROGRAM, *flags, "--follow_links")
    assert "ids without files: none" in done.stdout
    assert "links leading out" not in done.stdout


def test_linked_annotations_of_benchmarks(tmp_path):
    folder = benchmark_files.write("msvd", tmp_path / "msvd")
    (folder / "train_list.txt").rename(tmp_path / "train_list.txt")
    (folder / "train_list.txt").symlink_to(tmp_path / "train_list.txt")
    with pytest.raises(UserError, match=r"train_list\.txt is a link out of .*--follow_links"):
        annotations.READERS["msvd"](folder)
    (folder / "train_list.txt").unlink()
    (tmp_path / "lists").mkdir()
    (tmp_path / "train_list.txt").rename(tmp_path / "lists" / "train_list.txt")
    (folder / "lists").symlink_to(tmp_path / "lists")
    with pytest.raises(UserError, match=r"no train_list\.txt in it .*lists is a link out of"):
        annotations.READERS["msvd"](folder)
    with source.links_followed(True):
        assert annotations.READERS["msvd"](folder)
