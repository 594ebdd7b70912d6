"""What an evaluation is asked for: the flags of `evaluate`, and the arguments of its function."""

import dataclasses
import os

from ml_collections import ConfigDict

from glscl_jax.errors import UserError
from glscl_jax.evaluation.run_card_text import LABELS
from glscl_jax.retrieval.rerank import QBNorm

NO_CHECKPOINT = "--checkpoint is missing: name a directory that train or convert wrote"

# What is read beside a flag by which the program does something else than an evaluation, or not all
# of it.
_USED_BESIDE = {
    "compile_for": ("checkpoint", "config", "out"),
    "encodings": ("checkpoint", "config", "split", "step"),
    "features": (
        *("checkpoint", "config", "split", "step", "out", "legacy_ties", "single_vector", "top_k"),
        # There is none at any rate.
        "report",
    ),
}
# What a way of post-processing reads, and nothing else.
_OF_RERANK = {
    "qbnorm": ("qb_split", "qb_k", "qb_beta", "qb_theta", "qb_theta_v2t"),
    "dual_softmax": ("dsl_temperature",),
}
# Where things lie is each host's own affair.
_OWN = ("checkpoint", "config", "out")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to evaluate and how; each field is a flag of the program.

    Attributes:
      checkpoint: a directory that `train` or `convert` wrote. It, `out` and `save_features` may be
        addresses in buckets.
      config: where the data is and how it is read; None for a work directory's own.
      split: None for `config.data.test_split`.
      step: of a work directory; None for the best by validation R@1.
      out: where the results go; None for the checkpoint's directory.
      save_features: a directory to keep features in, and to read them from; None for none.
      legacy_ties: whether ties are also counted as the released metric does.
      single_vector: whether to rank by the head's single vectors, not by its own score.
      rerank: "none", "qbnorm" or "dual_softmax".
      qb_split: QB-Norm's bank; None for `config.data.train_split`.
      qb_k: a bank query votes for its so many best items.
      qb_beta: QB-Norm's inverse temperature.
      qb_theta: votes that make a video active (text-to-video).
      qb_theta_v2t: the same of a caption (video-to-text).
      dsl_temperature: by which scores are multiplied for the dual softmax.
      top_k: every query's best items that are written into top.csv; None writes none.
      report: whether to write report.html.
      examples: queries in it of the best, of the median and of the worst each.
    """

    checkpoint: str | os.PathLike | None
    config: ConfigDict | None = None
    split: str | None = None
    step: int | None = None
    out: str | os.PathLike | None = None
    save_features: str | os.PathLike | None = None
    legacy_ties: bool = False
    single_vector: bool = False
    rerank: str = "none"
    qb_split: str | None = None
    qb_k: int = 1
    qb_beta: float = 70.0
    qb_theta: int = 3
    qb_theta_v2t: int = 5
    dsl_temperature: float = 100.0
    top_k: int | None = None
    report: bool = True
    examples: int = 5

    @property
    def query_bank(self) -> dict[str, QBNorm]:
        """QB-Norm's settings, by direction."""
        common = {"k": self.qb_k, "beta": self.qb_beta}
        return {
            "t2v": QBNorm(**common, theta=self.qb_theta),
            "v2t": QBNorm(**common, theta=self.qb_theta_v2t),
        }

    @property
    def shared(self) -> dict[str, object]:
        """What all processes of an evaluation must be asked alike, but for the config."""
        names = [field.name for field in dataclasses.fields(self) if field.name not in _OWN]
        asked = {name: getattr(self, name) for name in names}
        if self.save_features is not None:
            asked["save_features"] = os.fspath(self.save_features)
        return asked

    def check_beside(self, flag: str) -> None:
        """Raises a `UserError` for a setting that says nothing beside a flag of `_USED_BESIDE`."""
        for field in dataclasses.fields(self):
            if field.name not in _USED_BESIDE[flag]:
                self._refuse(field.name, f"beside --{flag}")

    def check_top_k(self, split: str, videos: int) -> None:
        """Raises a `UserError` where a split has fewer videos than best items are asked for."""
        if self.top_k is not None and not 1 <= self.top_k <= videos:
            raise UserError(f"--top_k {self.top_k}: split {split!r} has {videos} videos")

    def check(self) -> None:
        """Raises a `UserError` for what is wrong whatever checkpoint and data are."""
        if self.rerank not in LABELS:
            raise UserError(f"--rerank {self.rerank}: take one of {', '.join(LABELS)}")
        if self.single_vector and self.rerank != "none":
            raise UserError("--single_vector ranks without post-processing: leave --rerank out")
        _ = self.query_bank  # It checks its settings as it is made.
        if self.dsl_temperature <= 0:
            raise UserError(f"--dsl_temperature {self.dsl_temperature:g}: take one above 0")
        if self.examples < 1:
            raise UserError(f"--examples {self.examples}: take 1 or more, or --noreport")
        for method, names in _OF_RERANK.items():
            for name in names if method != self.rerank else ():
                self._refuse(name, f"without --rerank={method}")
        if not self.report:
            self._refuse("examples", "beside --noreport")

    def _refuse(self, name: str, where: str) -> None:
        """Raises a `UserError` for a setting that is another than the default."""
        (default,) = (x.default for x in dataclasses.fields(self) if x.name == name)
        if getattr(self, name) != default:
            raise UserError(f"--{name} says nothing {where}: leave it out")
