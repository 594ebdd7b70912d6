"""A server in a thread of the tests."""

import threading

import pytest

from glscl_jax.search import server


def serve(app):
    """Starts it: its port, and what ends it."""
    uvicorn = pytest.importorskip("uvicorn", reason="search serve needs uvicorn: make search")
    listening = server.open_socket("127.0.0.1", 0)
    running = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()

    def stop():
        running.should_exit = True
        thread.join(30)
        assert not thread.is_alive()

    return listening.getsockname()[1], stop
