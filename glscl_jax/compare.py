"""Two runs, or two groups of runs, on the same queries: what differs, and by more than noise?"""

import dataclasses
import itertools
import os
import pathlib

import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.evaluation import rank_files, run_card
from glscl_jax.evaluation.rank_files import QueryRanks
from glscl_jax.evaluation.run_card_text import LABELS
from glscl_jax.figures import DIRECTIONS, more_is_better
from glscl_jax.files import read_json
from glscl_jax.retrieval import bootstrap
from glscl_jax.retrieval.bootstrap import Difference

CONFIDENCE = 0.95
# A split's hashes: with them equal, queries and galleries are the same.
_SAME = ("dataset", "split", "clip_ids_sha256", "captions_sha256")


@dataclasses.dataclass(frozen=True)
class Run:
    """A directory of results.

    Attributes:
      directory: as it was given.
      card: its results.json.
      ranks: its ranks.csv, "t2v" and "v2t".
    """

    directory: pathlib.Path
    card: dict
    ranks: dict[str, QueryRanks]

    @property
    def label(self) -> str:
        """Checkpoint, step, and what else than the head's own score ranked."""
        checkpoint, method = self.card["checkpoint"], self.card["rerank"]["method"]
        step = "converted" if checkpoint["step"] is None else f"step {checkpoint['step']}"
        changed = "" if method == "none" else f", {LABELS[method]}"
        changed += ", by single vectors" if self.card.get("single_vector") else ""
        return f"{self.directory}: {checkpoint['directory']} ({step}){changed}"


def read_run(directory: str | os.PathLike) -> Run:
    """Reads results.json and ranks.csv; raises a `UserError` if one is not there or damaged."""
    directory = pathlib.Path(directory)
    path = directory / run_card.RESULTS
    if not path.exists():
        raise UserError(
            f"{path} is not there: give a directory that glscl_jax.evaluate wrote results into"
        )
    card = read_json(path)
    try:
        run = Run(directory, card, rank_files.read_ranks(directory))
        _ = run.label, [card["data"][key] for key in _SAME]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is of another version ({error}): evaluate again") from error
    return run


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one recipe that differ by their seed; a single one is a group, too.

    Attributes:
      directory: as it was given.
      runs: at least one.
    """

    directory: pathlib.Path
    runs: tuple[Run, ...]

    @property
    def label(self) -> str:
        """The run's, or how many there are and what they are called."""
        if len(self.runs) == 1:
            return self.runs[0].label
        names = ", ".join(run.directory.name for run in self.runs)
        return f"{self.directory}: mean of {len(self.runs)} runs ({names})"

    def ranks(self, direction: str) -> list[np.ndarray]:
        """Of each run, float64 [queries]."""
        return [run.ranks[direction].ranks.mean for run in self.runs]


def read_group(directory: str | os.PathLike) -> Group:
    """Reads a directory of results, or a folder of such directories.

    Raises:
      UserError: there is none, one is damaged, or two are of the same parameters.
    """
    directory = pathlib.Path(directory)
    inner = sorted(path.parent for path in directory.glob(f"*/{run_card.RESULTS}"))
    if (directory / run_card.RESULTS).exists() or not inner:
        return Group(directory, (read_run(directory),))
    runs = tuple(map(read_run, inner))
    known = {}
    for run in runs:
        sha256 = run.card["checkpoint"].get("parameters_sha256", run.directory)
        if (other := known.setdefault(sha256, run)) is not run:
            raise UserError(
                f"{other.directory} and {run.directory} are of the same parameters: a group is of "
                "runs that differ by their seed; remove one"
            )
    return Group(directory, runs)


def compare(a: Run | Group, b: Run | Group) -> dict[str, dict[str, Difference]]:
    """The paired bootstrap of every figure, by direction ("t2v", "v2t") and name (R@1 ...).

    Ranks count as the mean among ties. Captions of one video are drawn together, and of groups
    the runs are drawn as well (`bootstrap.paired_means`).

    Raises:
      UserError: the runs are of different splits or queries.
    """
    a, b = _group(a), _group(b)
    first, *others = (*a.runs, *b.runs)
    for other in others:
        _check_same_queries(first, other)
    places = {clip_id: place for place, clip_id in enumerate(first.ranks["v2t"].clip_ids)}
    groups = {"t2v": [places[clip_id] for clip_id in first.ranks["t2v"].clip_ids], "v2t": None}
    return {
        name: bootstrap.paired_means(
            a.ranks(name), b.ranks(name), groups=groups[name], confidence=CONFIDENCE
        )
        for name in DIRECTIONS
    }


def _group(run: Run | Group) -> Group:
    return run if isinstance(run, Group) else Group(run.directory, (run,))


def _check_same_queries(a: Run, b: Run) -> None:
    way_out = "evaluate both on one split of one prepared data set"
    told = [run.card["data"] for run in (a, b)]
    for key in _SAME:
        one, other = (data[key] for data in told)
        if one != other:
            raise UserError(
                f"{a.directory} and {b.directory} have another {key} ({str(one)[:12]} and "
                f"{str(other)[:12]}): {way_out}"
            )
    for name in DIRECTIONS:
        queries = (
            zip(run.ranks[name].clip_ids, run.ranks[name].captions, strict=True) for run in (a, b)
        )
        for number, (one, other) in enumerate(itertools.zip_longest(*queries)):
            if one != other:
                raise UserError(
                    f"{a.directory} and {b.directory} differ in {name} query {number} "
                    f"({one} and {other}): {way_out}"
                )


def table(a: Run | Group, b: Run | Group, found: dict[str, dict[str, Difference]]) -> str:
    """The comparison for the terminal."""
    a, b = _group(a), _group(b)
    data = a.runs[0].card["data"]
    counts = (len(a.runs), len(b.runs))
    drawn = "" if max(counts) == 1 else "; intervals over queries and seeds"
    if max(counts) > 1 and min(counts) == 1:
        drawn += ", of the single run over queries alone"
    lines = [
        f"A  {a.label}",
        f"B  {b.label}",
        f"on {data['dataset']}, split {data['split']}: {data['texts']:,} captions, "
        f"{data['videos']:,} videos; ties as their mean rank{drawn}",
        "",
        f"{'':14}{'':>4}{'A':>8}{'B':>8}{'B - A':>8}   95 % interval",
    ]
    for name, label in DIRECTIONS.items():
        for number, (figure, x) in enumerate(found[name].items()):
            verdict = "within noise" if x.within_noise else _better(figure, x.difference)
            lines.append(
                f"{label if not number else '':14}{figure:>4}{x.a:8.1f}{x.b:8.1f}"
                f"{x.difference:+8.1f}   {x.low:+.1f} to {x.high:+.1f}: {verdict}"
            )
    return "\n".join(lines)


def _better(figure: str, difference: float) -> str:
    return "B is better" if (difference > 0) == more_is_better(figure) else "A is better"
