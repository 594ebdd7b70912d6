"""The run card: hashes that anyone can take again, and a page that hides nothing."""

import copy
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from glscl_jax.checkpoints.model_dir import parameters_sha256, save_params
from glscl_jax.evaluation import published_results, run_card, run_card_text
from glscl_jax.files import read_json
from glscl_jax.retrieval import metrics
from glscl_jax.retrieval.rerank import DUAL_SOFTMAX
from glscl_jax.runtime import sharding
from tests.builders import split

PARAMS = {
    "clip": {
        "scale": np.array(4.5, np.float32),
        "kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    },
    "lim": {"bias": np.zeros(3, jnp.bfloat16)},
}


def test_the_hash_of_parameters_is_of_the_numbers(tmp_path):
    expected = parameters_sha256(PARAMS)
    # Through Orbax and onto devices, and in another order of insertion.
    save_params(tmp_path / "x", PARAMS)
    stored = ocp.load_checkpointables(tmp_path / "x")["params"]
    assert parameters_sha256(stored) == expected
    mesh = sharding.make_mesh(jax.devices()[:2])
    placed = jax.device_put(dict(reversed(PARAMS.items())), sharding.replicated(mesh))
    assert parameters_sha256(placed) == expected


@pytest.mark.parametrize("change", ["a bit", "a type", "a shape", "a name"])
def test_any_change_of_parameters_changes_the_hash(change):
    changed = copy.deepcopy(PARAMS)
    clip = changed["clip"]
    if change == "a bit":
        clip["kernel"].view(np.uint8)[0, 0] ^= 1
    elif change == "a type":
        clip["kernel"] = clip["kernel"].view(np.int32)
    elif change == "a shape":
        clip["kernel"] = clip["kernel"].reshape(3, 2)
    else:
        clip["weight"] = clip.pop("kernel")
    assert parameters_sha256(changed) != parameters_sha256(PARAMS)


def test_ids_hash_as_sort_and_sha256sum_do(tmp_path):
    ids = ["video10", "video9", "ünï", "Video", "a b"]
    path = tmp_path / "ids.txt"
    path.write_text("".join(f"{line}\n" for line in ids), encoding="utf-8")
    if not shutil.which("sha256sum"):
        pytest.skip("sha256sum is not installed")
    told = subprocess.run(
        f"LC_ALL=C sort {path} | sha256sum", shell=True, check=True, capture_output=True, text=True
    ).stdout
    assert run_card.lines_sha256(ids) == told.split()[0]


def test_split_facts_count_and_hash():
    encoded = split(videos=6, captions=3)
    found = run_card.split_facts(encoded, "val")
    assert (found["texts"], found["videos"], found["frames_decoded"]) == (18, 6, 15)
    lines = [f"{encoded.clip_ids[b]}\tcaption {a}" for a, b in enumerate(encoded.owner)]
    assert found["captions_sha256"] == run_card.lines_sha256(lines[::-1])
    assert found["clip_ids_sha256"] == run_card.lines_sha256(encoded.clip_ids)


def card(scores=None, **changes):
    """A whole run card of random scores, with ties where they are given."""
    encoded = split(videos=6, captions=2)
    if scores is None:
        scores = np.random.default_rng(0).normal(size=(12, 6))
    result = metrics.retrieval(scores, encoded.owner)
    row = published_results.find("msrvtt_9k", "test", "ViT-B/32", "none")
    made = {
        "checkpoint": {
            "directory": "weights | b32",
            "step": None,
            "variant": "ViT-B/32",
            "parameters_sha256": "0a1b" * 16,
            "origin": {"source": "model.bin", "sha256": "beef"},
        },
        "data": {
            "dataset": "msrvtt_9k",
            **run_card.split_facts(encoded, "test"),
            "failed": 0,
            "partial": "",
            "cut": {"captions": 12, "cut": 0, "num_words": 32, "longest": 30},
        },
        "settings": {"frames": 12, "dtype": "bfloat16"},
        "tie_rule": "mean",
        **run_card.direction_facts(result, encoded.owner, legacy=changes.pop("legacy", False)),
        "published": run_card.published_facts(row, changes.pop("videos", 1000)),
        **run_card.machine_facts(sharding.make_mesh(jax.devices()[:2])),
        "date": "2026-01-01",
        "trained_otherwise": "",
        "rerank": {"method": "none"},
        "features": "encoded",
        "seconds": {"load": 1.5, "encode videos": 2.0},
        **changes,
    }
    return {**made, "notes": run_card.notes(made)}


def test_the_page_shows_the_card(tmp_path):
    made = card()
    run_card.write_card(tmp_path, made)
    assert read_json(tmp_path / "results.json") == made
    page = (tmp_path / "results.md").read_text()
    for told in (
        "48.1 | 73.9 | 82.3 | - | 2.0 | 13.8",  # R@50 was not published.
        made["data"]["clip_ids_sha256"],
        made["data"]["captions_sha256"],
        "0a1b0a1b",
        "source model.bin",
        "dtype bfloat16",
        "2 x cpu (cpu)",
        f"jax {jax.__version__}",
        "| encode videos | 2.00 | 3 videos/s |",
        "Zhang et al. 2024",
    ):
        assert told in page
    assert f"{made['t2v']['mean']['R@1']:.1f} (" in page
    # A row of a Markdown table has as many cells as its head.
    for line in page.splitlines():
        if line.startswith("| text"):
            assert line.count("|") == 8
    assert made["notes"] == []


def test_intervals_hold_their_figures():
    made = card()
    for name in ("t2v", "v2t"):
        for figure, (low, high) in made[name]["interval_95"].items():
            assert low <= made[name]["mean"][figure] <= high


def test_nothing_that_matters_is_left_unsaid():
    tied = np.zeros((12, 6))
    made = card(
        tied,
        legacy=True,
        videos=900,
        rerank={"method": "dual_softmax", "temperature": 100.0},
        trained_otherwise="num_frames 12, here 6",
        tie_rule="legacy",
        features="read",
    )
    made["data"] |= {"failed": 3, "partial": "48 of 1000 clips"}
    made["notes"] = run_card.notes(made)
    page, shown = run_card_text.page(made), run_card_text.terminal(made)
    for told in (
        DUAL_SOFTMAX,
        "48 of 1000 clips",
        "3 clips of this split could not be read",
        "900 videos here, 1,000 in MSR-VTT 1k-A",
        "trained with num_frames 12, here 6",
        "12 of 12 text-to-video queries have ties",
    ):
        assert told in page
        assert told in shown
    assert DUAL_SOFTMAX in run_card_text.title(made)
    # Every item ties with every other: the released metric scores 12 x 6 rows.
    assert made["t2v"]["legacy"]["R@5"] == pytest.approx(100 * 5 / 6)
    assert "| ties as released |" in page
    assert "| ties optimistic | 100.0" in page
    # Features that were read took no time, so there is no rate.
    assert "videos/s" not in page


def test_the_bank_is_named_with_its_hashes():
    bank = run_card.split_facts(split(videos=9, captions=1, seed=5), "train")
    settings = {"k": 1, "beta": 70.0, "theta": 3}
    made = card(
        rerank={"method": "qbnorm", "t2v": settings, "v2t": settings | {"theta": 5}, "bank": bank}
    )
    page = run_card_text.page(made)
    for told in ("split train", bank["captions_sha256"], bank["clip_ids_sha256"], "theta 5"):
        assert told in page


def test_stages_take_time():
    stages = run_card.Stages()
    with stages("sum"):
        sum(range(1000))
    assert 0 < stages.seconds["sum"] < 5
