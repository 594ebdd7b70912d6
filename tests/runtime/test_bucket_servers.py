"""Buckets of real servers on the loopback: moto's S3, and an emulator of Google's storage.

make buckets   # installs what they need, requirements-buckets.txt, and runs these alone
"""

import pathlib
import re
import signal
import sys
import time

import jax
import numpy as np
import pytest

from glscl_jax.checkpoints.model_dir import load_model
from glscl_jax.errors import UserError
from glscl_jax.runtime import bucket as buckets
from glscl_jax.runtime import mirror, sharding
from glscl_jax.runtime.preemption import PREEMPTED_STATUS
from tests.bucket_servers import (
    FRESH,
    WAIT,
    Place,
    asked_at,
    client,
    elsewhere,
    free_port,
    made,
    running,
    server_of,
)
from tests.conftest import one_line_error

STEPS = 26


@pytest.fixture(params=["s3", "gs"])
def place(request, monkeypatch, tmp_path):
    with made(request.param, monkeypatch, tmp_path / "here") as found:
        yield found


@pytest.mark.parametrize("at_once", [1 << 20, 0])
def test_what_is_written_is_read_on_another_machine(place, tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(buckets, "_AT_ONCE", at_once)
    content = np.random.default_rng(0).bytes(100_000)
    with mirror.written(f"{place.address}/run", "--workdir") as kept:
        (kept.path / "a").mkdir(parents=True)
        for name in ("a/b", "c", "d"):
            (kept.path / name).write_bytes(content)
        kept.put()
        (kept.path / "d").unlink()
        (kept.path / "c").write_bytes(b"changed")
    elsewhere(monkeypatch, tmp_path / "there")
    for _ in range(2):
        with mirror.fetched(f"{place.address}/run/", "--checkpoint") as path:
            files = {x.relative_to(path).as_posix(): x for x in path.rglob("*") if x.is_file()}
            assert set(files) == {"a/b", "c"}
            assert files["a/b"].read_bytes() == content
            assert files["c"].read_bytes() == b"changed"
    with (
        pytest.raises(UserError, match="nothing is there"),
        mirror.fetched(f"{place.address}/ru", "x"),
    ):
        pass


def test_nothing_is_fetched_or_sent_twice(place, tmp_path, monkeypatch):
    def look(wanted: set[str]) -> None:
        asked = []
        for name in ("get", "put"):
            usual = getattr(buckets.Bucket, name)

            def counted(self, *given, name=name, usual=usual):
                asked.append(name)
                return usual(self, *given)

            monkeypatch.setattr(buckets.Bucket, name, counted)
        with mirror.written(f"{place.address}/run", "--workdir") as kept:
            assert (kept.path / "a").read_bytes() == b"there"
        assert set(asked) == wanted

    with mirror.written(f"{place.address}/run", "--workdir") as kept:
        (kept.path / "a").write_bytes(b"there")
    look(set())
    elsewhere(monkeypatch, tmp_path / "there")
    look({"get"})


def test_a_bucket_that_is_not_there_is_said_to_be_so(place):
    missing = place.address + "-of-nobody"
    for use in (mirror.written, mirror.fetched):
        told = f"--workdir {missing}/run: there is no such bucket: make it first"
        with pytest.raises(UserError, match=told), use(f"{missing}/run", "--workdir"):
            pass


def test_what_is_not_allowed_is_said_to_be_so(monkeypatch, tmp_path):
    port = free_port()
    elsewhere(monkeypatch, tmp_path)
    monkeypatch.setattr(buckets, "_SETTINGS", {"s3": {**buckets._SETTINGS["s3"], **FRESH}})
    with running(port, *server_of("s3", port), INITIAL_NO_AUTH_ACTION_COUNT="0"):
        for name, value in asked_at(port).items():
            monkeypatch.setenv(name, value)
        told = r"--workdir s3://bucket/run: not allowed \(.*\): see to your credentials"
        with (
            pytest.raises(UserError, match=told),
            mirror.written("s3://bucket/run", "--workdir"),
        ):
            pass
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        with (
            pytest.raises(UserError, match=told),
            mirror.written("s3://bucket/run", "--workdir"),
        ):
            pass


def test_a_server_that_goes_away_ends_what_is_written(monkeypatch, tmp_path):
    port, way = free_port(), free_port()
    elsewhere(monkeypatch, tmp_path)
    monkeypatch.setattr(mirror, "INTERVAL", 0.1)
    monkeypatch.setattr(mirror, "PATIENCE", 1.0)
    with (
        running(port, *server_of("s3", port)),
        running(way, sys.executable, "-m", "tests.forwarder", str(way), str(port)) as network,
    ):
        for name, value in asked_at(way).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(buckets, "_SETTINGS", {"s3": {**buckets._SETTINGS["s3"], **FRESH}})
        client("s3").mkdir("bucket")

        def write() -> None:
            with mirror.written("s3://bucket/run", "--workdir") as kept:
                network.kill()
                (kept.path / "a").write_bytes(b"new")
                end = time.monotonic() + WAIT
                while time.monotonic() < end:
                    kept.check()
                    time.sleep(0.1)

        with pytest.raises(mirror.LostBucketError, match="cannot be reached"):
            write()


def arguments(data, workdir, *more):
    return (
        "glscl_jax.train",
        "--config=configs/demo.py:tiny",
        f"--workdir={workdir}",
        f"--config.data.dir={data}",
        f"--config.num_steps={STEPS}",
        "--config.validate_every=13",
        "--config.checkpoint_every=3",
        "--config.log_every=1",
        *more,
    )


def parameters(workdir):
    sharded = sharding.replicated(sharding.make_mesh(jax.devices()[:1]))
    return jax.tree.leaves(load_model(workdir, sharded, STEPS).params)


def steps_in(place: Place) -> set[int]:
    """The checkpoints in the bucket that count."""
    found = buckets.Bucket(f"{place.address}/run", "").objects()
    matches = (re.fullmatch(r"checkpoints/(\d+)/_CHECKPOINT_METADATA", name) for name in found)
    return {int(match[1]) for match in matches if match}


def run_until_saved(forks, place: Place, *command) -> object:
    """A run under way that has a checkpoint in the bucket."""
    process = forks.start("tests.beside_bucket", *command, environment=place.environment)
    # It compiles first; what is too long is the test's own time.
    while not steps_in(place):
        time.sleep(0.5)
    return process


@pytest.mark.slow
def test_a_killed_run_goes_on_on_another_machine(place, shapes, forks, tmp_path, monkeypatch):
    """All of it in the bucket: what `prepare` writes, the run, features, results."""
    data, run = f"{place.address}/data", f"{place.address}/run"
    here, there = ({"TMPDIR": str(tmp_path / name)} for name in ("one", "other"))
    for folder in (here, there):
        pathlib.Path(folder["TMPDIR"]).mkdir()
    prepare = (
        "glscl_jax.input_pipeline.prepare",
        "--dataset=folder",
        f"--source={shapes / 'videos'}",
        f"--data_dir={data}",
        "--frame_rate=2",
        "--image_size=32",
    )
    told = forks.together(prepare, environments=[place.environment | here])[0].stdout
    assert "prepared 48 of 48 clips" in told
    told = forks.together(prepare, environments=[place.environment | there])[0].stdout
    assert f"{data} is prepared already: 48 of 48" in told

    undisturbed = tmp_path / "run"
    forks(*arguments(shapes / "data", undisturbed))
    place.environment |= here
    process = run_until_saved(forks, place, *arguments(data, run))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert max(steps_in(place)) < STEPS
    (done,) = forks.together(
        ("tests.beside_bucket", *arguments(data, run)), environments=[place.environment | there]
    )
    first = re.search(r"parameters from step (\d+) to 26", done.stdout)
    assert int(first[1]) > 0
    assert f"trained to step 26; the run's files are in {run}" in done.stdout

    elsewhere(monkeypatch, tmp_path / "third")
    for one, other in zip(parameters(undisturbed), parameters(run), strict=True):
        np.testing.assert_array_equal(one, other)
    # No byte of a checkpoint is another one than where it was saved.
    with mirror.fetched(run, "--workdir") as copy:
        (saved,) = pathlib.Path(there["TMPDIR"]).glob("glscl-jax-*/written-*/run")
        for folder in ("checkpoints", "tokenizer"):
            names = {x.relative_to(saved) for x in (saved / folder).rglob("*") if x.is_file()}
            assert names == {x.relative_to(copy) for x in (copy / folder).rglob("*") if x.is_file()}
            assert all((saved / name).read_bytes() == (copy / name).read_bytes() for name in names)
    evaluate = ("glscl_jax.evaluate", f"--checkpoint={run}", f"--save_features={run}/features")
    (done,) = forks.together(evaluate, environments=[place.environment | here])
    assert f"written to {run}: results.md, results.json" in done.stdout
    (done,) = forks.together(
        (*evaluate, f"--out={run}/again"), environments=[place.environment | there]
    )
    assert f"written to {run}/again: results.md" in done.stdout
    assert "encoding videos" not in done.stderr
    names = set(buckets.Bucket(run, "").objects())
    assert {"results.json", "again/report.html", "metrics.jsonl", "config.json"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)


@pytest.mark.slow
def test_a_run_that_is_told_to_end_has_sent_its_step_and_goes_on(place, shapes, forks, tmp_path):
    """SIGTERM, as a preempted machine gets it."""
    here, there = ({"TMPDIR": str(tmp_path / name)} for name in ("one", "other"))
    for folder in (here, there):
        pathlib.Path(folder["TMPDIR"]).mkdir()
    place.environment |= here
    many = "--config.num_steps=100000"
    command = arguments(shapes / "data", f"{place.address}/run", many, "--config.log_every=1000")
    process = run_until_saved(forks, place, *command)
    process.send_signal(signal.SIGTERM)
    told, status = process.stdout.read(), process.wait()
    assert status == PREEMPTED_STATUS
    (saved,) = re.findall(r"saved at step (\d+) of 100000", told)
    assert max(steps_in(place)) == int(saved)
    end = f"--config.num_steps={int(saved) + 2}"
    (done,) = forks.together(
        ("tests.beside_bucket", *command, end), environments=[place.environment | there]
    )
    assert f"from step {saved} " in done.stdout


@pytest.mark.slow
def test_a_bucket_that_goes_away_leaves_the_last_checkpoint_whole(
    shapes, forks, tmp_path, monkeypatch
):
    port, way = free_port(), free_port()
    with (
        running(port, *server_of("s3", port)),
        running(way, sys.executable, "-m", "tests.forwarder", str(way), str(port)) as network,
    ):
        for name, value in asked_at(port).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(buckets, "_SETTINGS", {"s3": {**buckets._SETTINGS["s3"], **FRESH}})
        elsewhere(monkeypatch, tmp_path)
        client("s3").mkdir("bucket")
        place = Place("s3://bucket", asked_at(way) | {"TMPDIR": str(tmp_path)}, port)
        # Nobody reads what it prints, and the pipe is to have room for it.
        many = ("--config.num_steps=100000", "--config.log_every=100000")
        run = arguments(shapes / "data", "s3://bucket/run", *many, "--config.validate_every=50000")
        process = run_until_saved(forks, place, *run)
        network.kill()
        assert process.wait() == 2
        error = one_line_error(process.finished)
        assert "--workdir s3://bucket/run: the bucket cannot be reached" in error
        last = max(steps_in(place))
        assert f"the last in it that is whole is checkpoints/{last}; what was made" in error
        elsewhere(monkeypatch, tmp_path / "other")
        sharded = sharding.replicated(sharding.make_mesh(jax.devices()[:1]))
        assert load_model("s3://bucket/run", sharded, last).step == last
