"""Files whose names say nothing are found by a table of ids, and DiDeMo's by its own."""

import csv
import json

import pytest

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import annotations, rendered
from glscl_jax.input_pipeline.annotations.bad_rows import BadRows
from glscl_jax.input_pipeline.annotations.file_names import read_names
from glscl_jax.input_pipeline.annotations.source import named_by
from glscl_jax.input_pipeline.prepare import check_source
from glscl_jax.input_pipeline.preparing import doctor
from tests.conftest import one_line_error

PROGRAM = "glscl_jax.input_pipeline.prepare"
IDS = ["12@N02_134_87ef41.mov", "12@N02_135_ab.avi", "9@N00_7_c0ffee.3gp"]


def table(path, text):
    path.write_text(text, encoding="utf-8")
    return read_names(path)


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def didemo(tmp_path):
    """DiDeMo's annotations of a video a split, without a video."""
    folder = tmp_path / "didemo"
    folder.mkdir()
    for split, name in zip(("train", "val", "test"), IDS, strict=True):
        (folder / f"{split}_list.txt").write_text(f"{name}\n")
        told = [{"video": name, "description": "a dog runs"}]
        (folder / f"{split}_data.json").write_text(json.dumps(told))
    return folder


def found(dataset, folder, names=None):
    """Each id's file, relative to the folder."""
    with named_by(names):
        clips = annotations.READERS[dataset](folder)
    return {clip.clip_id: clip.video.relative_to(folder).as_posix() for clip in clips}


def test_a_benchmark_s_videos_are_found_by_a_table(didemo, tmp_path):
    touch(didemo, "x/y/one.mp4", "deep/er/2.webm", IDS[2])
    # With another ending and with none; a name however deep, and a path.
    names = table(
        tmp_path / "names.csv",
        f"id,file\n12@N02_134_87ef41.mp4,one\n{IDS[1].removesuffix('.avi')},deep/er/2.webm\n"
        "nobody,gone.mp4\n",
    )
    assert found("didemo", didemo, names) == {
        IDS[0]: "x/y/one.mp4",
        IDS[1]: "deep/er/2.webm",
        IDS[2]: IDS[2],
    }
    assert names.describe().endswith("names.csv: 2 of its 3 ids name a video")
    # Outside of the body there is none.
    assert found("didemo", didemo)[IDS[0]] == IDS[0]


def test_a_file_that_a_table_names_is_the_one_even_if_it_is_not_there(didemo, tmp_path):
    touch(didemo, *IDS)
    names = table(tmp_path / "names.csv", f"id;file\n{IDS[0]};one\n{IDS[1]};two.mkv\n")
    told = found("didemo", didemo, names)
    assert (told[IDS[0]], told[IDS[1]]) == ("one.mp4", "two.mkv")


def test_one_s_own_videos_are_found_by_a_table(tmp_path):
    (tmp_path / "captions.csv").write_text("video,caption,start\na/1.mp4,x,\na/1.avi,y,2\n")
    names = table(tmp_path / "names.csv", "ID,file\na/1.mp4,deep/hash.mp4\n")
    # The path is as it is written: an ending tells apart, and no folder is searched.
    assert found("folder", tmp_path, names) == {
        "a/1.mp4": "deep/hash.mp4",
        "a/1.avi#t=2": "a/1.avi",
    }


def test_a_table_leads_through_no_link_out(didemo, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    touch(tmp_path / "elsewhere", "one.mp4")
    (didemo / "out").symlink_to(tmp_path / "elsewhere")
    names = table(tmp_path / "names.csv", f"id,file\n{IDS[0]},out/one.mp4\n")
    with pytest.raises(UserError, match="is a link out of"):
        found("didemo", didemo, names)
    (didemo / "captions.csv").write_text("video,caption\none.mp4,x\n")
    names = table(tmp_path / "names.csv", "id,file\none.mp4,out/one.mp4\n")
    with pytest.raises(UserError, match=r"line 2: video 'one\.mp4': .* is a link out of"):
        found("folder", didemo, names)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (",x.mp4", "no id: write one or delete the line"),
        ("b, ", "no file: write one or delete the line"),
        ("b,../x.mp4", "file '../x.mp4' leads outside of the folder"),
        ("b,/x.mp4", "file '/x.mp4' leads outside of the folder"),
        ("a,other.mp4", "'a' is 'x.mp4' in line 2: keep one"),
        ("b,x,y", "3 cells where the header has 2"),
        ('b,"x\ty"', r"file 'x\ty' holds a control character"),
    ],
)
def test_bad_rows_are_told_by_their_lines(tmp_path, row, told):
    path = tmp_path / "names.csv"
    with pytest.raises(BadRows) as refused:
        table(path, f"id,file\na,x.mp4\na,x.mp4\n{row}\n{row}\n")
    assert [bad.place for bad in refused.value.rows] == ["line 4", "line 5"]
    assert str(refused.value).startswith(f"{path} line 4: {told}")


def test_a_table_that_is_none_is_refused(tmp_path):
    for text, told in (
        ("", "no header"),
        ("id,name\na,b\n", "no column 'file' in line 1"),
        ("id,file\n", "no rows in it"),
    ):
        with pytest.raises(UserError, match=told):
            table(tmp_path / "names.csv", text)
    with pytest.raises(UserError, match=r"gone\.csv: No such file"):
        read_names(tmp_path / "gone.csv")


def test_didemo_s_own_hashes_are_read(didemo):
    """As in the authors' repository: Flickr's number, a tab, the hash of YFCC100M."""
    (didemo / "yfcc100m_hash.txt").write_text("134\t5b85c5f263745f\n7\tfd5ae8bb8677\n8\tab\n")
    touch(didemo, "5b8/5c5/5b85c5f263745f.mp4", "fd5ae8bb8677.mp4", IDS[2])
    # A file by its own name is meant before one by its hash.
    assert found("didemo", didemo) == {
        IDS[0]: "5b8/5c5/5b85c5f263745f.mp4",
        IDS[1]: IDS[1],
        IDS[2]: IDS[2],
    }


@pytest.mark.parametrize("line", ["134 5b85", "user\t5b85", "134\t", "134\t../x", "7\tother"])
def test_a_bad_line_of_the_hashes_is_named(didemo, line):
    (didemo / "yfcc100m_hash.txt").write_text(f"7\tfd5a\n{line}\n")
    with pytest.raises(UserError, match=r"yfcc100m_hash\.txt line 2: "):
        found("didemo", didemo)


@pytest.fixture
def own(tmp_path):
    """A video called by its hash, of which the caption file has another name."""
    (tmp_path / "videos").mkdir()
    (scene, *_) = rendered.scenes(0, 4, 4)
    rendered.write_video(rendered.render_clip(scene), tmp_path / "videos" / "c0ffee.mp4")
    (tmp_path / "videos" / "captions.csv").write_text("video,caption\none.mp4,x\n")
    return tmp_path / "videos"


def test_preparing_and_its_doctor_take_a_table(own, tmp_path, forks, refusal):
    names = tmp_path / "names.csv"
    names.write_text("id,file\none.mp4,c0ffee.mp4\n")
    assert len(check_source(own, names=names).missing) == 0
    flags = (f"--source={own}", "--image_size=32", f"--names={names}")
    data = f"--data_dir={tmp_path / 'data'}"
    done = forks(PROGRAM, *flags, data)
    assert f"{names}: 1 of its 1 ids name a video" in done.stdout
    assert "prepared 1 of 1 clips" in done.stdout
    # Nothing is taken where ids are another data set's, or a row is bad.
    names.write_text("id,file\ntwo.mp4,c0ffee.mp4\n")
    told = one_line_error(forks(PROGRAM, *flags, "--check", check=False))
    assert f"{names}: none of its 1 ids is one of the annotations" in told
    names.write_text("id,file\none.mp4\n")
    assert f"{names} line 2: " in refusal(PROGRAM, *flags, data)
    with (tmp_path / "data" / "bad_rows.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 1


@pytest.mark.parametrize(
    ("there", "told"),
    [
        (["5b85c5f263745f.mp4", "fd5ae8bb8677.mp4"], "3 ids and 2 files that no name pairs"),
        # What is asked for by "did you mean" needs no table.
        (["5b85c5f263745f.mp4", "135.avi"], "2 ids and 1 file that no name pairs"),
        (["135.avi"], ""),
        ([], ""),
    ],
)
def test_a_table_is_proposed_where_names_pair_nothing(didemo, there, told):
    touch(didemo, *there)
    clips = annotations.READERS["didemo"](didemo)
    checkup = doctor.examine(clips, didemo, "didemo", workers=1)
    lines = [line for line in checkup.table().splitlines() if "--names FILE" in line]
    wanted = "if they are the same videos, a table says which, --names FILE"
    assert lines == ([f"  {told}: {wanted}"] if told else [])
