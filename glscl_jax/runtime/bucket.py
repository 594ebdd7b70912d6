"""A folder of a bucket, gs:// or s3://, through fsspec: what is in it, and objects there and back.

Whatever the service or the network says becomes one line that names the flag and the address.
"""

import contextlib
import dataclasses
import logging
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from glscl_jax import paths
from glscl_jax.errors import UserError

# What fsspec speaks to each of them with.
_CLIENTS = {"gs": "gcsfs", "s3": "s3fs"}
# Settings of the clients: what does not answer is given up within a minute or two, and what was
# listed once is listed anew.
_SETTINGS: dict[str, dict[str, Any]] = {
    "s3": {
        "use_listings_cache": False,
        "config_kwargs": {
            "connect_timeout": 10,
            "read_timeout": 60,
            "retries": {"max_attempts": 2},
        },
    },
    "gs": {"use_listings_cache": False},
}
# Smaller files are read before they are sent: what another appends to meanwhile is sent as it was.
_AT_ONCE = 32 << 20
_PROBE = ".writable"


@dataclasses.dataclass(frozen=True)
class Object:
    """What a bucket says of an object.

    Attributes:
      size: bytes.
      tag: another one after every write; "" where the service tells none.
    """

    size: int
    tag: str


class Bucket:
    """A folder of a bucket; names are relative to it, with slashes."""

    def __init__(self, address: str, name: str, client=None):
        """Makes the client; nothing is asked of the service yet.

        Args:
          address: `paths.is_address`.
          name: of the flag, setting or argument, for messages.
          client: fsspec's file system; by default the address's.

        Raises:
          UserError: the client is not installed, or the address names no bucket.
        """
        self.address = address.rstrip("/")
        self._called = f"{name} {self.address}"
        scheme, _, folder = address.partition("://")
        self._root = folder.rstrip("/")
        if not self._root:
            raise UserError(f"{name} {address}: name a bucket, e.g. {scheme}://bucket/folder")
        self._client = client if client is not None else _client(scheme.lower(), self._called)

    def objects(self) -> dict[str, Object]:
        """All that is in the folder, by name.

        Raises:
          UserError: there is no such bucket, it is not allowed or cannot be reached.
        """
        with self._told():
            found = self._client.find(f"{self._root}/", detail=True)
        names = {path.lstrip("/")[len(self._root) + 1 :]: told for path, told in found.items()}
        # Those that end in a slash are folders that some browser made.
        return {
            name: Object(told["size"], str(told.get("ETag") or told.get("generation") or ""))
            for name, told in names.items()
            if name and not name.endswith("/") and ".." not in name.split("/")
        }

    def check_writable(self) -> None:
        """Writes an object and removes it; raises a `UserError` where that is not allowed."""
        with self._told():
            self._client.pipe_file(f"{self._root}/{_PROBE}", b"")
            self._client.rm_file(f"{self._root}/{_PROBE}")

    def get(self, name: str, path: pathlib.Path) -> None:
        """Fetches an object to a file; raises a `GoneError` if there is none any more."""
        try:
            with self._told():
                self._client.get_file(f"{self._root}/{name}", str(path))
        except GoneError as error:
            raise GoneError(
                f"{self._called}: {name} is gone, something else writes there: start again"
            ) from error

    def read(self, name: str) -> bytes:
        """What is in an object; raises a `GoneError` if there is none."""
        with self._told():
            return self._client.cat_file(f"{self._root}/{name}")

    def create(self, name: str, content: bytes) -> bool:
        """Sends an object unless one of this name is there; returns whether it was sent.

        A service that knows no such condition sends it in any case.
        """
        try:
            with self._told():
                self._client.pipe_file(f"{self._root}/{name}", content, mode="create")
            return True
        except UserError as error:
            if _EXISTS.search(f"{type(error.__cause__).__name__} {error.__cause__}"):
                return False
            raise

    def put(self, path: pathlib.Path, name: str) -> None:
        """Sends a file, which appears whole or not at all.

        Raises:
          FileNotFoundError: there is no such file.
          UserError: it could not be sent.
        """
        if path.stat().st_size < _AT_ONCE:
            content = path.read_bytes()
            with self._told():
                self._client.pipe_file(f"{self._root}/{name}", content)
            return
        with self._told():
            self._client.put_file(str(path), f"{self._root}/{name}")

    def remove(self, name: str) -> None:
        """Removes an object; one that is gone is no matter."""
        with contextlib.suppress(GoneError), self._told():
            self._client.rm_file(f"{self._root}/{name}")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise GoneError(
                f"{self._called}: there is no such bucket: make it first, or see how it is spelt"
            ) from error
        # The clients, and those below them, raise many kinds for what a service says.
        except Exception as error:
            text = str(error).strip().partition("\n")[0] or type(error).__name__
            if isinstance(error, PermissionError) or _FORBIDDEN.search(text):
                raise UserError(
                    f"{self._called}: not allowed ({text}): see to your credentials, and what they "
                    "may do there"
                ) from error
            raise UserError(
                f"{self._called}: the bucket cannot be reached ({text}): see to the network, or "
                "mount it and name the folder"
            ) from error


class GoneError(UserError):
    """There is no such object, or no such bucket."""


_FORBIDDEN = re.compile(r"credential|forbidden|denied|unauthori[sz]ed|\b40[13]\b", re.IGNORECASE)
# What the clients raise for `create`, s3fs and gcsfs.
_EXISTS = re.compile(r"FileExistsError|\b412\b|conditionNotMet", re.IGNORECASE)


def _client(scheme: str, called: str):
    """fsspec's file system of a scheme; raises a `UserError` where it is not installed."""
    # Says of every bucket, with a warning each, that its kind cannot be told.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    for library in ("gcsfs", "google.auth", "s3fs", "aiobotocore", "botocore"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        import fsspec

        return fsspec.filesystem(scheme, **_SETTINGS[scheme])
    except ImportError as error:
        package = _CLIENTS[scheme]
        raise UserError(
            f"{called}: {paths.SCHEMES[scheme]} needs {package}, which is not installed: "
            f"pip install {package}, or {paths.WAYS_OUT[scheme]}"
        ) from error
    except Exception as error:
        text = str(error).strip().partition("\n")[0]
        raise UserError(f"{called}: not allowed ({text}): see to your credentials") from error
