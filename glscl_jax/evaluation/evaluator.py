"""The steps of an evaluation: open what is asked for, encode a split, rank it, write its report."""

import dataclasses
import functools

import jax

from glscl_jax import paths
from glscl_jax.checkpoints.workdir import PLACES
from glscl_jax.errors import UserError
from glscl_jax.evaluation import rank_files, report, run_card, single_vectors
from glscl_jax.evaluation.options import NO_CHECKPOINT, Options
from glscl_jax.evaluation.run_card import Stages
from glscl_jax.evaluation.run_card_text import title
from glscl_jax.evaluation.task import Task, check_split, open_task
from glscl_jax.retrieval import encoded_split, encoding, metrics, split_scores
from glscl_jax.retrieval.encoded_split import EncodedSplit
from glscl_jax.retrieval.split_scores import Scored
from glscl_jax.runtime import launch


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """An evaluation under way.

    Attributes:
      options: what was asked for.
      task: checkpoint, tokenizer and data.
      stores: where features of its splits are kept, by split; empty if they are not.
      encoder: of the checkpoint's model.
      stages: takes the time of each step.
    """

    options: Options
    task: Task
    stores: dict[str, encoded_split.Store]
    encoder: encoding.Encoder
    stages: Stages

    @classmethod
    def open(cls, options: Options, stages: Stages) -> "Evaluator":
        """Opens all that is asked for, and finds whatever could go wrong before it is encoded.

        Raises:
          UserError: naming what is not there, damaged, or does not fit the rest.
        """
        if options.checkpoint is None:
            raise UserError(NO_CHECKPOINT)
        launch.check_agreement(options.config, options.shared, places=PLACES)
        options.check()
        if options.save_features and jax.process_count() > 1:
            raise UserError("--save_features works in one process only: leave it out")
        task = open_task(
            options.checkpoint, options.config, options.split, options.step, options.out
        )
        if options.single_vector:
            single_vectors.head_of(task.loaded.head)
        videos = task.data.splits[task.split]
        options.check_top_k(task.split, videos)
        splits = [task.split]
        if options.rerank == "qbnorm":
            splits.append(bank_split(options, task))
            if (k := options.qb_k) > videos:
                raise UserError(f"--qb_k {k}: split {task.split!r} has {videos} videos")
        stores = {}
        if options.save_features:
            kept = paths.local(options.save_features, "--save_features")
            stores = {split: task.store(kept, split) for split in splits}
        encoder = encoding.Encoder(task.loaded.model, task.mesh)
        return cls(options, task, stores, encoder, stages)

    def encode(self, split: str, label: str = "") -> tuple[EncodedSplit, str]:
        """A split's features, and whether they were encoded now, in part, or read from the store.

        Args:
          split: of the data.
          label: of it, in the names of stages: "bank " or nothing.
        """
        task, store = self.task, self.stores.get(split)
        if store and store.complete:
            with self.stages(f"read {label}features"):
                return encoded_split.load_features(store.directory, self.task.loaded.head), "read"
        size = task.config.eval_batch_size
        kept = store.done * size if store else 0
        encoded = encoding.encode_split(
            self.encoder,
            task.loaded.params,
            task.batches(split, kept),
            functools.partial(task.tokenizer, length=task.config.data.num_words),
            batch_size=size,
            total=task.data.splits[split],
            keep=store,
        )
        self.stages.seconds[f"encode {label}videos"] = encoded.seconds["video"]
        self.stages.seconds[f"encode {label}captions"] = encoded.seconds["text"]
        return encoded, "resumed" if kept else "encoded"

    def rank(self, encoded: EncodedSplit) -> tuple[Scored, metrics.Retrieval, dict]:
        """The scores by which to rank, the ranks, and what the run card says of post-processing."""
        options, task = self.options, self.task
        head = task.loaded.head
        head = single_vectors.head_of(head) if options.single_vector else head
        scores = split_scores.Scored(encoded, head, task.mesh)
        facts = {"method": options.rerank}
        if options.rerank == "none":
            # Never whole, so scoring and ranking are one.
            with self.stages("score and rank"):
                return scores, scores.retrieval(), facts
        if options.rerank == "qbnorm":
            settings, split = options.query_bank, bank_split(options, task)
            bank, _ = self.encode(split, "bank ")
            if common := set(bank.clip_ids) & set(encoded.clip_ids):
                raise UserError(
                    f"clip {min(common)!r} is in split {split!r} and in {task.split!r} "
                    f"({len(common)} such clips): a bank may hold nothing of what is evaluated"
                )
            with self.stages("score"):
                scores = split_scores.query_bank_norm(scores, encoded, bank, **settings)
            facts |= {name: dataclasses.asdict(value) for name, value in settings.items()}
            facts["bank"] = run_card.split_facts(bank, split)
        else:
            with self.stages("score"):
                scores = split_scores.dual_softmax(scores, encoded, options.dsl_temperature)
            facts["temperature"] = options.dsl_temperature
        with self.stages("rank"):
            return scores, scores.retrieval(), facts

    def write_report(
        self, encoded: EncodedSplit, result: metrics.Retrieval, scores: Scored, card: dict
    ) -> None:
        """Writes report.html; frames are read again from the prepared data."""
        task = self.task
        places = {clip_id: place for place, clip_id in enumerate(encoded.clip_ids)}
        report.write_report(
            task.out,
            title=title(card),
            retrieval=result,
            encoded=encoded,
            scores_of=scores.row,
            head=task.loaded.head,
            frames_of=lambda clip_id: task.frames(task.split, places[clip_id]),
            examples=self.options.examples,
            intervals={name: card[name]["interval_95"] for name in rank_files.DIRECTIONS},
            notes=run_card.caveats(card),
            ranked="by single vectors" if card["single_vector"] else "after post-processing",
        )


def bank_split(options: Options, task: Task) -> str:
    """QB-Norm's bank; never what is evaluated."""
    split = options.qb_split or task.config.data.train_split
    check_split(task.data, split, "--qb_split")
    if split == task.split:
        raise UserError(
            f"--qb_split {split}: the bank would be the very queries that are evaluated; take the "
            "training split"
        )
    return split
