"""A line of the study's file: what one variant came to with every seed."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.lim_study import recipe
from benchmarks.lim_study.lanes import Length
from benchmarks.lim_study.trainer import Program, Trained
from benchmarks.lim_study.variants import Variant
from glscl_jax.models.heads.concept_figures import concept_figures
from glscl_jax.retrieval import metrics

# Steps of which the last losses are the mean.
_LAST = 50


def read_lines(path: str | pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a file; of a variant that was run twice under a protocol the last."""
    lines = map(json.loads, pathlib.Path(path).read_text(encoding="utf-8").splitlines())
    return list({(line["protocol"], line["name"]): line for line in lines}.values())


def there(
    path: pathlib.Path, lengths: dict[str, Length], seeds: Sequence[int], towers: str | None
) -> set[tuple[str, str]]:
    """Protocols and names of the lines of a file that are of these steps, seeds and towers.

    Args:
      path: of the file, which need not be there.
      lengths: of each protocol that is run.
      seeds: of every variant.
      towers: of which features are, see `base.towers_name`; None where they are yet to be trained.
    """
    wanted = {recipe.END_TO_END: None, recipe.FROM_FEATURES: towers or "none yet"}
    return {
        (line["protocol"], line["name"])
        for line in (read_lines(path) if path.exists() else ())
        if line["protocol"] in lengths
        and line["steps"] == lengths[line["protocol"]].steps
        and line["seeds"] == list(seeds)
        and line.get("towers") == wanted[line["protocol"]]
    }


def lines(
    program: Program,
    variants: list[Variant],
    seeds: list[int],
    trained: Trained,
    seconds: float,
    towers: str | None,
) -> list[dict[str, Any]]:
    """One dict of plain values a variant; `trained`, on the host, has them in this order.

    Args:
      program, variants, seeds: what was trained.
      trained: what it came to.
      seconds: that it took.
      towers: of which features are, see `base.towers_name`; None end to end.
    """
    found = []
    for number, variant in enumerate(variants):
        rows = range(number * len(seeds), (number + 1) * len(seeds))
        columns = _columns([_of_run(trained, row) for row in rows])
        settings, weights = variant.settings, columns.pop("weight")
        if "learned" in settings:
            settings["learned_weight"] = weights
        found.append(
            {
                "name": variant.name,
                "protocol": program.protocol,
                "head": "glscl" if variant.shape.has_lim else variant.shape.head,
                "temporal": variant.shape.temporal,
                "settings": settings,
                "seeds": list(seeds),
                "steps": program.length.steps,
                "towers": towers,
                **columns,
                "seconds": round(seconds / len(variants), 2),
                "device": jax.devices()[0].device_kind,
            }
        )
    return found


def _columns(rows: list[dict]) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _of_run(trained: Trained, row: int) -> dict[str, Any]:
    scores = np.asarray(trained.scores[row])
    figures = dict.fromkeys(("r1", "r5", "r10", "mdr"))
    hits = None
    # A training that came apart has no ranks; its line says so.
    if np.isfinite(scores).all():
        ranks = metrics.text_to_video(scores, np.arange(len(scores))).mean
        recalls = metrics.recalls(ranks)
        figures = {
            "r1": recalls.r1,
            "r5": recalls.r5,
            "r10": recalls.r10,
            "mdr": recalls.median,
        }
        hits = "".join("01"[int(rank <= 1)] for rank in ranks)
    losses = np.asarray(trained.losses[:, row])
    return {
        **figures,
        "loss": float(np.mean(losses[-_LAST:])),
        **_concepts(trained, row),
        "weight": None if trained.weight is None else float(trained.weight[row]),
        "hits1": hits,
    }


def _concepts(trained: Trained, row: int) -> dict[str, float | None]:
    found = {}
    for side in ("text", "video"):
        queries = getattr(trained, f"{side}_queries")
        several = queries is not None and queries.shape[2] > 1
        figures = concept_figures(queries[row]) if several else (None, None)
        found[f"concept_cosine_{side}"], found[f"effective_{side}"] = figures
    return found
