"""An index in a bucket: written whole or not at all, read on another machine, by one writer."""

import contextlib
import dataclasses
import pathlib
import re
import shutil

import pyarrow.parquet as pq
import pytest

import glscl_jax.search
from glscl_jax.errors import UserError
from glscl_jax.runtime import bucket as buckets
from glscl_jax.runtime import mirror
from glscl_jax.search import bucket_folder, index_run, location
from glscl_jax.search.bucket_states import State, States, TakenError
from glscl_jax.search.exported_features import export_features
from glscl_jax.search.indexer import index_videos
from glscl_jax.search.store import Store
from tests import bucket_servers
from tests.runtime.memory_bucket import Service
from tests.search.conftest import CUT, write_video

pytestmark = pytest.mark.usefixtures("lance")
HOW = CUT | {"batch_size": 2}
ADDRESS = "s3://bucket/deep/index"
ALL = [("a.mp4", float(n)) for n in range(4)] + [("b.mp4", 0.0), ("b.mp4", 1.0)]


class Killed(BaseException):
    """What no `except` of the program takes."""


@pytest.fixture
def folder(tmp_path):
    """Two videos, 4 and 2 windows."""
    path = tmp_path / "videos"
    path.mkdir()
    write_video(path / "a.mp4", 0)
    write_video(path / "b.mp4", 1, seconds=3.0)
    (path / "metadata.csv").write_text("video,year\na.mp4,2024\nb.mp4,1999\n")
    return path


@pytest.fixture
def service(monkeypatch, tmp_path):
    """A bucket in memory that every address is in."""
    found = Service()
    found.files.store.clear()
    monkeypatch.setattr(buckets, "_client", lambda scheme, called: found)
    monkeypatch.setattr(mirror, "PATIENCE", 0.0)
    monkeypatch.setattr(bucket_folder, "FRESH", -1.0)
    bucket_servers.elsewhere(monkeypatch, tmp_path / "here")
    return found


def windows(address=ADDRESS):
    """(video, start) of all windows, by a reader that has just come."""
    if States(address, "--index").newest() is None:
        with pytest.raises(UserError, match="nothing is there"):
            location.to_read(address)
        return []
    place = location.to_read(address)
    snapshot = Store.open(place.path).snapshot()
    for array in snapshot.arrays.values():
        assert len(array) >= len(snapshot.rows)
    table = snapshot.table
    return list(zip(table["video"].to_pylist(), table["start"].to_pylist(), strict=True))


def asked(index, **how):
    answer = index.query("a red circle", top=6, **how)
    return [(hit.video, hit.start, hit.time, round(hit.score, 5)) for hit in answer.hits]


def at(monkeypatch, tmp_path, machine):
    bucket_servers.elsewhere(monkeypatch, tmp_path / machine)


def lived_through(address, folder, checkpoint, tmp_path, monkeypatch):
    """Indexed, asked on another machine, changed, asked again, exported."""
    index_videos(tmp_path / "index", videos=folder, checkpoint=checkpoint, **HOW)
    local = glscl_jax.search.open(tmp_path / "index")
    report = index_videos(address, videos=folder, checkpoint=checkpoint, neighbours=True, **HOW)
    assert (report.added, report.windows, report.failed) == (6, 6, [])
    at(monkeypatch, tmp_path, "other")
    index = glscl_jax.search.open(address)
    assert asked(index) == asked(local)
    assert asked(index, where="year = 1999") == asked(local, where="year = 1999")
    assert asked(index, candidates=3, proof="complete")[:2] == asked(local)[:2]
    at(monkeypatch, tmp_path, "third")
    (folder / "b.mp4").unlink()
    (folder / "bad.mp4").write_bytes(b"no video")
    write_video(folder / "c.mp4", 2, seconds=1.0)
    report = index_videos(address, **HOW)
    assert (report.added, report.removed, report.windows) == (1, 2, 5)
    index_videos(tmp_path / "index", **HOW)
    assert asked(index) == asked(local)
    assert len(index) == 5
    assert export_features(address, tmp_path / "x.parquet") == 5
    assert pq.read_table(tmp_path / "x.parquet")["video"].to_pylist() == ["a.mp4"] * 4 + ["c.mp4"]
    assert b"bad.mp4" in buckets.Bucket(address, "").read("failed.csv")


def test_it_is_written_here_and_asked_there(service, folder, checkpoint, tmp_path, monkeypatch):
    lived_through(ADDRESS, folder, checkpoint, tmp_path, monkeypatch)


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_of_a_server(scheme, folder, checkpoint, tmp_path, monkeypatch, forks):
    monkeypatch.setattr(bucket_folder, "FRESH", -1.0)
    with bucket_servers.made(scheme, monkeypatch, tmp_path / "here") as place:
        address = f"{place.address}/deep/index"
        lived_through(address, folder, checkpoint, tmp_path, monkeypatch)
        there = place.environment | {"TMPDIR": str(tmp_path)}
        ask = ("glscl_jax.search", "query", f"--index={address}", "--top=2", "a dog")
        (done,) = forks.together(ask, environments=[there])
        assert f"fetching {address} (0.00 GiB)" in done.stderr
        assert re.search(r"of 5 windows|5 windows", done.stdout)
        with pytest.raises(UserError, match="none: nothing is there: make it with python -m"):
            glscl_jax.search.open(f"{place.address}/none")


@pytest.mark.parametrize("merged", [2, 64])
def test_killed_at_any_moment_it_is_whole_and_goes_on(
    service, folder, checkpoint, tmp_path, monkeypatch, merged
):
    monkeypatch.setattr(bucket_folder, "MERGED", merged)
    number, seen = 0, set()
    while True:
        service.files.store.clear()
        service.asked.clear()
        number += 1

        def killed(count):
            if count >= number:  # noqa: B023
                raise Killed

        service.fails = killed
        at(monkeypatch, tmp_path, f"{merged}-{number}")
        ended = False
        with contextlib.suppress(Killed):
            index_videos(ADDRESS, videos=folder, checkpoint=checkpoint, **HOW)
            ended = True
        service.fails = None
        there = windows()
        assert there == ALL[: len(there)]
        assert len(there) % 2 == 0
        seen.add(len(there))
        # Every other time on another machine.
        at(monkeypatch, tmp_path, f"{merged}-{number - number % 2}")
        index_videos(ADDRESS, videos=folder, checkpoint=checkpoint, **HOW)
        assert windows() == ALL
        if ended:
            break
        number += number // 4
    assert seen == {0, 2, 4, 6}


def test_nothing_is_fetched_or_kept_twice(service, folder, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(bucket_folder, "MERGED", 3)
    index_videos(ADDRESS, videos=folder, checkpoint=checkpoint, **HOW | {"batch_size": 1})
    # What a batch left behind goes while the next ones come.
    kept = {name[:12] for name in buckets.Bucket(f"{ADDRESS}/objects", "").objects()}
    assert f"{2:012}" not in kept
    at(monkeypatch, tmp_path, "other")
    assert windows() == ALL
    first = service.count("get_file")
    assert windows() == ALL
    assert service.count("get_file") == first
    write_video(folder / "c.mp4", 2, seconds=1.0)
    at(monkeypatch, tmp_path, "here")
    index_videos(ADDRESS, **HOW)
    at(monkeypatch, tmp_path, "other")
    assert windows() == [*ALL, ("c.mp4", 0.0)]
    rows = [x for name, x, *_ in service.asked if name == "get_file" and "/features/0" in x]
    # The six windows in one object, and the seventh.
    assert len(rows) == len(set(rows)) == 2
    # What no state has any more is gone but for what the last one dropped.
    state = States(ADDRESS, "--index").newest()
    there = {f"objects/{x}" for x in buckets.Bucket(f"{ADDRESS}/objects", "").objects()}
    assert state.objects <= there
    index_videos(ADDRESS, only="a*", **HOW)
    left = {f"objects/{x}" for x in buckets.Bucket(f"{ADDRESS}/objects", "").objects()}
    assert not (there - state.objects) & left
    assert len(buckets.Bucket(f"{ADDRESS}/states", "").objects()) == 2


def test_of_two_writers_one_is_told(service, folder, checkpoint, tmp_path, monkeypatch):
    usual, once = index_run.IndexRun._add, []

    def interrupted(self, batch):
        usual(self, batch)
        if not once:
            once.append(True)
            at(monkeypatch, tmp_path, "other")
            index_videos(ADDRESS, videos=folder, checkpoint=checkpoint, **HOW)

    monkeypatch.setattr(index_run.IndexRun, "_add", interrupted)
    told = f"--index {ADDRESS}: another process is indexing there: what this one had stored before"
    with pytest.raises(UserError, match=re.escape(told)):
        index_videos(ADDRESS, videos=folder, checkpoint=checkpoint, **HOW)
    assert windows() == ALL
    at(monkeypatch, tmp_path, "here")
    assert index_videos(ADDRESS, **HOW).unchanged == 2
    assert windows() == ALL


def test_one_process_of_a_machine_writes(service, folder, checkpoint):
    with (
        location.of(ADDRESS).written(),
        pytest.raises(UserError, match=f"--index {ADDRESS}: another process is indexing there"),
    ):
        index_videos(ADDRESS, videos=folder, checkpoint=checkpoint, **HOW)


def state(number, writer):
    return State(number, "index", writer, {}, {})


@pytest.mark.parametrize("conditions", [True, False])
def test_states_follow_each_other(service, monkeypatch, conditions):
    if not conditions:
        usual = service.files.pipe_file
        monkeypatch.setattr(service.files, "pipe_file", lambda name, x, mode="": usual(name, x))
    one, other, late = (States(ADDRESS, "--index") for _ in range(3))
    assert [x.newest() for x in (one, other, late)] == [None] * 3
    one.add(state(1, "one"))
    # As after an answer that was lost.
    one.add(state(1, "one"))
    with pytest.raises(TakenError):
        other.add(state(1, "other"))
    assert other.newest() == state(1, "one")
    for number in range(2, 6):
        other.add(state(number, "other"))
    for number in (1, 2):
        with pytest.raises(TakenError):
            [late, one][number - 1].add(state(number, "late"))
    assert late.newest() == state(5, "other")


def test_a_state_in_between_is_found_out(service):
    """Where two look at the same time, and the service lets both write."""
    one, other = (States(ADDRESS, "--index") for _ in range(2))
    assert one.newest() is other.newest() is None
    usual = buckets.Bucket.create

    def create(self, name, content):
        sent = usual(self, name, content)
        self._client.pipe_file(f"{self._root}/{name}", state(1, "other").as_bytes())
        return sent

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(buckets.Bucket, "create", create)
        with pytest.raises(TakenError):
            one.add(state(1, "one"))


def test_a_bucket_that_goes_away_is_one_line(service, folder, checkpoint):
    index_videos(ADDRESS, videos=folder, checkpoint=checkpoint, only="b*", **HOW)

    def gone(count):
        if service.asked[-1][0] == "pipe_file" and "objects" in service.asked[-1][1]:
            raise ConnectionError("no route")

    service.fails = gone
    with pytest.raises(UserError, match=r"cannot be reached .* what is in it stays: run the same"):
        index_videos(ADDRESS, only="*", **HOW)
    service.fails = None
    assert windows() == ALL[4:]


def test_another_index_in_its_place(service, folder, checkpoint, tmp_path, monkeypatch):
    index_videos(ADDRESS, videos=folder, checkpoint=checkpoint, only="b*", **HOW)
    index = glscl_jax.search.open(ADDRESS)
    assert {video for video, *_ in asked(index)} == {"b.mp4"}
    service.files.store.clear()
    at(monkeypatch, tmp_path, "other")
    index_videos(ADDRESS, videos=folder, checkpoint=checkpoint, only="a*", **HOW)
    at(monkeypatch, tmp_path, "here")
    with pytest.raises(UserError, match=f"{ADDRESS}: another index is there now: start again"):
        index.query("a red circle")
    del index
    assert windows() == ALL[:4]


def test_a_damaged_object_is_told(service, folder, checkpoint):
    index_videos(ADDRESS, videos=folder, checkpoint=checkpoint, **HOW)
    found = States(ADDRESS, "--index").newest()
    (rows,) = found.segments.values()
    name = f"{ADDRESS.removeprefix('s3://')}/{rows[1].name}"
    service.files.pipe_file(name, b"short")
    with pytest.raises(UserError, match=f"{rows[1].name} is damaged: 5 bytes of {rows[1].size}"):
        location.to_read(ADDRESS)
    wrong = dataclasses.replace(found, number=found.number + 1, files={"index.json": 3})
    States(ADDRESS, "--index").newest()
    there = f"{ADDRESS.removeprefix('s3://')}/states/{found.number + 1:012}.json"
    service.files.pipe_file(there, wrong.as_bytes())
    with pytest.raises(UserError, match=r"states/0.*json is damaged"):
        location.to_read(ADDRESS)


def test_a_disk_without_room(service, folder, checkpoint, monkeypatch, tmp_path):
    index_videos(ADDRESS, videos=folder, checkpoint=checkpoint, **HOW)
    at(monkeypatch, tmp_path, "other")
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=f"{ADDRESS}: .* are to be fetched, and .* set TMPDIR to a"):
        location.to_read(ADDRESS)
    assert not list(pathlib.Path(tmp_path / "other").rglob("*.bin"))


def test_videos_are_files_of_this_machine(service, checkpoint, tmp_path):
    told = "--videos s3://b/videos: s3:// is not supported here, only a file system is: mount it"
    for index in (tmp_path / "index", ADDRESS):
        with pytest.raises(UserError, match=told):
            index_videos(index, videos="s3://b/videos", checkpoint=checkpoint)
    assert not (tmp_path / "index").exists()
    assert not service.files.find("bucket")


def test_what_is_missing_of_a_copy_is_fetched_again(service, folder, checkpoint):
    index_videos(ADDRESS, videos=folder, checkpoint=checkpoint, **HOW)
    assert windows() == ALL
    copy = location.to_read(ADDRESS).path
    shutil.rmtree(copy / "1" / "features")
    (copy / "index.json").unlink()
    assert windows() == ALL
    assert len(Store.open(copy).snapshot().arrays["times"]) == 6


def test_what_was_not_sent_is_forgotten(service, folder, checkpoint, tmp_path, monkeypatch):
    usual, count = bucket_folder.BucketFolder.commit, []

    def killed(self, store):
        count.append(True)
        if len(count) == 3:
            raise Killed
        usual(self, store)

    monkeypatch.setattr(bucket_folder.BucketFolder, "commit", killed)
    with pytest.raises(Killed):
        index_videos(ADDRESS, videos=folder, checkpoint=checkpoint, **HOW)
    write_video(folder / "c.mp4", 2, seconds=1.0)
    at(monkeypatch, tmp_path, "other")
    index_videos(ADDRESS, only="c*", **HOW)
    newest = States(ADDRESS, "--index").newest()
    at(monkeypatch, tmp_path, "here")
    assert index_videos(ADDRESS, **HOW).windows == 1
    assert windows() == [("c.mp4", 0.0)]
    assert States(ADDRESS, "--index").newest() == newest
