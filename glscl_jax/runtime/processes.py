"""What several processes of a run tell each other, and what only the first of them does."""

import json
import pathlib
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from glscl_jax.errors import UserError

Result = TypeVar("Result")


def gather(value: Any) -> list:
    """Every process's `value`, in the order of their numbers; all must call this.

    Args:
      value: what JSON can hold.
    """
    if jax.process_count() == 1:
        return [value]
    told = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(told)))
    # A power of two: each size is a program of its own.
    room = 1 << int(sizes.max()).bit_length()
    rows = multihost_utils.process_allgather(np.pad(told, (0, room - len(told))))
    return [json.loads(bytes(row[:size])) for row, size in zip(rows, sizes, strict=True)]


def by_first(action: Callable[[], None]) -> None:
    """Runs `action` in the first process while the others wait; all must call this.

    Raises:
      UserError: in every process, where `action` raises it.
    """
    told = None
    if jax.process_index() == 0:
        try:
            action()
        except UserError as error:
            told = str(error)
    if refused := gather(told)[0]:
        raise UserError(refused)


def by_all(action: Callable[[], Result]) -> Result:
    """Runs `action`, which waits for no other process, in all of them; all must call this.

    Raises:
      UserError: in every process, where `action` raises it in one: with its line, and whose it is.
    """
    told, found = None, None
    try:
        found = action()
    except UserError as error:
        told = str(error)
    lines = gather([told, socket.gethostname()])
    if len({line for line, _ in lines}) == 1:
        refused = told
    else:
        refused = next(
            (f"process {n} on {host}: {line}" for n, (line, host) in enumerate(lines) if line), None
        )
    if refused:
        raise UserError(refused)
    return found


def check_same(facts: dict) -> None:
    """Whether all processes have the same of everything; all must call this.

    Args:
      facts: nested dicts of what JSON can hold, names to values.

    Raises:
      UserError: in every process, naming what differs and between which of them.
    """
    if jax.process_count() == 1:
        return
    everyone = [dict(_flat(told)) for told in gather(facts)]
    names = dict.fromkeys(name for told in everyone for name in told)
    differing = [name for name in names if len({_shown(told.get(name)) for told in everyone}) > 1]
    if not differing:
        return
    lines = [f"{name} is {_who_has([told.get(name) for told in everyone])}" for name in differing]
    more = f" (and {len(lines) - 3} more)" if len(lines) > 3 else ""
    raise UserError(
        f"not the same in all processes: {'; '.join(lines[:3])}{more}: give all the same"
    )


def _flat(facts: dict, prefix: str = ""):
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _who_has(values: list) -> str:
    """A value and the processes that have it, for each one there is."""
    having: dict[str, list[int]] = {}
    for number, value in enumerate(values):
        having.setdefault(_shown(value), []).append(number)
    return ", ".join(
        f"{value if len(value) <= 60 else value[:16] + '...'} in process{'es' * (len(who) > 1)} "
        f"{', '.join(map(str, who[:4]))}{' ...' * (len(who) > 4)}"
        for value, who in having.items()
    )


def _shown(value: Any) -> str:
    return json.dumps(value)


def check_one_host(called: str) -> None:
    """Whether all processes are on one host, as what a bucket keeps must be; all must call this.

    Args:
      called: the flag and the address.

    Raises:
      UserError: in every process.
    """
    if jax.process_count() > 1 and len(hosts := set(gather(socket.gethostname()))) > 1:
        raise UserError(
            f"{called}: the processes are on {len(hosts)} hosts, and all write to it: mount the "
            "bucket on each (gcsfuse, s3fs) and name the folder"
        )


def check_shared(directory: pathlib.Path, flag: str, within: float) -> None:
    """Whether all processes see, and may write to, the first one's directory; all must call this.

    Args:
      directory: there already, as far as the first process sees.
      flag: how the user named it.
      within: seconds in which its new files are seen: network file systems keep what they knew.

    Raises:
      UserError: in every process, naming one that does not.
    """
    if jax.process_count() == 1:
        return
    token = directory / f".shared-{gather(secrets.token_hex(8))[0]}"

    def seen() -> None:
        end = time.monotonic() + within
        while not token.exists():
            if time.monotonic() > end:
                raise UserError(
                    f"{flag} {directory} is not the directory that process 0 has by that name: "
                    "name one on a file system that all hosts share"
                )
            time.sleep(0.2)
        written = token.with_name(f"{token.name}-{jax.process_index()}")
        _write(written, flag)
        written.unlink()

    by_first(lambda: _write(token, flag))
    try:
        by_all(seen)
    finally:
        if jax.process_index() == 0:
            token.unlink(missing_ok=True)


def _write(path: pathlib.Path, flag: str) -> None:
    try:
        path.touch()
    except OSError as error:
        raise UserError(f"{flag} {path.parent}: {error.strerror}") from error
