"""Local folders in place of a bucket's: whole whenever a process is killed, and fetched once."""

import uuid

import pytest

from glscl_jax.errors import UserError
from glscl_jax.runtime import bucket_copy, mirror
from glscl_jax.runtime.bucket import Bucket
from tests.runtime.memory_bucket import STEPS, Service, mirrored, read, step, write


def data(number: int) -> dict[str, str]:
    """A data set of fewer files the larger the number."""
    files = {f"clips/x/{n}": f"{n} {number}" for n in range(12 - number)}
    return {**files, "clips/x/info.json": str(number)}


def test_what_is_written_is_there_on_another_machine(bucket, tmp_path):
    files = {"config.json": "{}", "tokenizer/x": "ids", "metrics.jsonl": "1\n", **step(2)}
    one = mirrored(bucket, tmp_path / "one")
    write(tmp_path / "one", files)
    own = {".running.lock": "", "x.part": "", "checkpoints/4.orbax-checkpoint-tmp/a": ""}
    write(tmp_path / "one", own)
    one.put()
    write(tmp_path / "one", {"metrics.jsonl": "1\n2\n"})
    one.finish()
    mirrored(bucket, tmp_path / "other")
    assert read(tmp_path / "other") == files | {"metrics.jsonl": "1\n2\n"}


def test_what_a_killed_one_had_sent_of_a_checkpoint_is_not_in_the_next(bucket, service, tmp_path):
    one = mirrored(bucket, tmp_path / "one")
    write(tmp_path / "one", {"config.json": "{}", "checkpoints/2/of_the_killed": "", **step(2)})

    def killed(count):
        if service.asked[-1][1].endswith("whole"):
            raise ConnectionError("killed")

    service.fails = killed
    with pytest.raises(UserError):
        one.put()
    service.fails = None
    other = mirrored(bucket, tmp_path / "other")
    write(tmp_path / "other", step(2))
    other.finish()
    assert set(bucket.objects()) == {"config.json", *step(2)}


def test_only_what_changed_is_sent_and_fetched(bucket, service, tmp_path):
    files = {"config.json": "{}", "metrics.jsonl": "1\n", **step(2)}
    one = mirrored(bucket, tmp_path / "one")
    write(tmp_path / "one", files)
    one.put()
    one.put()
    assert service.count("pipe_file") == 1 + len(files)
    write(tmp_path / "one", {"metrics.jsonl": "1\n2\n"})
    one.finish()
    assert service.count("pipe_file") == 2 + len(files)
    mirrored(bucket, tmp_path / "one")  # As it was sent from here.
    assert service.count("get_file") == 0
    mirrored(bucket, tmp_path / "other")
    assert service.count("get_file") == len(files)
    service.files.pipe_file(f"{bucket.address[5:]}/config.json", b"{1}")
    mirrored(bucket, tmp_path / "other")
    assert service.count("get_file") == len(files) + 1
    assert read(tmp_path / "other")["config.json"] == "{1}"


def test_a_file_that_changed_here_is_fetched_anew(bucket, tmp_path):
    one = mirrored(bucket, tmp_path / "one")
    write(tmp_path / "one", {"a": "there"})
    one.finish()
    write(tmp_path / "one", {"a": "what a killed run left", "b": "more"})
    mirrored(bucket, tmp_path / "one")
    assert read(tmp_path / "one") == {"a": "there"}


def test_whatever_a_kill_leaves_is_whole(service, tmp_path, monkeypatch):
    """A run of three checkpoints that keeps two, and a data set in place of another."""
    monkeypatch.setattr(mirror, "THREADS", 1)
    one, last = mirrored(Bucket("s3://b/run", "--workdir", service), tmp_path / "one"), set()

    def look(count) -> None:
        """Is asked before every write and removal: if the process is killed just then."""
        nonlocal last
        there = Service()
        there.files = service.files
        mirrored(Bucket("s3://b/run", "--workdir", there), tmp_path / str(count))
        found = read(tmp_path / str(count))
        steps = {int(name.split("/")[1]) for name in found if name.startswith("checkpoints")}
        assert {n: x for n, x in found.items() if n.startswith("checkpoints")} == {
            name: text for number in steps for name, text in step(number).items()
        }
        # None goes before another one is there.
        assert len(steps) >= min(len(last), 2)
        last = steps
        if clips := {n: x for n, x in found.items() if n.startswith("clips")}:
            assert clips == data(int(clips["clips/x/info.json"]))

    service.fails = look
    for number in (2, 4, 10):
        for old in (tmp_path / "one/clips/x").glob("*"):
            old.unlink()
        write(tmp_path / "one", {"metrics.jsonl": str(number), **step(number), **data(number)})
        if number == 10:
            for name in step(2):
                (tmp_path / "one" / name).unlink()
        one.put()
    look("end")
    assert last == {4, 10}
    assert len(service.asked) > 20


def test_a_checkpoint_that_is_being_removed_is_no_whole_one(bucket, tmp_path):
    one = mirrored(bucket, tmp_path / "one")
    write(tmp_path / "one", step(2))
    one.put()
    (tmp_path / "one/checkpoints/2/a").unlink()
    one.put()
    mirrored(bucket, tmp_path / "other")
    assert read(tmp_path / "other") == step(2)
    for name in ("whole", "b/c"):
        (tmp_path / "one/checkpoints/2" / name).unlink()
    one.put()
    assert not bucket.objects()


def test_a_beginning_without_its_last_file_is_none(bucket, tmp_path):
    one = mirrored(bucket, tmp_path / "one")
    write(tmp_path / "one", {"tokenizer/half": "", "model.json": "{}"})
    one.put()
    mirrored(bucket, tmp_path / "other", begun="config.json")
    assert read(tmp_path / "other") == {}
    write(tmp_path / "one", {"config.json": ""})
    one.put()
    mirrored(bucket, tmp_path / "other", begun="config.json")
    assert len(read(tmp_path / "other")) == 3


def test_what_was_not_here_stays(bucket, tmp_path):
    first = mirrored(bucket, tmp_path / "one")
    write(tmp_path / "one", {"model.json": "{}", **step(2)})
    first.finish()
    results = mirrored(bucket, tmp_path / "out", fetch=False)
    write(tmp_path / "out", {"results.json": "1"})
    results.finish()
    assert set(bucket.objects()) == {"model.json", "results.json", *step(2)}


def test_files_are_sent_while_they_come(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, "INTERVAL", 0.01)
    one = mirror.Mirror(bucket_copy.Copy(bucket, tmp_path / "one", [STEPS]))
    one.begin()
    write(tmp_path / "one", step(2))
    while "checkpoints/2/whole" not in bucket.objects():
        one._stopped.wait(0.01)
    assert set(bucket.objects()) == set(step(2))
    one.finish()
    assert not one._thread.is_alive()


def test_a_program_at_a_time_writes(monkeypatch, tmp_path):
    monkeypatch.setattr(mirror, "Bucket", lambda *given: Bucket(*given, Service()))
    monkeypatch.setattr(mirror.tempfile, "gettempdir", lambda: str(tmp_path))
    address = f"s3://{uuid.uuid4().hex}/run"
    with mirror.written(address, "--workdir") as kept:
        with (
            pytest.raises(UserError, match="another program writes to it"),
            mirror.written(f"{address}/", "--workdir"),
        ):
            pass
        # What is read is another copy.
        write(kept.path, {"a": "b"})
        kept.put()
        with mirror.fetched(address, "--checkpoint") as path:
            assert path != kept.path
            assert path.name == kept.path.name == "run"
            assert read(path) == {"a": "b"}
    with mirror.written(address, "--workdir"):
        pass


def test_a_local_folder_is_what_it_is(tmp_path):
    with mirror.written(tmp_path, "--workdir") as kept, mirror.fetched(tmp_path, "x") as path:
        assert kept.path == path == tmp_path
        kept.check()
        kept.finish()
    with pytest.raises(UserError, match="not supported"), mirror.written("hdfs://x/y", "--workdir"):
        pass
