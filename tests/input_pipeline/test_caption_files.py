"""Caption files as people have them: what is read, what is told, and that no row is lost unsaid."""

import csv

import pytest

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import rendered
from glscl_jax.input_pipeline.annotations import clock, folder, tables
from glscl_jax.input_pipeline.annotations.bad_rows import RowError
from glscl_jax.input_pipeline.annotations.split_names import SplitNames
from glscl_jax.input_pipeline.prepared_data import open_data
from tests.conftest import one_line_error

PROGRAM = "glscl_jax.input_pipeline.prepare"
ROWS = [
    ("a.mp4", "a dog, running; fast", "train"),
    ("b.mp4", 'said "in\ntwo lines"', "val"),
    ("ü.mp4", "Ein Hund läuft", "test"),
]


def read(path, text, name="captions.csv", encoding="utf-8"):
    (path / name).write_bytes(text.encode(encoding))
    return folder.read(path)


def told(clips):
    return [(clip.clip_id, *clip.captions, clip.split) for clip in clips]


def reasons(rows):
    return [f"{row.place}: {row.reason}" for row in rows]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("first", ["", "sep={}"])
def test_whatever_program_wrote_it(tmp_path, separator, encoding, line_end, first):
    path = tmp_path / "captions.csv"
    with path.open("w", newline="", encoding=encoding) as file:
        if first:
            file.write(first.format(separator) + line_end)
        writer = csv.writer(file, delimiter=separator, lineterminator=line_end)
        writer.writerows([("Video", " caption", "SPLIT"), *ROWS])
    reading = folder.read(tmp_path)
    assert told(reading.clips) == ROWS
    assert not reading.notes + reading.bad + reading.left_out


@pytest.mark.parametrize("separator", ["|", " "])
def test_other_separators_are_named(tmp_path, separator):
    with pytest.raises(UserError, match="separate columns by a comma, semicolon, tab"):
        read(tmp_path, f"video{separator}caption\na.mp4{separator}x\n")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "gbk", "utf-16"])
def test_other_encodings_are_named(tmp_path, encoding):
    text = "video,caption\na.mp4,x\nb.mp4,é\n".encode(encoding)
    (tmp_path / "captions.csv").write_bytes(text[:-1] if encoding == "utf-16" else text)
    with pytest.raises(UserError, match=r"captions\.csv line \d: not .*: save the file as UTF-8"):
        folder.read(tmp_path)


@pytest.mark.parametrize(
    "word",
    ["nan", "NaN", "None", "NULL", "N/A", "NA", "<NA>", "#N/A", "#NAME?", "#REF!", "#DIV/0!"],
)
def test_words_for_nothing(tmp_path, word):
    text = f"video,caption,start,end,split\na.mp4,x,{word},{word},{word}\nb.mp4,{word},,,\n"
    reading = read(tmp_path, f"{text}{word}, {word} ,,,\n")
    assert told(reading.clips) == [("a.mp4", "x", "train")]
    assert reasons(reading.bad) == ["line 3: no caption: write one or delete the line"]
    assert reading.notes == (f"{tmp_path}/captions.csv: 6 cells read as empty: 6 {word!r}",)
    # What only holds such a word is a caption.
    assert read(tmp_path, f"video,caption\na.mp4,{word} it says\n").clips


def test_words_for_nothing_in_json(tmp_path):
    text = '{"video": "a.mp4", "caption": "x", "start": NaN, "end": null, "split": "None"}\n'
    reading = read(tmp_path, f"{text}\n", "captions.jsonl")
    assert told(reading.clips) == [("a.mp4", "x", "train")]
    (note,) = reading.notes
    assert note.endswith("2 cells read as empty: 1 'NaN', 1 'None'")


def test_other_columns_are_one_line(tmp_path):
    reading = read(tmp_path, ",video,caption,spilt,fps,fps\n0,a.mp4,x,val,25,30\n")
    assert told(reading.clips) == [("a.mp4", "x", "train")]
    (note,) = reading.notes
    assert note.endswith("columns not read: one without a name, spilt (split?), fps")
    (tmp_path / "captions.csv").unlink()
    text = '{"video": "a.mp4", "Caption": "x", "fps": [25]}\n'
    (note,) = read(tmp_path, text, "captions.jsonl").notes
    assert note.endswith("columns not read: fps")


def test_cells_beyond_the_header_that_are_empty(tmp_path):
    assert told(read(tmp_path, "video,caption\na.mp4,x,,\n,,,\n").clips) == [
        ("a.mp4", "x", "train")
    ]


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (["Train", "TEST", "Val"], ["train", "test", "val"]),
        (["training", "Validation", "testing"], ["train", "val", "test"]),
        (["dev"], ["val"]),
        (["valid", "VALID"], ["val", "val"]),
        # Each of them a split of its own, where there are two.
        (["dev", "val"], ["dev", "val"]),
        (["Dev", "Valid"], ["Dev", "Valid"]),
        # A name of one's own is as it is written first.
        (["testA", "TestA", "testB"], ["testA", "testA", "testB"]),
    ],
)
def test_splits_however_they_are_written(tmp_path, written, names):
    rows = "".join(f"{number}.mp4,x, {name} \n" for number, name in enumerate(written))
    reading = read(tmp_path, f"video,caption,split\n{rows}")
    assert [clip.split for clip in reading.clips] == names
    others = [name for name, read_as in zip(written, names, strict=True) if name != read_as]
    assert len(reading.notes) == bool(others)
    for name in others:
        assert repr(name) in reading.notes[0]


def test_one_clip_in_two_spellings_of_its_split(tmp_path):
    reading = read(tmp_path, "video,caption,split\na.mp4,x,Train\na.mp4,y,TRAIN\na.mp4,z,\n")
    assert told(reading.clips) == [("a.mp4", "x", "y", "z", "train")]
    assert SplitNames([])["train"] == "train"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("95", 95.0),
        ("95.5", 95.5),
        ("95,5", 95.5),
        ("0,125", 0.125),
        ("1:35", 95.0),
        ("01:35.5", 95.5),
        ("90:00", 5400.0),
        ("0:01:35", 95.0),
        ("00:01:35.500", 95.5),
        ("00:01:35,500", 95.5),
        ("1:00:00", 3600.0),
        (" 00:00:00 ", 0.0),
        (95, 95.0),
    ],
)
def test_times(text, number):
    assert clock.seconds(text, "start") == number


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1:60", "minutes and seconds end at 59"),
        ("1:60:00", "minutes and seconds end at 59"),
        ("0:01:35:12", "give seconds, mm:ss or hh:mm:ss.ms"),
        ("-1:30", "give seconds, mm:ss or"),
        ("1:", "give seconds, mm:ss or"),
        ("1,500", "can mean 1.500 and 1500"),
        ("1m30s", "is not a number"),
        ("-3", "give seconds, 0 or more"),
    ],
)
def test_no_times(text, message):
    with pytest.raises(RowError, match=message):
        clock.seconds(text, "start")


def test_rows_that_add_nothing_are_left_out_and_told(tmp_path):
    reading = read(
        tmp_path,
        "video,caption\na.mp4,x\n\nb.mp4,x\na.mp4, x\nb.mp4,🐕\nc.mp4,!!! ?\nb.mp4,y\n",
    )
    assert told(reading.clips) == [("a.mp4", "x", "train"), ("b.mp4", "x", "y", "train")]
    assert not reading.bad
    assert reasons(reading.left_out) == [
        "line 5: says the same as line 2: left out",
        "line 6: caption '🐕' has no letters: left out",
        "line 7: caption '!!! ?' has no letters: left out",
    ]
    (note,) = reading.notes
    assert note.endswith("1 of 3 clips left out, with no caption that has letters: c.mp4")


def test_every_bad_row_is_found(tmp_path):
    reading = read(
        tmp_path,
        "video,caption,start\n"
        "a.mp4,x,\n"
        ",x,\n"
        '"b.mp4"c,x,\n'
        "c.mp4,one, two,\n"
        "../d.mp4,x,\n"
        "e.mp4,x,soon\n"
        'f.mp4,"x,\n',
    )
    assert told(reading.clips) == [("a.mp4", "x", "train")]
    assert [row.place for row in reading.bad] == [f"line {number}" for number in range(3, 9)]
    with pytest.raises(UserError, match=r"line 3: no video: .* \(and 5 more bad rows\)"):
        folder.read_folder(tmp_path)


def test_json_that_says_two_things(tmp_path):
    text = '{"video": "a.mp4", "caption": "x"}\n{"video": "b", "caption": "x", "Caption": "y"}\n'
    assert reasons(read(tmp_path, text, "captions.jsonl").bad) == [
        "line 2: 'caption' is there twice, and says two things: keep one"
    ]


@pytest.mark.parametrize("name", ["Captions.CSV", "caption.csv", "captions.csv.txt"])
def test_caption_files_of_other_names(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"in it: rename {name}"):
        folder.read(tmp_path)


def test_annotation_files_of_spreadsheets(tmp_path):
    (tmp_path / "list.txt").write_bytes("video7\nvideo8\n".encode("utf-16"))
    assert tables.id_list(tmp_path / "list.txt") == {"video7": 1, "video8": 2}


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """A folder of one clip, with seven bad rows and two that add nothing."""
    source = tmp_path_factory.mktemp("bad")
    scene = rendered.scenes(0, 4, 4)[0]
    rendered.write_video(rendered.render_clip(scene), source / "a.mp4")
    rows = "".join(f"a.mp4,x,{number},1\n" for number in range(1, 8))
    text = f"video,caption,start,end\na.mp4,x,,\na.mp4,x,,\na.mp4,?,,\n{rows}"
    (source / "captions.csv").write_text(text)
    return source


def listed(data_dir):
    with (data_dir / "bad_rows.csv").open(newline="") as file:
        return [(row["row"], row["reason"]) for row in csv.DictReader(file)]


def test_the_program_lists_them(bad, tmp_path, forks):
    data_dir = tmp_path / "data"
    flags = f"--source={bad}", f"--data_dir={data_dir}", "--image_size=32"
    done = forks(PROGRAM, *flags, check=False)
    error = one_line_error(done)
    assert "captions.csv line 5: start 1 is not before end 1: mend" in error
    assert "(and 6 more bad rows)" in error
    assert f"{data_dir}/bad_rows.csv lists all" in error
    assert "bad rows:          7\n" in done.stdout
    assert "  and 2 more\n" in done.stdout
    assert "rows left out:     2\n" in done.stdout
    bad_rows = [f"line {number}" for number in range(5, 12)]
    assert [row for row, _ in listed(data_dir)] == [*bad_rows, "line 3", "line 4"]
    assert [path.name for path in data_dir.iterdir()] == ["bad_rows.csv"]

    done = forks(PROGRAM, *flags, "--allow_partial")
    assert done.stdout.endswith("prepared 1 of 1 clips (train 1); partial: 7 bad rows left out\n")
    assert open_data(data_dir).settings.partial == "7 bad rows left out"
    assert len(listed(data_dir)) == 9

    # Without bad rows the list goes.
    (tmp_path / "captions.csv").write_text("video,caption\na.mp4,x\n")
    more = f"--source={tmp_path}", f"--videos={bad}", "--overwrite", "--image_size=32"
    done = forks(PROGRAM, *more, f"--data_dir={data_dir}")
    assert done.stdout == "prepared 1 of 1 clips (train 1)\n"
    assert not (data_dir / "bad_rows.csv").exists()


def test_the_doctor_tells_them_and_looks_at_the_rest(bad, forks, tmp_path):
    done = forks(PROGRAM, f"--source={bad}", "--check", check=False)
    assert "(and 6 more bad rows): mend that, or leave it out" in one_line_error(done)
    assert "rows left out:     2\n" in done.stdout
    assert "ids without files: none" in done.stdout
    assert sorted(path.name for path in bad.iterdir()) == ["a.mp4", "captions.csv"]
