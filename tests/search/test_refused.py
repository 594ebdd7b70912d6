"""An indexing that is refused leaves nothing behind, and is not remembered."""

import threading
from dataclasses import replace

import pytest

from glscl_jax.errors import UserError
from glscl_jax.models.heads.wti import WTIHead
from glscl_jax.search.indexer import index_videos
from glscl_jax.search.store import Store
from tests.builders import SMALL
from tests.search.conftest import CUT, index_two, write_checkpoint

pytestmark = pytest.mark.usefixtures("lance")


@pytest.fixture(scope="module")
def made(tmp_path_factory, checkpoint, lance):
    folder = tmp_path_factory.mktemp("refused")
    index_two(folder, checkpoint, "b.mp4")
    return folder


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"metadata": "nowhere.csv"}, "--metadata .*nowhere.csv: no such file: name a CSV file"),
        ({"metadata": "."}, "--metadata .*: a folder: name a CSV file"),
        ({"metadata": "videos/a.mp4"}, "a.mp4 line 1: not UTF-8"),
        ({"step": 3}, "was converted and has no steps: leave step 3 out"),
        ({"checkpoint": "nowhere"}, "no checkpoint directory"),
    ],
)
def test_what_is_refused_leaves_nothing(made, checkpoint, tmp_path, how, told):
    if "metadata" in how:
        how = {"metadata": made / how["metadata"]}
    how = {"videos": made / "videos", "checkpoint": checkpoint} | how
    with pytest.raises(UserError, match=told):
        index_videos(tmp_path / "index", **how, **CUT)
    assert not list(tmp_path.iterdir())


def test_what_is_refused_is_not_remembered(made):
    with pytest.raises(UserError, match="no such file"):
        index_videos(made / "index", metadata=made / "nowhere.csv")
    assert index_videos(made / "index").added == 0


def test_a_head_without_a_vector_has_no_neighbours(made, tmp_path):
    weights = write_checkpoint(tmp_path / "weights", config=replace(SMALL, head=WTIHead()))
    with pytest.raises(UserError, match="--neighbours: the head wti has no one vector"):
        index_videos(
            tmp_path / "index", videos=made / "videos", checkpoint=weights, neighbours=True
        )
    assert not (tmp_path / "index").exists()


def test_who_is_stopped_leaves_no_thread_that_waits(tmp_path, made, checkpoint, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "add", stopped)
    before = set(threading.enumerate())
    # More windows than are read ahead, and the exception is held, as by a traceback.
    how = {"videos": made / "videos", "window": 0.1, "stride": 0.02, "batch_size": 1}
    with pytest.raises(KeyboardInterrupt):
        index_videos(tmp_path / "index", checkpoint=checkpoint, **how)
    reading = [one for one in set(threading.enumerate()) - before if "ThreadPool" in one.name]
    for one in reading:
        one.join(30)
    assert not [one for one in reading if one.is_alive()]
