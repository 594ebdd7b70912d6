"""A checkpoint as mteb's model: toy tasks of real small videos, against the scores of `load`."""

import json
import sys
import types

import jax
import numpy as np
import pytest

from convert.checkpoint_output import settings
from glscl_jax.checkpoints.model_dir import save_params
from glscl_jax.errors import UserError
from glscl_jax.evaluation import mteb_model
from glscl_jax.files import write_json
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from glscl_jax.models.glscl import GLSCL, init_params
from tests import numbered_videos
from tests.builders import SMALL

REASON = "mteb is not installed: see requirements-mteb.txt"
NAMES = ["one", "two", "three", "four"]
CAPTIONS = ["a red circle moves", "a blue square", "green", "a dog runs on the beach"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Of random weights, so that no score is like another."""
    path = tmp_path_factory.mktemp("mteb") / "weights"
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_params(GLSCL(SMALL), 0))
    params = jax.tree.map(lambda x: random.normal(size=x.shape, scale=0.2).astype(x.dtype), shapes)
    save_params(path, params)
    write_json(path / "model.json", settings(SMALL, tuple(params)))
    data = {"num_words": 16, "num_frames": 4, "frame_rate": 2.0}
    write_json(path / "config.json", {"data": data})
    CLIPTokenizer.from_merges(DEMO_MERGES).save(path / "tokenizer")
    return mteb_model.MTEBModel.load(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [
        numbered_videos.write(folder / f"{name}.mp4", 20 + 10 * number, 10, gop=10 + number)
        for number, name in enumerate(NAMES)
    ]


@pytest.fixture(scope="module")
def scores(model, files):
    """What `glscl_jax.load` makes of the same files and captions, float32 [A,B]."""
    one = model.retriever
    return one.score(one.encode_captions(CAPTIONS), one.encode_video_files(files))


def data_sets(files, as_bytes):
    """A data set of captions and one of videos, the n-th belonging to the n-th."""
    datasets = pytest.importorskip("datasets", reason=REASON)
    held = [{"bytes": file.read_bytes(), "path": None} for file in files]
    videos = held if as_bytes else [str(file) for file in files]
    features = datasets.Features({"id": datasets.Value("string"), "video": datasets.Video()})
    texts = datasets.Dataset.from_dict({"id": NAMES, "text": CAPTIONS})
    return texts, datasets.Dataset.from_dict({"id": NAMES, "video": videos}, features=features)


def metadata(category, modalities=("text", "video")):
    """A task's, which lies nowhere but here."""
    pytest.importorskip("mteb", reason=REASON)
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata(
        name="Toy",
        description="Four small videos.",
        dataset={"path": "nowhere", "revision": "1"},
        type="Any2AnyRetrieval",
        category=category,
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        modalities=list(modalities),
    )


def toy_task(category, queries, corpus):
    """A retrieval task of mteb, with its data in it."""
    pytest.importorskip("mteb", reason=REASON)
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    toy = type("Toy", (AbsTaskRetrieval,), {"metadata": metadata(category)})()
    relevant = {name: {name: 1} for name in NAMES}
    split = {"queries": queries, "corpus": corpus, "relevant_docs": relevant, "top_ranked": None}
    toy.dataset, toy.data_loaded = {"default": {"test": split}}, True
    return toy


@pytest.mark.parametrize(("category", "as_bytes"), [("t2v", True), ("t2v", False), ("v2t", True)])
def test_mteb_s_figures_are_those_of_the_exact_scores(
    model, files, scores, category, as_bytes, tmp_path
):
    mteb = pytest.importorskip("mteb", reason=REASON)
    texts, videos = data_sets(files, as_bytes)
    queries, corpus = (texts, videos) if category == "t2v" else (videos, texts)
    told = mteb.evaluate(
        model,
        toy_task(category, queries, corpus),
        cache=None,
        prediction_folder=tmp_path,
        show_progress_bar=False,
        encode_kwargs={"batch_size": 3},
    )
    (figures,) = told.task_results[0].scores["test"]
    exact = scores if category == "t2v" else scores.T
    ranks = (exact > np.diagonal(exact)[:, None]).sum(axis=1)
    for k in (1, 3):
        assert figures[f"recall_at_{k}"] == pytest.approx((ranks < k).mean(), abs=1e-5)
    assert figures["ndcg_at_10"] == pytest.approx((1 / np.log2(ranks + 2)).mean(), abs=1e-5)
    # Four of 24 orders say little: the scores themselves.
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_text())["default"]["test"]
    for row, query in zip(exact, NAMES, strict=True):
        np.testing.assert_allclose([found[query][name] for name in NAMES], row, rtol=0, atol=1e-5)


def test_a_rerank_scores_what_it_is_given_and_tells_the_best(model, files, scores):
    texts, videos = data_sets(files, as_bytes=False)
    asked = {"task_metadata": metadata("t2v"), "encode_kwargs": {}}
    model.index(videos, **asked)
    among = {"one": ["two", "four", "three"], "two": NAMES}
    found = model.search(texts, top_k=2, top_ranked=among, **asked)
    best = sorted(["two", "four", "three"], key=lambda name: -scores[0, NAMES.index(name)])
    assert list(found["one"]) == best[:2]
    assert len(found["two"]) == 2
    assert found["three"] == {}


@pytest.mark.parametrize("category", ["t2t", "v2v", "vt2v", "i2v"])
def test_a_task_of_another_kind_is_refused(model, files, category):
    with pytest.raises(UserError, match=f"Toy is a task of category {category}: take one"):
        model.index(
            data_sets(files, as_bytes=False)[1],
            task_metadata=metadata(category),
            encode_kwargs={},
        )


def test_a_video_that_cannot_be_read_is_named(model):
    datasets = pytest.importorskip("datasets", reason=REASON)
    features = datasets.Features({"id": datasets.Value("string"), "video": datasets.Video()})
    asked = {"task_metadata": metadata("t2v"), "encode_kwargs": {}}
    for video, said in (
        ({"bytes": b"no video", "path": None}, "a_strange_id"),
        ({"bytes": None, "path": "gone.mp4"}, "'a strange/id': gone.mp4 is not there"),
    ):
        rows = {"id": ["a strange/id"], "video": [video]}
        with pytest.raises(UserError, match=said):
            model.index(datasets.Dataset.from_dict(rows, features=features), **asked)


def test_other_settings_are_another_revision(model):
    pytest.importorskip("mteb", reason=REASON)
    other = mteb_model.MTEBModel(model.retriever, "weights")
    assert model.mteb_model_meta.name == other.mteb_model_meta.name == "glscl-jax/weights"
    assert model.mteb_model_meta.revision == other.mteb_model_meta.revision
    read = vars(model.retriever) | {"num_frames": 2}
    other = mteb_model.MTEBModel(types.SimpleNamespace(**read), "weights")
    assert model.mteb_model_meta.revision != other.mteb_model_meta.revision


def test_without_mteb_the_way_to_it_is_told(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb.models", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-mteb\.txt"):
        _ = mteb_model.MTEBModel(model.retriever, "weights").mteb_model_meta
