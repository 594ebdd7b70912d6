"""The figure's numbers as two tables in Markdown: the demo's, and those of the paper's sizes."""

import statistics
from collections.abc import Mapping

from benchmarks.figure1.costs import Measured
from benchmarks.figure1.index_bytes import index_bytes
from benchmarks.figure1.results import PROTOCOLS, RUNS, Result, Results
from benchmarks.figure1.settings import DEMO, NAMES, PAPER, SETTINGS, Setting, xla_flops
from benchmarks.heads.published import PUBLISHED

Costs = Mapping[tuple[str, str], Measured]

# A head -> the method whose figures were published.
METHODS = {"mean": "CLIP4Clip", "glscl": "GLSCL", "x_pool": "X-Pool", "dicosa": "DiCoSA"}
LABELS = {"mean_pooling": "`mean`, `temporal=None`"}
MISSING = "-"
_GIGA = 1e9
_COSTS = (
    "all pairs, G",
    "by XLA, GFLOP",
    "once an item, G",
    "bytes a video",
    "in bfloat16",
    "all pairs, ms",
    "one text, ms",
)


def tables(results: Results, costs: Costs) -> str:
    """Both, and what was measured where; what is not known is a dash."""
    lines = [*_demo(results, costs), "", *_notes(results), "", *_paper(costs)]
    if costs:
        lines += ["", *_machines(costs)]
    return "\n".join(lines)


def _demo(results: Results, costs: Costs) -> list[str]:
    heads = [f"R@1, {told}" for told in PROTOCOLS.values()]
    rows = []
    for name, head in RUNS.items():
        recalls = [_recall(results.get((name, protocol))) for protocol in PROTOCOLS]
        rows.append([label(name), *recalls, *_costs(DEMO, head, costs)])
    return _table([DEMO.title, *heads, *_COSTS], rows)


def _paper(costs: Costs) -> list[str]:
    rows = []
    for name in NAMES:
        method = METHODS.get(name)
        published = PUBLISHED[method] if method else None
        told = (
            [f"{published.recall or MISSING} ({method})", f"{published.gflop}"]
            if published
            else [MISSING, MISSING]
        )
        rows.append([label(name), *told, *_costs(PAPER, name, costs)])
    return _table([PAPER.title, "R@1, published", "GFLOP, published", *_COSTS], rows)


def _costs(setting: Setting, name: str, costs: Costs) -> list[str]:
    """The cells of `_COSTS`."""
    measured = costs.get((setting.name, name))
    times = (measured.all_pairs, measured.one_text) if measured else (None, None)
    return [
        f"{setting.pairs(name) / _GIGA:.2f}",
        f"{xla_flops(setting, name) / _GIGA:.2f}",
        f"{setting.items(name) / _GIGA:.2f}",
        *(f"{index_bytes(setting, name, dtype):,}" for dtype in ("float32", "bfloat16")),
        *(MISSING if x is None else _plain(statistics.median(x)) for x in times),
    ]


def _plain(value: float) -> str:
    """Three digits, and of what is larger all before the point: no power of ten."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def _notes(results: Results) -> list[str]:
    """What the recalls are of, and how far each is from GLSCL's."""
    lines = []
    for protocol, told in PROTOCOLS.items():
        there = {name: results[name, protocol] for name in RUNS if (name, protocol) in results}
        if not there:
            continue
        seeds = {len(result.hits) for result in there.values()}
        queries = next(iter(there.values())).hits.shape[1]
        # One text names what is common; a seed that came apart is told of below.
        lines.append(
            f"- {told.capitalize()}: {'/'.join(map(str, sorted(seeds)))} seeds, "
            f"{'/'.join(map(str, sorted({x.steps for x in there.values()})))} steps, {queries} "
            f"queries, on {', '.join(sorted({x.device for x in there.values()}))}."
            + "".join(_failed(result) for result in there.values())
            + _beside(there)
        )
    return lines


def _failed(result: Result) -> str:
    if not result.failed:
        return ""
    return f" Of {label(result.name)} {result.failed} more came apart and are not counted."


def _beside(there: Mapping[str, Result]) -> str:
    if "glscl" not in there or len(there) == 1:
        return ""
    told = []
    for name, result in there.items():
        if name != "glscl":
            x = result.beside(there["glscl"])
            noise = ", within noise" if x.within_noise else ""
            told.append(f"{label(name)} {x.difference:+.1f} ({x.low:+.1f} to {x.high:+.1f}{noise})")
    return f" R@1 less that of `glscl`: {'; '.join(told)}."


def _machines(costs: Costs) -> list[str]:
    lines = []
    for machine in dict.fromkeys(measured.machine for measured in costs.values()):
        own = [measured for measured in costs.values() if measured.machine == machine]
        pairs, texts = ({x.blocks[n] for x in own} for n in (0, 1))
        galleries = " and ".join(f"{n:,}" for n in sorted({x.gallery for x in own}))
        lines.append(
            f"Milliseconds are medians, dispatch included, on {machine}: all pairs in "
            f"{_calls(pairs)}, one text among {galleries} videos in {_calls(texts)}."
            + _compiled(own)
        )
    return lines


def _compiled(own: list[Measured]) -> str:
    """How far the count of what a backend made of the programs is from that before."""
    ratios = [
        x.xla_flops / xla_flops(SETTINGS[x.setting], x.head) for x in own if x.xla_flops is not None
    ]
    if not ratios:
        return ""
    low, high = min(ratios), max(ratios)
    return f" What was compiled there has {low:.2f} to {high:.2f} times the operations by XLA."


def _calls(counts: set[int]) -> str:
    told = "/".join(map(str, sorted(counts)))
    return "one call" if counts == {1} else f"{told} calls"


def _recall(result: Result | None) -> str:
    if result is None:
        return MISSING
    x = result.recall()
    return f"{x.value:.1f} ({x.low:.1f} to {x.high:.1f})"


def label(name: str) -> str:
    """A run as the tables call it."""
    return LABELS.get(name, f"`{name}`")


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    aligned = ["---", *["---:"] * (len(heads) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (heads, aligned, *rows)]
