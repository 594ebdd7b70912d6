"""Evaluates a checkpoint on a split: recall in both directions, and what it is the recall of.

    python -m glscl_jax.evaluate --checkpoint runs/demo --config configs/demo.py
    python -m glscl_jax.evaluate --checkpoint runs/demo --split val --out results/val
    python -m glscl_jax.evaluate compare results/one results/other

The checkpoint is a work directory of `train` (its best step by validation R@1, unless --step
says another) or what `convert` wrote. Without --config a work directory's own is used, changed by
what is given of it: --config.data.dir=ELSEWHERE where the data has moved. Into --out go
results.json (the run card), results.md (the same to read), ranks.csv (every query's rank) and
report.html. `compare` says by which figures two such directories differ by more than noise.
With --encodings nothing is ranked: what the encoders make of every split is kept, and
`glscl_jax.train --features` trains heads from it; --features here ranks by such a head.

Post-processing is off unless asked for. --rerank=qbnorm is QB-Norm with the training split as its
bank. --rerank=dual_softmax uses all test queries at once (transductive): its figures do not
compare with those of single queries.

In Python the same is `from glscl_jax.evaluate import evaluate`, which returns the run card:

    card = evaluate("runs/demo", split="val", out="results/val")
"""

import contextlib
import dataclasses
import itertools
import os
import re
import sys
from collections.abc import Mapping

import jax
from absl import flags
from ml_collections import config_flags

from glscl_jax import compare, paths
from glscl_jax.checkpoints.model_dir import at_hand
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from glscl_jax.evaluation import compile_for, encodings, from_features, rank_files, report, run_card
from glscl_jax.evaluation.evaluator import Evaluator
from glscl_jax.evaluation.options import NO_CHECKPOINT, Options
from glscl_jax.evaluation.run_card_text import LABELS, terminal, title
from glscl_jax.evaluation.single_vectors import beside_exact
from glscl_jax.evaluation.task import facts
from glscl_jax.retrieval import encoding, metrics
from glscl_jax.runtime import config_file, launch, launch_flags, mirror, processes, program

_CHECKPOINT, _CONFIG = "checkpoint", "config"


def evaluate(checkpoint: str | os.PathLike, **options) -> dict | None:
    """Encodes a split, ranks it, and writes what is found.

    Args:
      checkpoint: a directory that `train` or `convert` wrote; a path, or an address in a bucket.
      options: fields of `evaluation.options.Options`, which the program has as flags.

    Returns:
      The run card, as results.json has it. Of several processes (`launch.join`) the first has
      it, the others None.

    Raises:
      UserError: naming what is not there, damaged, or does not fit the rest.
    """
    with contextlib.ExitStack() as claims:
        asked = Options(checkpoint, **options)
        kept = processes.by_all(lambda: _kept(asked, claims))
        local = {name: folder.path for name, folder in kept.items()}
        return _evaluate(dataclasses.replace(asked, **local), kept)


def _kept(options: Options, claims: contextlib.ExitStack) -> dict[str, mirror.Kept]:
    """Local folders in place of those to write to in buckets, by option, until `claims` close."""
    kept = {}

    def keep(name: str, address: str | os.PathLike | None, flag: str, reads: bool) -> None:
        # Of several processes the first alone writes.
        if address and paths.is_address(address) and not jax.process_index():
            folder = mirror.written(address, flag, fetch=reads, watch=reads)
            kept[name] = claims.enter_context(folder)

    if options.out is None:
        keep("out", options.checkpoint, "--checkpoint", reads=False)
    keep("out", options.out, "--out", reads=False)
    keep("save_features", options.save_features, "--save_features", reads=True)
    return kept


def _evaluate(options: Options, kept: Mapping[str, mirror.Kept]) -> dict | None:
    """As `evaluate`, into local folders."""
    stages = run_card.Stages()
    with stages("load"):
        evaluator = Evaluator.open(options, stages)
    task = evaluator.task
    encoded, origin = evaluator.encode(task.split)
    encoding.check_encoded(encoded, task.loaded.head)
    scores, result, rerank = evaluator.rank(encoded)
    beside = None
    if options.single_vector:
        with stages("exact score"):
            beside = beside_exact(encoded, task.loaded.head, task.mesh, scores)
    if jax.process_index():
        return None

    with stages("intervals"):
        card = facts(
            task,
            encoded,
            result,
            legacy=options.legacy_ties,
            rerank=rerank,
            single_vector=beside,
        )
    card |= {"features": origin, "seconds": stages.seconds}
    print(f"\n{title(card)}\n{metrics.table(result)}\n{terminal(card)}", flush=True)
    rank_files.write_ranks(task.out, result, encoded)
    # Twice: nothing that follows can cost the results, and then its time is known, too.
    run_card.write_card(task.out, card)
    if options.top_k is not None:
        with stages("best items"):
            rank_files.write_top(task.out, scores.top(options.top_k), encoded)
    if options.report:
        with stages("report"):
            evaluator.write_report(encoded, result, scores, card)
    run_card.write_card(task.out, card)
    written = [run_card.READABLE, run_card.RESULTS, rank_files.RANKS]
    written += [rank_files.TOP] * (options.top_k is not None) + [report.NAME] * options.report
    told = f"written to {task.out}: {', '.join(written)}"
    for folder in kept.values():
        folder.finish()
        told = folder.told(told)
    print(told)
    return card


def _define_flags() -> None:
    paths.define(
        _CHECKPOINT,
        None,
        "A directory that train or convert wrote. It, --out and --save_features may be addresses in"
        " a bucket, s3:// or gs://.",
        bucket=True,
    )
    config_flags.DEFINE_config_file(
        _CONFIG, None, "Where the data is and how it is read; the work directory's own by default."
    )
    flags.DEFINE_string("split", None, "The split; config.data.test_split by default.")
    flags.DEFINE_integer("step", Options.step, "A step of the work directory, instead of the best.")
    paths.define("out", None, "Where the results go; into the checkpoint by default.", bucket=True)
    paths.define(
        "save_features",
        None,
        "A directory to keep features in. What it has of this checkpoint and data is read, not"
        " encoded again; an encode that was interrupted goes on.",
        bucket=True,
    )
    paths.define(
        "encodings",
        None,
        "Ranks nothing: keeps what the encoders make of all frames and captions in this directory,"
        " of every split or of --split, for glscl_jax.train --features.",
    )
    paths.define(
        "features",
        None,
        "Ranks by the checkpoint's head what encoders made before: kept by --encodings, or another"
        " encoder's (docs/heads.md). No clip is read, and there is no report.",
    )
    flags.DEFINE_boolean(
        "legacy_ties",
        Options.legacy_ties,
        "Also count ties as the released metric does: each tied item is a hit.",
    )
    flags.DEFINE_boolean(
        "single_vector",
        Options.single_vector,
        "Rank by one vector a caption and one a video, where the head has them, and say how far"
        " that is from its own score.",
    )
    flags.DEFINE_enum(
        "rerank", Options.rerank, list(LABELS), "Post-processing; dual_softmax is transductive."
    )
    flags.DEFINE_string("qb_split", None, "QB-Norm's bank; config.data.train_split by default.")
    flags.DEFINE_integer("qb_k", Options.qb_k, "A bank query votes for its k best items.")
    flags.DEFINE_float("qb_beta", Options.qb_beta, "QB-Norm's inverse temperature.")
    flags.DEFINE_integer(
        "qb_theta", Options.qb_theta, "Votes that make a video active (text-to-video)."
    )
    flags.DEFINE_integer(
        "qb_theta_v2t", Options.qb_theta_v2t, "The same of a caption (video-to-text)."
    )
    flags.DEFINE_float(
        "dsl_temperature",
        Options.dsl_temperature,
        "Of the dual softmax: scores are multiplied by it.",
    )
    flags.DEFINE_integer(
        "top_k",
        Options.top_k,
        "Write every query's best items, so many, with their scores into top.csv.",
    )
    flags.DEFINE_boolean("report", Options.report, "Write report.html, with pictures and examples.")
    flags.DEFINE_integer(
        "examples",
        Options.examples,
        "Queries in report.html of the best, of the median and of the worst each.",
    )
    flags.DEFINE_string(
        "compile_for",
        "",
        "Evaluates nothing: compiles encoders, scores and ranking for devices that are not here, "
        "e.g. v5e:2x2 or h100x8, and says whether they fit, what they compute, send and may take.",
    )
    launch_flags.define()


def main(_) -> int | None:
    """Runs the program."""
    values = {name: flags.FLAGS[name].value for name in flags.FLAGS}
    options = Options(**{field.name: values[field.name] for field in dataclasses.fields(Options)})
    others = [name for name in ("compile_for", "encodings", "features") if values[name]]
    for name, other in itertools.pairwise(others):
        raise UserError(f"give one of --{name} and --{other}")
    for name in others:
        options.check_beside(name)
    if asked := values["compile_for"]:
        program.refuse_beside("compile_for", launch_flags.NAMES)
        return compile_for.run(asked, options.config, options.checkpoint, options.out)
    with launch.join(launch_flags.given()):
        if directory := values["encodings"]:
            print(encodings.encode(directory, options), flush=True)
        elif directory := values["features"]:
            from_features.evaluate_features(directory, options)
        else:
            evaluate(**vars(options))
    return None


def take_own_config() -> None:
    """Makes --config.x=y a change of the work directory's config where no --config is given."""
    config = re.compile(r"--?(no)?config\.")
    if _CONFIG in given_flags() or not any(map(config.match, sys.argv)):
        return
    if not (checkpoint := given_flags().get(_CHECKPOINT)):
        raise UserError(NO_CHECKPOINT)
    with at_hand(checkpoint, name="--checkpoint") as directory:
        own = Workdir(directory).config()
    config_file.check(_CONFIG, sys.argv, own)
    delattr(flags.FLAGS, _CONFIG)
    config_flags.DEFINE_config_dict(_CONFIG, own)


def given_flags() -> dict[str, str]:
    """The arguments of the form --name=value and --name value, by name, before they are parsed."""
    found = {}
    for argument, following in itertools.pairwise([*sys.argv[1:], ""]):
        name, equals, value = argument.partition("=")
        if name.startswith("-"):
            found[name.lstrip("-")] = value if equals else following
    return found


COMMANDS = {"compare": program.Command(compare.main, compare.POSITIONAL)}


def cli() -> None:
    """Runs the program."""
    _define_flags()
    program.run(main, commands=COMMANDS, before_flags=take_own_config)


if __name__ == "__main__":
    cli()
