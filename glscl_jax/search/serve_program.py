"""Shows a page for an index: a box for a sentence, and the windows that fit it, to play.

    python -m glscl_jax.search serve --index my_index

The page is on this machine's loopback address, where nobody else reaches it. --host with another
address shows the videos of the index to whoever reaches that, and knows the token that is printed:
so it asks for --expose_videos, too. Ctrl-C ends it.
"""

import contextlib
import ipaddress
import secrets

from absl import flags

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.runtime import program
from glscl_jax.search import engine, server
from glscl_jax.search import index as searched
from glscl_jax.search.store import NOT_SHOWN

_LOOPBACK = ["127.0.0.1", "localhost", "[::1]"]


def _define_flags() -> None:
    paths.define(
        "index", None, "The directory of the index, or its address in a bucket.", bucket=True
    )
    paths.define("checkpoint", None, "Where its checkpoint lies now, if it was moved.", bucket=True)
    flags.DEFINE_string("host", "127.0.0.1", "The address of this machine to listen on.")
    flags.DEFINE_integer("port", 8765, "The port; 0 for any that is free.", 0, 65535)
    flags.DEFINE_boolean(
        "expose_videos",
        False,
        "With a --host that others reach: whoever has the token may see and play all videos of the"
        " index.",
    )


def main(_) -> None:
    """Runs the program."""
    values = flags.FLAGS
    directory, host = values["index"].value, values["host"].value
    if directory is None:
        raise UserError("--index is missing: name the directory of the index")
    exposed = not _is_loopback(host)
    if exposed and not values["expose_videos"].value:
        raise UserError(
            f"--host {host} would show the videos to whoever reaches this machine there: if that is"
            " meant, add --expose_videos; a token is asked for then"
        )
    uvicorn = engine.module("uvicorn")
    # Before anything is loaded: it may be in use.
    listening = server.open_socket(host, values["port"].value)
    index = searched.open(directory, checkpoint=values["checkpoint"].value)
    token = secrets.token_urlsafe(24) if exposed else None
    app = server.application(index, token=token, hosts=None if exposed else _LOOPBACK)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}/"
    print(f"{len(index):,} windows: {address}{f'?token={token}' if token else ''}", flush=True)
    if index.is_prepared:
        print(NOT_SHOWN, flush=True)
    settings = uvicorn.Config(
        app, log_level="error", access_log=False, timeout_graceful_shutdown=3, server_header=False
    )
    # It raises again what it was ended by.
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run(sockets=[listening])
    print("stopped", flush=True)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise UserError(
            f"--host {host} is no address: give one like 127.0.0.1, or 0.0.0.0 for all"
        ) from error


def cli() -> None:
    """Runs the program."""
    _define_flags()
    program.run(main)


if __name__ == "__main__":
    cli()
