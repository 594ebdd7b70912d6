"""What the heads came to on the demo: R@1 of five seeds, and how sure it is.

Read from lines of JSON, one a head and protocol, as the program of the runs writes them; lines of
other heads, of GLSCL's ablations, are passed over.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

import numpy as np

from benchmarks.figure1.settings import NAMES
from glscl_jax.errors import UserError
from glscl_jax.retrieval import bootstrap
from glscl_jax.retrieval.bootstrap import Difference, Interval

FILE = pathlib.Path(__file__).with_name("results.jsonl")
HOW = "python -m benchmarks.lim_study --clips demo/clips.npz --out benchmarks/figure1/results.jsonl"
# What is trained.
PROTOCOLS = {"end_to_end": "end to end", "from_features": "from features"}
# A run -> the head that scores it; "mean" alone is also without a module over time.
RUNS = {"mean_pooling": "mean"} | {name: name for name in NAMES}

Results = Mapping[tuple[str, str], "Result"]


@dataclasses.dataclass(frozen=True)
class Result:
    """A head under a protocol.

    Attributes:
      name, protocol: of `RUNS` and of `PROTOCOLS`.
      hits: bool [seeds,queries], whether the right video is first; of the seeds that have ranks.
      failed: seeds whose training came apart.
      steps: of a run.
      device: that it was on.
      towers: tells those that features are of from others; None end to end.
    """

    name: str
    protocol: str
    hits: np.ndarray
    failed: int
    steps: int
    device: str
    towers: str | None

    @property
    def ranks(self) -> list[np.ndarray]:
        """Of each seed, float64 [queries]: 1, or 2 for all that is worse."""
        return list(np.where(self.hits, 1.0, 2.0))

    def recall(self) -> Interval:
        """R@1, percent, the mean of the seeds; its 95 % interval is over queries and seeds."""
        return bootstrap.intervals_of_means(self.ranks)["R@1"]

    def beside(self, other: "Result") -> Difference:
        """By how much R@1 is above another's, on the same queries; likewise."""
        return bootstrap.paired_means(other.ranks, self.ranks)["R@1"]


def read(path: pathlib.Path) -> Results:
    """The heads' results, by name and protocol; of two lines of the same the last.

    Raises:
      UserError: it is not there, is damaged, or holds other queries in one line than in others, or
        features of other towers.
    """
    if not path.exists():
        raise UserError(f"{path} is not there: make it ({HOW})")
    found = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        result = _result(text, f"{path}, line {number}")
        if result:
            found[result.name, result.protocol] = result
    if len({x.towers for x in found.values() if x.protocol == "from_features"}) > 1:
        raise UserError(f"{path} has lines of features of other towers than others: make it anew")
    counts = {result.hits.shape[1] for result in found.values()}
    if len(counts) > 1:
        told = " and ".join(map(str, sorted(counts)))
        raise UserError(f"{path} has lines of {told} queries: make it anew ({HOW})")
    return found


def _result(text: str, where: str) -> Result | None:
    """None of a line that is of no head, or of no seed that came through."""
    try:
        plain = json.loads(text)
        if plain["name"] not in RUNS or plain["protocol"] not in PROTOCOLS:
            return None
        there = [_hits(hits) for hits in plain["hits1"] if hits is not None]
        failed = len(plain["hits1"]) - len(there)
        if not there:
            return None
        values = (failed, int(plain["steps"]), str(plain["device"]), plain.get("towers"))
        return Result(plain["name"], plain["protocol"], np.array(there), *values)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where} is damaged ({error}): make the file anew ({HOW})") from error


def _hits(text: str) -> list[bool]:
    if not text or set(text) - {"0", "1"}:
        raise ValueError("hits1 is not of 0 and 1")
    return [one == "1" for one in text]
