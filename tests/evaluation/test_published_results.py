"""The paper's rows as the reference text has them, and which of them a run is compared with."""

import dataclasses
import re

import pytest

from glscl_jax.evaluation import published_results
from glscl_jax.input_pipeline.annotations import BENCHMARKS, READERS
from glscl_jax.models.encoders.variants import VARIANTS, variant_of
from tests.conftest import SHARED

# As the reference text calls the benchmarks -> as this project does.
NAMES = {
    "MSR-VTT 1k-A": "msrvtt_9k",
    "MSVD": "msvd",
    "DiDeMo": "didemo",
    "LSMDC": "lsmdc",
    "ActivityNet": "activitynet",
}


def test_every_row_is_that_of_the_reference():
    path = SHARED / "reference.md"
    if not path.exists():
        pytest.skip("the reference in words (../shared/reference.md) is not here")
    section = path.read_text(encoding="utf-8").split("## 10. ")[1].split("\n## ")[0]
    rows = {}
    for label, *cells in re.findall(r"^\| (.+?) \| (\d.+?) \| (\d.+?) \|$", section, re.M):
        # "the same" is the row above with QB-Norm.
        rerank = "qbnorm" if "QB-Norm" in label else "none"
        if not label.startswith("the same"):
            benchmark, variant = label.split(", ")
        key = (NAMES[benchmark], "test", f"ViT-{variant}", rerank)
        rows[key] = [[None if x == "-" else float(x) for x in cell.split(" / ")] for cell in cells]
    assert len(rows) == 8
    told = {
        (name, "test", result.variant, result.rerank): result
        for name in NAMES.values()
        for result in BENCHMARKS[name].results
    }
    assert rows == {
        key: [list(row.t2v.as_dict().values()), list(row.v2t.as_dict().values())]
        for key, row in told.items()
    }


def test_the_row_of_a_run():
    row = published_results.find("msrvtt_9k", "test", "ViT-B/16", "qbnorm")
    assert row.t2v.r1 == 50.5
    assert published_results.find("msrvtt_7k", "test", "ViT-B/16", "qbnorm") == row
    # The official split has another test split.
    for other in (
        ("folder", "test"),
        ("msrvtt_full", "test"),
        ("msrvtt_9k", "val"),
        ("msvd", "train"),
    ):
        assert published_results.find(*other, "ViT-B/32", "none") is None
    assert published_results.find("msrvtt_9k", "test", "ViT-B/32", "dual_softmax") is None
    assert published_results.find("msrvtt_9k", "test", None, "none") is None


def test_every_benchmark_here_has_a_row():
    found = {name for name in READERS if published_results.find(name, "test", "ViT-B/32", "none")}
    assert found == READERS.keys() - {"folder", "msrvtt_full", "vatex"}


def test_another_gallery_is_told():
    row = published_results.find("didemo", "test", "ViT-B/32", "none")
    assert (
        published_results.differing_videos(row, 1003)
        == published_results.differing_videos(row, 1004)
        == ""
    )
    told = published_results.differing_videos(row, 900)
    assert told.startswith("900 videos here, 1,003 to 1,004 in DiDeMo")


@pytest.mark.parametrize("name", VARIANTS)
def test_towers_are_known_by_their_sizes(name):
    config = VARIANTS[name]
    assert variant_of(config) == name
    other = dataclasses.replace(config, vocab_size=77, context_length=13, activation="gelu")
    # SigLIP 2 is SigLIP but for its vocabulary.
    assert variant_of(other).replace("SigLIP2", "SigLIP") == name.replace("SigLIP2", "SigLIP")
    assert variant_of(dataclasses.replace(config, vision_layers=99)) is None


@pytest.mark.parametrize("dataset", ["msrvtt_9k", "msrvtt_7k"])
def test_a_gallery_of_another_size_is_told_whatever_the_model(dataset):
    assert published_results.differing_gallery(dataset, "test", 1_000, 1_000) == ""
    assert published_results.differing_gallery(dataset, "val", 500, 10_000) == ""
    assert published_results.differing_gallery("folder", "test", 879, 879) == ""
    told = published_results.differing_gallery(dataset, "test", 879, 1_758)
    assert "879 videos here, 1,000 in MSR-VTT 1k-A" in told
    assert "1,758 captions here, 1,000 in MSR-VTT 1k-A" in told
    assert "lists of 879 and 1,758 rows circulate under that name" in told
    assert "cannot be compared" in told
    other = published_results.differing_gallery(dataset, "test", 990, 990)
    assert "990 videos here" in other
    assert "circulate" not in other
