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


def test_qdrant_is_asked_for_where_it_is_used(monkeypatch, tmp_path):
    pytest.importorskip("lancedb", reason="search needs lancedb: make search installs it")
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    told = r"needs qdrant_client: pip install .*requirements-qdrant\.txt"
    how = {"videos": tmp_path, "checkpoint": tmp_path, "neighbours": True}
    with pytest.raises(UserError, match=told):
        index_videos(tmp_path / "index", **how, qdrant="http://localhost:6333")


def test_the_extra_is_what_the_file_says():
    assert "requirements-qdrant.txt" in (REPO / "pyproject.toml").read_text()
    assert "qdrant-client" in (REPO / "requirements-qdrant.txt").read_text()
    assert "requirements-search.txt" in (REPO / "pyproject.toml").read_text()
    assert "lancedb" in (REPO / "requirements-search.txt").read_text()
