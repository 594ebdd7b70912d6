"""What a bucket refuses, loses or has no room for is one line, and nothing whole is lost."""

import sys
import uuid

import pytest

from glscl_jax.errors import UserError
from glscl_jax.runtime import bucket_copy, mirror, processes
from glscl_jax.runtime.bucket import Bucket
from tests.runtime.memory_bucket import Service, mirrored, read, step, write


def test_a_disk_without_room_says_so_first(bucket, service, tmp_path, monkeypatch):
    one = mirrored(bucket, tmp_path / "one")
    write(tmp_path / "one", {"a": "there"})
    one.finish()
    usage = type("Usage", (), {"free": 2})
    monkeypatch.setattr(bucket_copy.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"GiB are to be fetched.*TMPDIR.*mount the bucket"):
        mirrored(bucket, tmp_path / "other")
    assert not service.count("get_file")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileNotFoundError("x"), "there is no such bucket: make it first"),
        (PermissionError("Access Denied"), r"not allowed \(Access Denied\): see to your cred"),
        (OSError("Forbidden: b/x\nmore"), r"not allowed \(Forbidden: b/x\)"),
        (RuntimeError("Unable to locate credentials"), "not allowed"),
        (ConnectionError("refused\nmore"), r"cannot be reached \(refused\): see to the network"),
    ],
)
def test_what_a_service_says_is_one_line(bucket, service, tmp_path, error, told):
    def fail(count):
        raise error

    service.fails = fail
    with pytest.raises(UserError, match=rf"--workdir s3://\w+/run: .*{told}") as raised:
        mirrored(bucket, tmp_path / "one")
    assert "\n" not in str(raised.value)


def test_a_bucket_that_is_gone_for_a_moment_is_tried_again(bucket, service, tmp_path, capsys):
    one = mirrored(bucket, tmp_path / "one")
    write(tmp_path / "one", {"config.json": "{}", **step(2)})
    start = len(service.asked)

    def fail(count):
        if count in (start + 1, start + 3):
            raise ConnectionError("refused")

    service.fails = fail
    one.finish()
    assert set(bucket.objects()) == {"config.json", *step(2)}
    assert capsys.readouterr().err.count("trying again") == 1


def test_a_bucket_that_stays_away_ends_the_run(bucket, service, tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, "PATIENCE", 0.1)
    one = mirrored(bucket, tmp_path / "one")
    write(tmp_path / "one", step(2))
    one.put()
    write(tmp_path / "one", step(4))

    def fail(count):
        raise ConnectionError("refused")

    service.fails = fail
    told = "last in it that is whole is checkpoints/2; what was made since lies in .*/one until"
    with pytest.raises(mirror.LostBucketError, match=told):
        one.finish()
    with pytest.raises(mirror.LostBucketError, match=told):
        one.check()


def test_mistakes_name_the_bucket_and_what_is_there_is_sent(monkeypatch, tmp_path):
    monkeypatch.setattr(mirror, "Bucket", lambda *given: Bucket(*given, Service()))
    monkeypatch.setattr(mirror.tempfile, "gettempdir", lambda: str(tmp_path))
    address = f"s3://{uuid.uuid4().hex}/data"

    def prepare():
        with mirror.written(address, "--data_dir", watch=False) as kept:
            write(kept.path, {"failed.csv": "one"})
            raise UserError(f"too many failed: {kept.path}/failed.csv lists them")

    with pytest.raises(UserError, match=f"too many failed: {address}/failed.csv lists them"):
        prepare()
    with mirror.fetched(address, "--data_dir") as path:
        assert read(path) == {"failed.csv": "one"}
    with (
        pytest.raises(UserError, match=f"{address}/x is damaged"),
        mirror.fetched(address, "--data_dir") as path,
    ):
        raise UserError(f"{path}/x is damaged")
    with (
        pytest.raises(UserError, match="--data_dir s3://empty/x: nothing is there"),
        mirror.fetched("s3://empty/x", "--data_dir"),
    ):
        pass


def test_processes_of_several_hosts_are_told_to_mount_it(monkeypatch):
    monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "gather", lambda host: [host, host])
    processes.check_one_host("--workdir s3://b/x")
    monkeypatch.setattr(processes, "gather", lambda host: [host, f"{host}-2"])
    told = r"--workdir s3://b/x: the processes are on 2 hosts.*: mount the bucket on each"
    with pytest.raises(UserError, match=told):
        processes.check_one_host("--workdir s3://b/x")


def test_a_client_that_is_not_installed_is_told_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=r"--workdir s3://b/x: S3 needs s3fs.*pip install s3fs, or"):
        Bucket("s3://b/x", "--workdir")
    with pytest.raises(UserError, match=r"gs://: name a bucket, e\.g\. gs://bucket/folder"):
        Bucket("gs://", "--workdir")
