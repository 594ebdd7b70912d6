"""Two runs, or two groups of runs, on the same queries: what differs, and by more than noise?

    python -m glscl_jax.compare results/one results/other

It is `python -m glscl_jax.evaluate compare`, whose --help says what is taken and printed.
"""

import dataclasses
import itertools
import os
import pathlib
from types import NoneType

import numpy as np

from glscl_jax.checkpoints.model_dir import CHECKPOINTS, CONFIG
from glscl_jax.errors import UserError
from glscl_jax.evaluation import rank_files, run_card
from glscl_jax.evaluation.rank_files import QueryRanks
from glscl_jax.evaluation.run_card_text import LABELS
from glscl_jax.figures import DIRECTIONS, more_is_better
from glscl_jax.files import read_json
from glscl_jax.retrieval import bootstrap
from glscl_jax.retrieval.bootstrap import Difference
from glscl_jax.runtime import program

POSITIONAL = ("RUN_A", "RUN_B")
CONFIDENCE = 0.95
# A split's hashes: with them equal, queries and galleries are the same.
_SAME = ("dataset", "split", "clip_ids_sha256", "captions_sha256")
# What is read of a card, by key, and the types it may be of.
_OF_CARD = {
    "checkpoint.directory": (str,),
    "checkpoint.step": (int, NoneType),
    "rerank.method": (str,),
    **{f"data.{key}": (str,) for key in _SAME},
    "data.texts": (int,),
    "data.videos": (int,),
}
# Cards of earlier versions, and of some checkpoints, have these not.
_IN_SOME = {
    "checkpoint.parameters_sha256": (str,),
    "checkpoint.origin": (dict,),
    "settings": (dict,),
    "single_vector": (dict, NoneType),
}
# By these a folder is known as a run, or as its results.
_OF_RUNS = (rank_files.RANKS, CONFIG, CHECKPOINTS)


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
        checkpoint = self.card["checkpoint"]
        step = "converted" if checkpoint["step"] is None else f"step {checkpoint['step']}"
        return f"{self.directory}: {checkpoint['directory']} ({step}){self.changed}"

    @property
    def changed(self) -> str:
        """What else than the head's own score ranked, after a comma; "" for nothing."""
        method = self.card["rerank"]["method"]
        post = "" if method == "none" else f", {LABELS[method]}"
        return post + (", by single vectors" if self.card.get("single_vector") else "")


def read_run(directory: str | os.PathLike) -> Run:
    """Reads results.json and ranks.csv; raises a `UserError` if one is not there or damaged."""
    directory = pathlib.Path(directory)
    path = directory / run_card.RESULTS
    if not path.exists():
        raise UserError(
            f"{path} is not there: give a directory that glscl_jax.evaluate wrote results into"
        )
    card = read_json(path)
    _check_card(path, card)
    return Run(directory, card, rank_files.read_ranks(directory))


def _check_card(path: pathlib.Path, card: dict) -> None:
    """Raises a `UserError` that names what a card lacks, or has otherwise than it is written."""
    for key, kinds in (_OF_CARD | _IN_SOME).items():
        place, _, name = key.rpartition(".")
        part = card.get(place) if place else card
        value = part.get(name) if isinstance(part, dict) else None
        absent = not isinstance(part, dict) or name not in part
        known = key != "rerank.method" or value in LABELS
        if absent and key in _IN_SOME:
            continue
        if absent or type(value) not in kinds or not known:
            told = "is not there" if absent else f"is {value!r:.40}"
            raise UserError(
                f"{path} is damaged, or of another version ({key} {told}): evaluate again"
            )


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
        changed = self.runs[0].changed
        return f"{self.directory}: mean of {len(self.runs)} runs ({names}){changed}"

    def ranks(self, direction: str) -> list[np.ndarray]:
        """Of each run, float64 [queries]."""
        return [run.ranks[direction].ranks.mean for run in self.runs]


def read_group(directory: str | os.PathLike) -> Group:
    """Reads a directory of results, or a folder of such directories.

    Raises:
      UserError: there is none, one is damaged or missing, or they are no runs that differ by
        their seed alone: two are of the same parameters, or of other settings.
    """
    directory = pathlib.Path(directory)
    inner = sorted(path.parent for path in directory.glob(f"*/{run_card.RESULTS}"))
    if (directory / run_card.RESULTS).exists() or not inner:
        return Group(directory, (read_run(directory),))
    for name in _OF_RUNS:
        if lost := sorted({path.parent for path in directory.glob(f"*/{name}")} - {*inner}):
            raise UserError(
                f"{lost[0]} has {name}, but no {run_card.RESULTS}: evaluate it, or take it out of "
                f"{directory}, of which all runs count"
            )
    runs = tuple(map(read_run, inner))
    for one, other in itertools.combinations(runs, 2):
        _check_same_recipe(one, other)
    return Group(directory, runs)


def _check_same_recipe(one: Run, other: Run) -> None:
    """Raises a `UserError` for two runs that are no two of one group."""
    both, told = (one, other), f"{one.directory} and {other.directory}"
    known = [run.card["checkpoint"].get("parameters_sha256", run.directory) for run in both]
    rule = "a group is of runs that differ by their seed"
    if known[0] == known[1]:
        raise UserError(f"{told} are of the same parameters: {rule}; remove one")
    first, second = map(_recipe, both)
    for key in {**first, **second}:
        if (x := first.get(key)) != (y := second.get(key)):
            raise UserError(
                f"{told} have another {key} ({x!r:.40} and {y!r:.40}): {rule}; put them into "
                "folders of their own"
            )
    # By validation one seed's best step is not another's; of one seed they are steps of one run.
    seeds, steps = zip(*map(_seed_and_step, both), strict=True)
    if seeds[0] == seeds[1] and steps[0] != steps[1]:
        raise UserError(
            f"{told} are of one seed and have another checkpoint.step ({steps[0]} and {steps[1]}): "
            f"{rule}; remove one"
        )


def _recipe(run: Run) -> dict:
    """What the runs of a group have in common, by the keys of their cards."""
    parts = {name: run.card.get(name, {}) for name in ("settings", "rerank")}
    found = {f"{name}.{key}": x for name, part in parts.items() for key, x in part.items()}
    # How many are encoded at once changes no figure.
    found.pop("settings.batch_size", None)
    return found | {"single_vector": bool(run.card.get("single_vector"))}


def _seed_and_step(run: Run) -> tuple[object, int | None]:
    checkpoint = run.card["checkpoint"]
    return checkpoint.get("origin", {}).get("seed"), checkpoint["step"]


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


def main(argv) -> None:
    """Says by which figures two results differ by more than noise.

        python -m glscl_jax.evaluate compare results/one results/other

    RUN_A and RUN_B are two directories that evaluations on the same split wrote (--out), or each a
    folder of several such directories, of runs that differ by their seed. Printed are the figures
    of both, of several runs their means, B's less A's, and the difference's 95 % interval by a
    paired bootstrap of the queries, and of the seeds. There are no flags.
    """
    a, b = map(read_group, argv[1:])
    print(table(a, b, compare(a, b)))


if __name__ == "__main__":
    program.run(main, POSITIONAL)
