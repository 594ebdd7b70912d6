"""What is not installed is one line, with the command that installs it."""

import sys

import pytest

from glscl_jax.errors import UserError
from glscl_jax.search import engine, server
from glscl_jax.search.indexer import index_videos
from tests.server import REPO


def test_a_library_that_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    told = r"search needs lancedb: pip install .*requirements-search\.txt"
    with pytest.raises(UserError, match=told):
        index_videos(tmp_path / "index", videos=tmp_path, checkpoint=tmp_path)
    assert not (tmp_path / "index").exists()
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    with pytest.raises(UserError, match=r"search needs starlette.applications: pip install"):
        server.application(None)
    assert engine.module("json").loads("1") == 1


def test_the_extra_is_what_the_file_says():
    assert "requirements-search.txt" in (REPO / "pyproject.toml").read_text()
    assert "lancedb" in (REPO / "requirements-search.txt").read_text()
