"""A folder's captions become clips; every mistake in them is one line that says where."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import READERS, Clip, read_folder


def folder(path, text, name="captions.csv", encoding="utf-8"):
    (path / name).write_bytes(text.encode(encoding))
    return path


def test_rows_of_a_segment_are_one_clip(tmp_path):
    source = folder(
        tmp_path,
        "video,caption,start,end,split\n"
        "a.mp4,a dog runs,,,train\n"
        "sub/b.mp4,one,1.5,3,val\n"
        '"a.mp4","a dog, running",,,\n'
        "b.mp4,two,,2.5,test\n"
        "./sub//b.mp4,three,1.50,3.0,val\n"
        "b.mp4,four,4,,test\n",
    )
    assert read_folder(source) == [
        Clip("a.mp4", source / "a.mp4", ("a dog runs", "a dog, running"), None, None, "train"),
        Clip("sub/b.mp4#t=1.5,3", source / "sub/b.mp4", ("one", "three"), 1.5, 3.0, "val"),
        Clip("b.mp4#t=,2.5", source / "b.mp4", ("two",), None, 2.5, "test"),
        Clip("b.mp4#t=4", source / "b.mp4", ("four",), 4.0, None, "test"),
    ]


def test_no_two_clips_have_one_id(tmp_path):
    """A file may be called as a segment of another is, and as that one's id is, and so on."""
    names = ["a.mp4", "a.mp4#t=1,2", "a.mp4%23t=1,2", "a.mp4%2523t=1,2", "50 %#.mp4"]
    rows = [{"video": name, "caption": name} for name in names]
    rows += [{"video": name, "caption": name, "start": 1, "end": 2} for name in names]
    source = folder(tmp_path, "\n".join(map(json.dumps, rows)), "captions.jsonl")
    clips = read_folder(source)
    assert [clip.captions for clip in clips] == [(row["video"],) for row in rows]
    ids = [clip.clip_id for clip in clips]
    assert len(set(ids)) == len(rows)
    # What is no such name stands as it is.
    assert ids[0] == "a.mp4"
    assert ids[4:6] == ["50 %#.mp4", "a.mp4#t=1,2"]


def test_jsonl_says_the_same(tmp_path):
    (tmp_path / "csv").mkdir()
    (tmp_path / "jsonl").mkdir()
    in_csv = folder(
        tmp_path / "csv",
        "caption,video,start,split\n"
        '"a dog, running",a.mp4,0.5,val\n'
        '"said in\ntwo lines",b.mp4,,\n'
        "Ein Hund läuft,c.mp4,,\n",
    )
    rows = [
        {"video": "a.mp4", "caption": "a dog, running", "start": 0.5, "split": "val"},
        {"video": "b.mp4", "caption": "said in\ntwo lines", "start": None},
        {"video": "c.mp4", "caption": "Ein Hund läuft", "split": ""},
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    in_json = folder(tmp_path / "jsonl", text, "captions.jsonl")

    def told(source):
        return [(c.clip_id, c.captions, c.start, c.end, c.split) for c in read_folder(source)]

    assert told(in_csv) == told(in_json)
    assert told(in_csv)[1][1] == ("said in\ntwo lines",)


def test_spreadsheets_and_windows(tmp_path):
    source = folder(tmp_path, "video,caption\r\na.mp4,a dog\r\n", encoding="utf-8-sig")
    assert [clip.captions for clip in read_folder(source)] == [("a dog",)]


@pytest.mark.parametrize("caption", ["狗在跑", "собака бежит", "कुत्ता", "7", "¡sí!"])
def test_letters_of_any_script(tmp_path, caption):
    source = folder(tmp_path, f"video,caption\na.mp4,{caption}\n")
    assert read_folder(source)[0].captions == (caption,)


CSV_FAULTS = {
    "no caption column": ("video,text\na.mp4,x\n", "no column 'caption' in line 1"),
    "column twice": ("video,caption,caption\na.mp4,x,y\n", "column 'caption' is there twice"),
    "empty file": ("", "no header in line 1"),
    "header only": ("video,caption\n", "no captions in it"),
    "no video": ("video,caption\n,x\n", "line 2: no video"),
    "no caption": ("video,caption\na.mp4,\n", "line 2: no caption"),
    "unquoted comma": ("video,caption\na.mp4,a dog, running\n", "line 2: 3 cells where .* has 2"),
    "open quote": ('video,caption\na.mp4,x\nb.mp4,"a dog\nc.mp4,z\n', "line 3: not CSV"),
    "start after end": ("video,caption,start,end\na.mp4,x,3,2\n", "line 2: start 3 is not before"),
    "start is end": ("video,caption,start,end\na.mp4,x,2,2\n", "line 2: start 2 is not before"),
    "end at 0": ("video,caption,end\na.mp4,x,0\n", "line 2: start 0 is not before end 0"),
    "negative": ("video,caption,start\na.mp4,x,-1\n", "line 2: start '-1': give seconds, 0 or"),
    "not a number": ("video,caption,start\na.mp4,x,now\n", "line 2: start 'now' is not a number"),
    "infinite": ("video,caption,end\na.mp4,x,inf\n", "line 2: end 'inf': give seconds"),
    "two splits": (
        "video,caption,split\na.mp4,x,train\na.mp4,y,test\n",
        "line 3: 'a.mp4' is in split 'test' here and in 'train' in line 2",
    ),
    "bad split": ("video,caption,split\na.mp4,x,../up\n", "line 2: split '../up'"),
    "split all": ("video,caption,split\na.mp4,x,all\n", "line 2: split 'all'"),
    "upwards": ("video,caption\n../a.mp4,x\n", "line 2: video '../a.mp4' leads outside"),
    "upwards within": ("video,caption\nb/../../a.mp4,x\n", "line 2: .* leads outside"),
    "absolute": ("video,caption\n/etc/passwd,x\n", "line 2: video '/etc/passwd' leads outside"),
    "the folder": ("video,caption\n.,x\n", "line 2: video '.' leads outside"),
    "zero byte": ("video,caption\na\0.mp4,x\n", "line 2: .* control character"),
    "two-line name": ('video,caption\n"a\nb",x\n', "line 2: .* control character"),
    "two-line column": ('video,"cap\ntion"\na.mp4,x\n', "no column 'caption'"),
    "more": ("video,caption\na.mp4,\nc.mp4,x\n,y\n", r"line 2: .* \(and 1 more bad rows\)"),
    "captions alone": ("video,caption\na.mp4,!\nb.mp4,?\n", r"line 2: .* \(and 1 more bad rows\)"),
}
JSON_FAULTS = {
    "not JSON": ('{"video": "a.mp4"\n', "line 1: not JSON"),
    "not an object": ('["a.mp4", "x"]\n', "line 1: not an object"),
    "nested": ("[" * 100_000 + "\n", "line 1: not JSON"),
    "empty file": ("", "no captions in it"),
    "caption list": ('{"video": "a.mp4", "caption": ["x"]}\n', "line 1: caption .* is not a text"),
    "start true": ('{"video": "a", "caption": "x", "start": true}\n', "start True is not a number"),
    "start list": ('{"video": "a", "caption": "x", "start": []}\n', "is not a number"),
    "end huge": ('{"video": "a", "caption": "x", "end": 1' + "0" * 400 + "}\n", "not a number"),
    "half a character": ('{"video": "a", "caption": "x\\ud83d"}\n', "holds half a character"),
}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [("captions.csv", *fault) for fault in CSV_FAULTS.values()]
    + [("captions.jsonl", *fault) for fault in JSON_FAULTS.values()],
    ids=[*(f"csv {name}" for name in CSV_FAULTS), *(f"jsonl {name}" for name in JSON_FAULTS)],
)
def test_mistakes_are_one_line(tmp_path, name, text, message):
    with pytest.raises(UserError, match=message) as error:
        read_folder(folder(tmp_path, text, name))
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_not_utf8(tmp_path):
    source = folder(tmp_path, "video,caption\na.mp4,x\nb.mp4,läuft\n", encoding="latin-1")
    with pytest.raises(UserError, match=r"captions\.csv line 3: not UTF-8"):
        read_folder(source)


def test_links_lead_out_too(tmp_path):
    (tmp_path / "secret.mp4").write_bytes(b"x")
    inside = tmp_path / "folder"
    inside.mkdir()
    (inside / "real.mp4").write_bytes(b"x")
    (inside / "good.mp4").symlink_to("real.mp4")
    (inside / "bad.mp4").symlink_to("../secret.mp4")
    assert len(read_folder(folder(inside, "video,caption\ngood.mp4,x\n"))) == 1
    with pytest.raises(UserError, match=r"bad\.mp4 is a link out of .*--follow_links"):
        read_folder(folder(inside, "video,caption\nbad.mp4,x\n"))


def test_one_caption_file(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no captions\.csv or captions\.jsonl"):
        read_folder(tmp_path)
    folder(tmp_path, "video,caption\na.mp4,x\n")
    folder(tmp_path, '{"video": "a.mp4", "caption": "x"}\n', "captions.jsonl")
    with pytest.raises(UserError, match=r"both captions\.csv and captions\.jsonl"):
        read_folder(tmp_path)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), name=st.sampled_from(["captions.csv", "captions.jsonl"]))
def test_any_bytes_give_clips_or_one_line(tmp_path_factory, data, name):
    source = tmp_path_factory.mktemp("any")
    for prefix in (b"", b"video,caption,start\na.mp4,x,1\n", b'{"video": "a", "caption": "x"}\n'):
        (source / name).write_bytes(prefix + data)
        try:
            told = read_folder(source)
        except UserError as error:
            told = str(error)
        assert told
        assert "\n" not in told


def test_readers_are_named():
    assert READERS["folder"] is read_folder
