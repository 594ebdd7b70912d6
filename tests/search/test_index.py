"""Indexing and asking: what is there is found, whatever came, changed, went or was killed."""

import json
import os
import shutil
import signal
import time
from concurrent import futures
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

import glscl_jax.search
from glscl_jax.errors import UserError
from glscl_jax.retrieval.score_blocks import score_in_blocks
from glscl_jax.runtime import lock
from glscl_jax.search import query_program
from glscl_jax.search.indexer import index_videos
from glscl_jax.search.store import Store
from tests.conftest import one_line_error
from tests.search.conftest import CUT, write_checkpoint, write_video

pytestmark = pytest.mark.usefixtures("lance")
HOW = CUT | {"batch_size": 2}
SEARCH = "glscl_jax.search"


@pytest.fixture(scope="module")
def made(checkpoint, tmp_path_factory, lance):
    """An index of two videos, 4 and 2 windows, and a file that is none."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "videos").mkdir()
    write_video(folder / "videos" / "a.mp4", 0)
    write_video(folder / "videos" / "b.mp4", 1, seconds=3.0)
    (folder / "videos" / "bad.mp4").write_bytes(b"no video")
    (folder / "videos" / "metadata.csv").write_text("video,year\na.mp4,2024\nb.mp4,1999\nx,1\n")
    index_videos(folder / "index", videos=folder / "videos", checkpoint=checkpoint, **HOW)
    return folder


@pytest.fixture(scope="module")
def index(made):
    return glscl_jax.search.open(made / "index")


@pytest.fixture
def copy(made, tmp_path):
    """The same, to change."""
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


def windows(folder):
    """(video, start) of all windows, in order of their rows."""
    table = Store.open(folder).snapshot().table
    return list(zip(table["video"].to_pylist(), table["start"].to_pylist(), strict=True))


A, B = [("a.mp4", float(n)) for n in range(4)], [("b.mp4", 0.0), ("b.mp4", 1.0)]


def test_what_is_indexed(made, index):
    assert windows(made / "index") == A + B
    assert len(index) == 6
    failed = (made / "index" / "failed.csv").read_text().splitlines()
    assert failed[0] == "video,start,reason"
    assert len(failed) == 2
    assert failed[1].startswith("bad.mp4,,not a video")


def test_the_order_is_the_model_s(made, index):
    answer = index.query("a red circle", top=6)
    model = index.model
    # As evaluation would: clips cut by start and end are what windows are (test_windows).
    video = Store.open(made / "index").snapshot().arrays
    kind = model.head.video_features
    names = ("frames", "mask", "queries")
    features = kind(**{name: np.asarray(video[f"features.{name}"]) for name in names})
    text = model.encode_captions("a red circle")
    scores = score_in_blocks(text, features, head=model.head)[0]
    assert [hit.row for hit in answer.hits] == np.argsort(-scores, kind="stable").tolist()
    np.testing.assert_allclose([hit.score for hit in answer.hits], np.sort(scores)[::-1], atol=1e-6)
    assert (answer.searched, answer.scored, answer.exact) == (6, 6, True)


def test_a_hit_tells_when(index):
    hit = index.query("a red circle", top=1).hits[0]
    assert hit.start <= hit.time <= hit.end
    assert len(hit.times) == len(hit.weights) == 4
    assert hit.time == hit.times[int(np.argmax(hit.weights))]
    assert sum(hit.weights) == pytest.approx(1, abs=1e-4)
    assert hit.metadata == {"year": 2024 if hit.video == "a.mp4" else 1999}
    assert json.loads(json.dumps(hit.as_json()))["rank"] == 1


def test_filters(index):
    found = index.query("green", where="year < 2000 and start >= 1")
    assert [(hit.video, hit.start) for hit in found.hits] == [("b.mp4", 1.0)]
    assert index.query("green", where="year = 7").hits == []
    for wrong in ("yeer > 3", "year >", "1", "drop table windows", "year = 'a'"):
        with pytest.raises(UserError, match=r"is no filter .*columns are video, start, end"):
            index.query("green", where=wrong)


def test_a_filter_whose_rows_are_numbered_anew_meanwhile_is_asked_again(copy, monkeypatch):
    """Another process has left holes behind, and another question has seen that, in between."""
    from glscl_jax.search import store

    monkeypatch.setattr(store, "_HOLES", 2)
    index, where = glscl_jax.search.open(copy / "index"), Store.where
    expected = index.query("green", where="year = 1999").hits
    videos = [copy / "videos" / "a.mp4"]

    def late(self, *asked):
        if videos:
            videos.pop().unlink()
            index_videos(copy / "index", videos=copy / "videos", **HOW)
            index.query("green")
        return where(self, *asked)

    monkeypatch.setattr(Store, "where", late)
    found = index.query("green", where="year = 1999").hits
    assert [(hit.video, hit.start) for hit in found] == [(hit.video, hit.start) for hit in expected]
    assert not videos


def test_videos_and_pictures_as_queries(made, index, tmp_path):
    # A window is most like itself.
    assert index.query_row(2, top=1).query == "a.mp4 2 s"
    found = index.query_file(made / "videos" / "b.mp4", top=6)
    assert len(found.hits) == 6
    from PIL import Image

    picture = tmp_path / "one.png"
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(picture)
    assert len(index.query_file(picture).hits) == 6
    scores = index.rank_sentences(picture, ["a dog", "a cat", "green"])
    assert scores.shape == (3,)
    with pytest.raises(UserError, match="there is no window 99"):
        index.query_row(99)
    with pytest.raises(UserError, match=r"bad.mp4: not a video"):
        index.query_file(made / "videos" / "bad.mp4")


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"top": 0}, "--top is 0: give a whole number, 1 to 1000"),
        ({"candidates": 0}, "--candidates is 0"),
        ({"proof": "some"}, "--proof is 'some': give one of none, check, complete"),
        ({"candidates": 1}, "--candidates: the index has no neighbours"),
    ],
)
def test_what_cannot_be_asked(index, how, told):
    with pytest.raises(UserError, match=told):
        index.query("green", **how)


def test_what_came_changed_and_went(copy, checkpoint):
    folder, videos = copy / "index", copy / "videos"
    how = HOW | {"videos": videos}
    index = glscl_jax.search.open(folder)
    assert len(index) == 6
    # The copy has other times, and the same bytes: nothing is read again.
    report = index_videos(folder, **how)
    assert (report.added, report.removed, report.unchanged) == (0, 0, 2)
    (videos / "a.mp4").unlink()
    write_video(videos / "b.mp4", 5, seconds=4.0)
    write_video(videos / "c.mp4", 6, seconds=1.0)
    (videos / "bad.mp4").unlink()
    (videos / "metadata.csv").write_text("video,place\nc.mp4,Bern\n")
    report = index_videos(folder, **how)
    assert (report.added, report.removed, report.windows, report.videos) == (4, 6, 4, 2)
    assert windows(folder) == [("b.mp4", 0.0), ("b.mp4", 1.0), ("b.mp4", 2.0), ("c.mp4", 0.0)]
    assert not (folder / "failed.csv").exists()
    # Who had it open sees it; numbers of rows are not given again.
    assert sorted(hit.row for hit in index.query("green").hits) == [6, 7, 8, 9]
    (hit,) = index.query("green", where="place = 'Bern'").hits
    assert (hit.video, hit.metadata) == ("c.mp4", {"place": "Bern"})


def test_holes_are_left_behind(copy, monkeypatch):
    from glscl_jax.search import store

    monkeypatch.setattr(store, "_HOLES", 2)
    index = glscl_jax.search.open(copy / "index")
    before = {(h.video, h.start): h.score for h in index.query("green").hits}
    (copy / "videos" / "a.mp4").unlink()
    index_videos(copy / "index", videos=copy / "videos", **HOW)
    assert Store.open(copy / "index").snapshot().rows.tolist() == [0, 1]
    for one in (index, glscl_jax.search.open(copy / "index")):
        after = {(h.video, h.start): h.score for h in one.query("green").hits}
        assert after.keys() == set(B)
        for key, score in after.items():
            assert score == pytest.approx(before[key], abs=1e-6)
    index_videos(copy / "index")
    assert not (copy / "index" / "1").exists()
    assert len(index) == 2


def test_killed_at_any_moment_it_goes_on(forks, made, checkpoint, tmp_path):
    folder = tmp_path / "index"
    args = [f"--index={folder}", f"--videos={made / 'videos'}", f"--checkpoint={checkpoint}"]
    args += ["--window=2", "--stride=1", "--batch_size=1"]
    started = forks.start(SEARCH, "index", *args)
    rows = folder / "1" / "features" / "times.bin"
    deadline = time.monotonic() + 120
    while not (rows.exists() and rows.stat().st_size >= 2 * 16):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    started.send_signal(signal.SIGKILL)
    started.wait()
    kept = windows(folder)
    assert 1 <= len(kept) < 6
    # As if it had been killed between the features and the rows that name them.
    with rows.open("ab") as file:
        file.write(bytes(20))
    # Flags that are left out are as they were.
    report = index_videos(folder, batch_size=1)
    assert report.added == 6 - len(kept)
    assert sorted(windows(folder)) == A + B
    whole = {
        (h.video, h.start): h for h in glscl_jax.search.open(made / "index").query("green").hits
    }
    for hit in glscl_jax.search.open(folder).query("green").hits:
        assert hit.score == pytest.approx(whole[hit.video, hit.start].score, abs=1e-5)
        assert hit.times == whole[hit.video, hit.start].times


def test_a_query_while_another_adds(made, checkpoint, tmp_path):
    """Each answer is of what was there whole at one time: every row has its own features."""
    whole = {
        (h.video, h.start): h.score
        for h in glscl_jax.search.open(made / "index").query("green").hits
    }
    folder = tmp_path / "index"
    how = HOW | {"videos": made / "videos", "checkpoint": checkpoint, "batch_size": 1}
    index_videos(folder, **(how | {"only": "b.mp4"}))
    index = glscl_jax.search.open(folder)
    counts = [index.query("green").searched]
    with futures.ThreadPoolExecutor(1) as pool:
        adding = pool.submit(index_videos, folder, **how, only="*")
        while not adding.done():
            found = index.query("green")
            counts.append(found.searched)
            for hit in found.hits:
                assert hit.score == pytest.approx(whole[hit.video, hit.start], abs=1e-5)
        adding.result()
    assert counts == sorted(counts)
    assert (counts[0], index.query("green").searched) == (2, 6)


def test_another_checkpoint_is_refused(made, copy, tmp_path):
    other = write_checkpoint(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match=r"is of another checkpoint than .*other \(parameters '"):
        glscl_jax.search.open(made / "index", checkpoint=other)
    with pytest.raises(UserError, match=r"was made with other things \(parameters '"):
        index_videos(copy / "index", checkpoint=other, **HOW)
    with pytest.raises(UserError, match=r"other things \(reading.cut.window 2.0, now 3.0\)"):
        index_videos(copy / "index", **(HOW | {"window": 3.0}))
    with pytest.raises(UserError, match=r"its checkpoint: .*nowhere"):
        glscl_jax.search.open(made / "index", checkpoint=tmp_path / "nowhere")


def test_what_an_index_remembers(copy):
    folder = copy / "index"
    told = {"only": "b*", "metadata": copy / "more.csv", "neighbours": True}
    (copy / "more.csv").write_text("video,colour\nb.mp4,red\n")
    assert index_videos(folder, videos=copy / "videos", **told).windows == 2
    for _ in range(2):
        index = glscl_jax.search.open(folder)
        found = index.query("green", where="colour = 'red'", candidates=1, top=1, proof="complete")
        assert (found.searched, found.exact) == (2, True)
        assert index_videos(folder).windows == 2
    assert index_videos(folder, only="*").windows == 6
    assert index_videos(folder, window=2.0, stride=1.0).added == 0
    with pytest.raises(UserError, match=r"reading.cut.stride 1.0, now 2.0"):
        index_videos(folder, window=4.0)


def test_damage_is_told(copy, tmp_path):
    folder = copy / "index"
    bin_file = folder / "1" / "features" / "features.frames.bin"
    whole = bin_file.read_bytes()
    bin_file.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"frames.bin is damaged \(5 rows of 6\): index into"):
        glscl_jax.search.open(folder).query("green")
    bin_file.write_bytes(whole)
    about = (folder / "index.json").read_text()
    (folder / "index.json").write_text(about[:30])
    with pytest.raises(UserError, match=r"index.json is damaged"):
        glscl_jax.search.open(folder)
    (folder / "index.json").write_text(about.replace('"format": 1', '"format": 9'))
    with pytest.raises(UserError, match="is of format 9, this release reads 1"):
        glscl_jax.search.open(folder)
    (folder / "index.json").write_text(about)
    shutil.rmtree(folder / "1" / "windows.lance")
    with pytest.raises(UserError, match="its table of windows is gone"):
        glscl_jax.search.open(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"no index.json in it: make it with"):
        glscl_jax.search.open(tmp_path / "other")
    with pytest.raises(UserError, match=r"holds something else \(notes.txt\): give an empty"):
        Store.create(tmp_path / "other", {"videos": "", "checkpoint": "", "made_of": {}})
    with pytest.raises(UserError, match="no such folder: make it with python -m"):
        glscl_jax.search.open(tmp_path / "nowhere")


def test_a_full_disk_leaves_what_is_there(copy, monkeypatch):
    write_video(copy / "videos" / "new.mp4", 3, seconds=1.0)

    def full(*_):
        raise OSError(28, os.strerror(28))

    told = r"cannot be written \(No space left on device\): what is"
    # Of features alone, and of whatever is written.
    for where in ("glscl_jax.search.feature_files.os", "os.fsync"):
        with monkeypatch.context() as patched:
            patched.setattr(where, SimpleNamespace(fsync=full) if where[-3:] == ".os" else full)
            with pytest.raises(UserError, match=told):
                index_videos(copy / "index", videos=copy / "videos", **HOW)
    assert windows(copy / "index") == A + B
    assert index_videos(copy / "index", **HOW).added == 1


def test_two_writers(copy):
    taken = lock.claimed(copy / "index", ".lock", "other", "other")
    with taken, pytest.raises(UserError, match="another process is indexing there: wait"):
        index_videos(copy / "index", videos=copy / "videos", **HOW)


def test_a_row_that_is_not_whole_is_not_asked_for(made):
    snapshot = Store.open(made / "index").snapshot()
    assert isinstance(snapshot.table, pa.Table)
    assert [one["video"] for one in snapshot.records([4, 0])] == ["b.mp4", "a.mp4"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["query", "--index=nowhere", "a dog"], "nowhere: no such folder"),
        (["query", "--index=nowhere", "..."], "the sentence is empty"),
        (["query", "--index=nowhere"], "give one of a sentence, --sentences and --like, not none"),
        (["query", "a dog"], "--index is missing"),
        (["query", "--index=x", "--captions=y", "a dog"], "--captions ranks sentences by a video"),
        (["index", "--index=x", "--videos=nowhere", "--checkpoint=y"], "nowhere: no such folder"),
        (["index", "--index=x"], "--videos is missing"),
        (["index", "--index=x", "--videos=README.md", "--checkpoint=y"], "README.md: a file: name"),
        (["query", "--index=README.md", "a dog"], "README.md: a file, and no folder"),
        (["query", "--index=x", "--top=-3", "--like=y", "--captions=z"], "--top is -3: give a"),
        (["query", "--index=x", "--like=y", "--captions=z", "--where=a"], "--where says nothing"),
        (["query", "--index=x", "a dog", "--proof=none"], "--proof is of --candidates"),
        (["serve", "--index=x", "--host=0.0.0.0"], "add --expose_videos"),
        (["serve", "--index=x", "--host=here"], "--host here is no address"),
        (["serve", "--index=nowhere", "--port=0"], "nowhere: no such folder"),
        (["search"], "give index, query, serve or export first, 'search' is none"),
    ],
)
def test_what_is_wrong_with_a_command_is_a_line(forks, args, told, tmp_path):
    assert told in one_line_error(forks(SEARCH, *args, check=False))


def test_a_query_is_printed(forks, made):
    args = ["query", f"--index={made / 'index'}", "--top=2", "a", "red", "circle"]
    printed = forks(SEARCH, *args).stdout.splitlines()
    assert printed[0] == "a red circle (the best of 6 windows, all of them scored)"
    assert len(printed) == 3
    assert "s, most at " in printed[1]


def test_sentences_of_a_file(made, tmp_path, capsys, monkeypatch):
    asked = tmp_path / "asked.txt"
    asked.write_text("a red circle\n\ngreen\n")
    values = {"index": str(made / "index"), "top": 10, "proof": "check", "sentences": str(asked)}

    def run(*words, **given):
        names = ("checkpoint", "where", "json", "like", "captions", "candidates", "sentences")
        told = dict.fromkeys(names) | values | given
        flags = {
            name: SimpleNamespace(value=value, present=name in given)
            for name, value in told.items()
        }
        monkeypatch.setattr(query_program.flags, "FLAGS", flags)
        query_program.main(["query", *words])
        return capsys.readouterr().out

    several = json.loads(run(json=True))
    assert [one["query"] for one in several] == ["a red circle", "green"]
    assert len(several[0]["hits"]) == 6
    video = str(made / "videos" / "a.mp4")
    ranked = run(sentences=None, like=video, captions=str(asked)).splitlines()
    assert ranked[0] == video
    assert {line[15:] for line in ranked[1:]} == {"a red circle", "green"}
    assert json.loads(run("green", sentences=None, json=True))["query"] == "green"
    assert "no window is left" in run("green", sentences=None, where="year = 7")


def test_an_index_that_was_empty_is_asked_once_it_is_not(made, checkpoint, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "bad.mp4").write_bytes(b"no video")
    index_videos(tmp_path / "index", videos=videos, checkpoint=checkpoint, **HOW)
    index = glscl_jax.search.open(tmp_path / "index")
    assert index.query("a red circle").hits == []
    shutil.copy(made / "videos" / "b.mp4", videos)
    index_videos(tmp_path / "index", **HOW)
    assert [hit.video for hit in index.query("a red circle").hits] == ["b.mp4"] * 2
