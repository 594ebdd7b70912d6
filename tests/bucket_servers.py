"""Servers of buckets on the loopback: moto's S3, and an emulator of Google's storage."""

import contextlib
import dataclasses
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from glscl_jax.runtime import bucket as buckets
from glscl_jax.runtime import mirror
from tests.conftest import REPO

# moto in an environment of its own: s3fs and it ask for different releases of botocore.
MOTO = pathlib.Path(os.environ.get("MOTO_SERVER", REPO / ".venv-moto/bin/moto_server"))
EMULATOR = pathlib.Path(sys.executable).with_name("gcp-storage-emulator")
WAIT = 120


@dataclasses.dataclass
class Place:
    """A bucket of a server that runs, and the variables by which programs find it."""

    address: str
    environment: dict[str, str]
    port: int


def free_port() -> int:
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def running(port: int, *command: str, **environment: str):
    """A process that answers at a port."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        cwd=REPO,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + WAIT
        while time.monotonic() < end and process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            time.sleep(0.1)
        else:
            raise RuntimeError(f"{command} did not begin to answer")
        yield process
    finally:
        process.kill()
        process.wait()


def asked_at(port: int) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}",
    }


def server_of(scheme: str, port: int) -> list[str]:
    """The command of a server, or a skip."""
    client, program = {"s3": ("s3fs", MOTO), "gs": ("gcsfs", EMULATOR)}[scheme]
    pytest.importorskip(client, reason=f"{client} is not installed: make buckets")
    if not program.exists():
        pytest.skip(f"{program} is not there: make buckets")
    if scheme == "s3":
        return [str(program), "-H", "127.0.0.1", "-p", str(port)]
    return [str(program), "start", "--host=127.0.0.1", f"--port={port}", "--in-memory"]


def client(scheme: str):
    """A client that does not remember another server's answers."""
    import fsspec

    return fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False)


@contextlib.contextmanager
def made(scheme: str, monkeypatch, folder: pathlib.Path) -> Iterator[Place]:
    """An empty bucket of a server that runs; local copies lie below a folder."""
    port = free_port()
    command, environment = server_of(scheme, port), asked_at(port)
    with running(port, *command):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        elsewhere(monkeypatch, folder)
        fresh = {x: {**y, **FRESH} for x, y in buckets._SETTINGS.items()}
        monkeypatch.setattr(buckets, "_SETTINGS", fresh)
        client(scheme).mkdir("bucket")
        yield Place(f"{scheme}://bucket", environment, port)


FRESH = {"skip_instance_cache": True}


def elsewhere(monkeypatch, folder: pathlib.Path) -> None:
    monkeypatch.setattr(mirror.tempfile, "gettempdir", lambda: str(folder))
