"""Evaluates a checkpoint on a split: recall in both directions, and what it is the recall of.

    python -m glscl_jax.evaluate --checkpoint runs/demo --config configs/demo.py
    python -m glscl_jax.evaluate --checkpoint runs/demo --split val --out results/val
    python -m glscl_jax.evaluate compare results/one results/other

The checkpoint is a work directory of `train` (its best step by validation R@1, unless --step
says another) or what `convert` wrote. Without --config a work directory's own is used, changed by
what is given of it: --config.data.dir=ELSEWHERE where the data has moved. Into --out go
results.json (the run card), results.md (the same to read), ranks.csv (every query's rank) and
report.html. `compare` says by which figures two such directories differ by more than noise.

Post-processing is off unless asked for. --rerank=qbnorm is QB-Norm with the training split as its
bank. --rerank=dual_softmax uses all test queries at once (transductive): its figures do not
compare with those of single queries.
"""

import dataclasses
import functools
import itertools
import re
import sys

import jax
from absl import flags
from ml_collections import config_flags

from glscl_jax import compare, paths
from glscl_jax.checkpoints.workdir import PLACES, Workdir
from glscl_jax.errors import UserError
from glscl_jax.evaluation import compile_for, rank_files, report, run_card
from glscl_jax.evaluation.run_card_text import terminal, title
from glscl_jax.evaluation.task import Task, check_split, facts, open_task
from glscl_jax.retrieval import encoded_split, encoding, metrics, split_scores
from glscl_jax.retrieval.encoded_split import EncodedSplit
from glscl_jax.retrieval.rerank import QBNorm
from glscl_jax.runtime import config_file, launch, program

NO_CHECKPOINT = "--checkpoint is missing: name a directory that train or convert wrote"

CHECKPOINT = paths.define("checkpoint", None, "A directory that train or convert wrote.")
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Where the data is and how it is read; the work directory's own by default."
)
SPLIT = flags.DEFINE_string("split", None, "The split; config.data.test_split by default.")
STEP = flags.DEFINE_integer("step", None, "A step of the work directory, instead of the best.")
OUT = paths.define("out", None, "Where the results go; into the checkpoint by default.")
SAVE_FEATURES = paths.define(
    "save_features",
    None,
    "A directory to keep features in. What it has of this checkpoint and data is read, not encoded"
    " again; an encode that was interrupted goes on.",
)
LEGACY_TIES = flags.DEFINE_boolean(
    "legacy_ties", False, "Also count ties as the released metric does: each tied item is a hit."
)
RERANK = flags.DEFINE_enum(
    "rerank", "none", list(run_card.LABELS), "Post-processing; dual_softmax is transductive."
)
QB_SPLIT = flags.DEFINE_string(
    "qb_split", None, "QB-Norm's bank; config.data.train_split by default."
)
QB_K = flags.DEFINE_integer("qb_k", 1, "A bank query votes for its k best items.")
QB_BETA = flags.DEFINE_float("qb_beta", 70.0, "QB-Norm's inverse temperature.")
QB_THETA = flags.DEFINE_integer("qb_theta", 3, "Votes that make a video active (text-to-video).")
QB_THETA_V2T = flags.DEFINE_integer("qb_theta_v2t", 5, "The same of a caption (video-to-text).")
DSL_TEMPERATURE = flags.DEFINE_float(
    "dsl_temperature", 100.0, "Of the dual softmax: scores are multiplied by it."
)
TOP_K = flags.DEFINE_integer(
    "top_k", None, "Write every query's best items, so many, with their scores into top.csv."
)
REPORT = flags.DEFINE_boolean("report", True, "Write report.html, with pictures and examples.")
EXAMPLES = flags.DEFINE_integer(
    "examples", 5, "Queries in report.html of the best, of the median and of the worst each."
)


COMPILE_FOR = flags.DEFINE_string(
    "compile_for",
    "",
    "Evaluates nothing: compiles encoders, scores and ranking for devices that are not here, e.g. "
    "v5e:2x2 or h100x8, and says whether they fit and what they compute, send and may take.",
)


def main(_):
    if COMPILE_FOR.value:
        return compile_for.run(COMPILE_FOR.value, CONFIG.value, CHECKPOINT.value, OUT.value)
    with launch.joined():
        return evaluate()


def take_own_config() -> None:
    """Makes --config.x=y a change of the work directory's config where no --config is given."""
    config = re.compile(r"--?(no)?config\.")
    if CONFIG.name in given_flags() or not any(map(config.match, sys.argv)):
        return
    if not (checkpoint := given_flags().get(CHECKPOINT.name)):
        raise UserError(NO_CHECKPOINT)
    own = Workdir(checkpoint).config()
    config_file.check(CONFIG.name, sys.argv, own)
    delattr(flags.FLAGS, CONFIG.name)
    config_flags.DEFINE_config_dict(CONFIG.name, own)


def given_flags() -> dict[str, str]:
    """The arguments of the form --name=value and --name value, by name, before they are parsed."""
    found = {}
    for argument, following in itertools.pairwise([*sys.argv[1:], ""]):
        name, equals, value = argument.partition("=")
        if name.startswith("-"):
            found[name.lstrip("-")] = value if equals else following
    return found


def evaluate() -> None:
    """Encodes, ranks, and writes what is found."""
    stages = run_card.Stages()
    with stages("load"):
        task, stores = opened()
    encoder = encoding.Encoder(task.loaded.model, task.mesh)
    encoded, origin = encode(task, encoder, task.split, stores, stages)
    encoding.check_split(encoded)
    scores, result, rerank = rank(task, encoder, encoded, stores, stages)
    if jax.process_index():
        return

    with stages("intervals"):
        card = facts(task, encoded, result, legacy=LEGACY_TIES.value, rerank=rerank)
    card |= {"features": origin, "seconds": stages.seconds}
    print(f"\n{title(card)}\n{metrics.table(result)}\n{terminal(card)}", flush=True)
    rank_files.write_ranks(task.out, result, encoded)
    # Twice: nothing that follows can cost the results, and then its time is known, too.
    run_card.write_card(task.out, card)
    if TOP_K.value is not None:
        with stages("best items"):
            rank_files.write_top(task.out, scores.top(TOP_K.value), encoded)
    if REPORT.value:
        with stages("report"):
            write_report(task, encoded, result, scores, card)
    run_card.write_card(task.out, card)
    written = [run_card.READABLE, run_card.RESULTS, rank_files.RANKS]
    written += [rank_files.TOP] * (TOP_K.value is not None) + [report.NAME] * REPORT.value
    print(f"written to {task.out}: {', '.join(written)}")


def opened() -> tuple[Task, dict[str, encoded_split.Store]]:
    """The task, and where features of its splits are kept; raises a `UserError` for bad flags."""
    if CHECKPOINT.value is None:
        raise UserError(NO_CHECKPOINT)
    # Where checkpoint and results lie is each host's own affair.
    launch.check_agreement(
        CONFIG.value,
        {flag.name: flag.value for flag in (SPLIT, STEP, SAVE_FEATURES, TOP_K, LEGACY_TIES)}
        | {flag.name: flag.value for flag in (RERANK, QB_SPLIT, QB_K, QB_BETA, QB_THETA)}
        | {flag.name: flag.value for flag in (QB_THETA_V2T, DSL_TEMPERATURE, REPORT, EXAMPLES)},
        places=PLACES,
    )
    settings = query_bank_settings()
    if DSL_TEMPERATURE.value <= 0:
        raise UserError(f"--dsl_temperature {DSL_TEMPERATURE.value:g}: take one above 0")
    if EXAMPLES.value < 1:
        raise UserError(f"--examples {EXAMPLES.value}: take 1 or more, or --noreport")
    if SAVE_FEATURES.value and jax.process_count() > 1:
        raise UserError("--save_features works in one process only: leave it out")
    task = open_task(CHECKPOINT.value, CONFIG.value, SPLIT.value, STEP.value, OUT.value)
    videos = task.data.splits[task.split]
    if TOP_K.value is not None and not 1 <= TOP_K.value <= videos:
        raise UserError(f"--top_k {TOP_K.value}: split {task.split!r} has {videos} videos")
    splits = [task.split]
    if RERANK.value == "qbnorm":
        splits.append(bank_split(task))
        if (k := settings["t2v"].k) > videos:
            raise UserError(f"--qb_k {k}: split {task.split!r} has {videos} videos")
    if not SAVE_FEATURES.value:
        return task, {}
    return task, {split: task.store(SAVE_FEATURES.value, split) for split in splits}


def bank_split(task: Task) -> str:
    """QB-Norm's bank; never what is evaluated."""
    split = QB_SPLIT.value or task.config.data.train_split
    check_split(task.data, split, "--qb_split")
    if split == task.split:
        raise UserError(
            f"--qb_split {split}: the bank would be the very queries that are evaluated; take the "
            "training split"
        )
    return split


def query_bank_settings() -> dict[str, QBNorm]:
    """QB-Norm's settings, by direction."""
    common = {"k": QB_K.value, "beta": QB_BETA.value}
    return {
        "t2v": QBNorm(**common, theta=QB_THETA.value),
        "v2t": QBNorm(**common, theta=QB_THETA_V2T.value),
    }


def encode(
    task: Task, encoder, split: str, stores: dict, stages, label: str = ""
) -> tuple[EncodedSplit, str]:
    """A split's features, and whether they were encoded now, in part, or read from the store."""
    store = stores.get(split)
    if store and store.complete:
        with stages(f"read {label}features"):
            return encoded_split.load_features(store.directory), "read"
    size = task.config.eval_batch_size
    kept = store.done * size if store else 0
    encoded = encoding.encode_split(
        encoder,
        task.loaded.params,
        task.batches(split, kept),
        functools.partial(task.tokenizer, length=task.config.data.num_words),
        batch_size=size,
        total=task.data.splits[split],
        keep=store,
    )
    stages.seconds[f"encode {label}videos"] = encoded.seconds["video"]
    stages.seconds[f"encode {label}captions"] = encoded.seconds["text"]
    return encoded, "resumed" if kept else "encoded"


def rank(task: Task, encoder, encoded: EncodedSplit, stores: dict, stages):
    """The scores by which to rank, the ranks, and what the run card says of post-processing."""
    scores = split_scores.Scored(encoded, task.loaded.head, task.mesh)
    facts = {"method": RERANK.value}
    if RERANK.value == "none":
        # Never whole, so scoring and ranking are one.
        with stages("score and rank"):
            return scores, scores.retrieval(), facts
    if RERANK.value == "qbnorm":
        settings, split = query_bank_settings(), bank_split(task)
        bank, _ = encode(task, encoder, split, stores, stages, "bank ")
        if common := set(bank.clip_ids) & set(encoded.clip_ids):
            raise UserError(
                f"clip {min(common)!r} is in split {split!r} and in {task.split!r} ({len(common)} "
                "such clips): a bank may hold nothing of what is evaluated"
            )
        with stages("score"):
            scores = split_scores.query_bank_normed(scores, encoded, bank, **settings)
        facts |= {name: dataclasses.asdict(value) for name, value in settings.items()}
        facts["bank"] = run_card.split_facts(bank, split)
    else:
        with stages("score"):
            scores = split_scores.dual_softmaxed(scores, encoded, DSL_TEMPERATURE.value)
        facts["temperature"] = DSL_TEMPERATURE.value
    with stages("rank"):
        return scores, scores.retrieval(), facts


def write_report(task: Task, encoded: EncodedSplit, result, scores, card: dict) -> None:
    """Writes report.html; frames are read again from the prepared data."""
    places = {clip_id: place for place, clip_id in enumerate(encoded.clip_ids)}
    report.write_report(
        task.out,
        title=title(card),
        retrieval=result,
        encoded=encoded,
        scores_of=scores.row,
        head=task.loaded.head,
        frames_of=lambda clip_id: task.frames(task.split, places[clip_id]),
        examples=EXAMPLES.value,
        intervals={name: card[name]["interval_95"] for name in rank_files.DIRECTIONS},
        notes=run_card.caveats(card),
    )


def compared(argv) -> None:
    """Says by which figures two results differ by more than noise.

        python -m glscl_jax.evaluate compare results/one results/other

    RUN_A and RUN_B are two directories that evaluations on the same split wrote (--out). Printed
    are the figures of both, B's less A's, and the difference's 95 % interval by a paired bootstrap
    of the queries. There are no flags.
    """
    a, b = map(compare.read_run, argv[1:])
    print(compare.table(a, b, compare.compare(a, b)))


COMMANDS = {"compare": program.Command(compared, ("RUN_A", "RUN_B"))}

if __name__ == "__main__":
    program.run(main, commands=COMMANDS, before_flags=take_own_config)
