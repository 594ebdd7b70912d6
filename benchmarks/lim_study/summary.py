"""A table of the study's lines: each variant against the mean frame, the GIM and the released LIM.

python -m benchmarks.lim_study.summary --lines study.jsonl
"""

from typing import Any

import numpy as np
from absl import app, flags

from benchmarks.lim_study.results import read_lines
from benchmarks.lim_study.variants import RELEASED
from glscl_jax.retrieval import bootstrap
from glscl_jax.retrieval.bootstrap import Difference

AGAINST = ("mean", "gim", RELEASED.name)


def difference(a: dict[str, Any], b: dict[str, Any]) -> Difference:
    """R@1 of line `b` less that of `a`, with its interval over queries and seeds.

    As `evaluate compare` has it of two groups of runs. A hit stands for rank 1 and a miss for rank
    2, which R@1 does not tell from those behind it. What came apart has no hits, and is left out.
    """
    runs = ([_ranks(hits) for hits in line["hits1"] if hits] for line in (a, b))
    return bootstrap.paired_means(*runs)["R@1"]


def _ranks(hits: str) -> np.ndarray:
    return np.array([1.0 if hit == "1" else 2.0 for hit in hits])


def table(lines: list[dict[str, Any]]) -> list[str]:
    """Rows of Markdown, a table a protocol, in the order of the file."""
    rows = []
    for protocol in dict.fromkeys(line["protocol"] for line in lines):
        own = [line for line in lines if line["protocol"] == protocol]
        usual = {line["name"]: line for line in own if line["name"] in AGAINST}
        heads = ("R@1", *(f"less {name}'s" for name in usual), "cosine, effective (texts)")
        rows += [f"{protocol}", "", " | ".join(("| variant", *heads, "the same (videos) |"))]
        rows.append("|" + " --- |" * (len(heads) + 2))
        rows += [_row(line, list(usual.values())) for line in own] + [""]
    return rows


def _row(line: dict[str, Any], usual: list[dict[str, Any]]) -> str:
    known = [value for value in line["r1"] if value is not None]
    deviation = np.std(known, ddof=1) if len(known) > 1 else 0.0
    cells = [line["name"], f"{np.mean(known):.1f} ± {deviation:.1f}" if known else "-"]
    for other in usual:
        if other is line or not known:
            cells.append("-")
            continue
        found = difference(other, line)
        told = f"{found.difference:+.1f} ({found.low:+.1f} to {found.high:+.1f})"
        cells.append(told if found.within_noise else f"**{told}**")
    for side in ("text", "video"):
        cosines, counts = line[f"concept_cosine_{side}"], line[f"effective_{side}"]
        told = [x for x in zip(cosines, counts, strict=True) if x[0] is not None]
        cells.append("{:.3f}, {:.1f}".format(*np.mean(told, axis=0)) if told else "-")
    return f"| {' | '.join(cells)} |"


def main(_) -> None:
    print("\n".join(table(read_lines(flags.FLAGS.lines))))


if __name__ == "__main__":
    flags.DEFINE_string("lines", None, "What benchmarks.lim_study wrote.", required=True)
    app.run(main)
