"""Evaluates a head on features that encoders made before, this library's or another's.

No clip, caption or tokenizer is there to be read: the run card says whose features they are, and
there is no report with pictures.
"""

import dataclasses
import datetime
import json
import os

import jax
from ml_collections import ConfigDict

from glscl_jax import paths
from glscl_jax.checkpoints.model_dir import LoadedModel, load_model, parameters_sha256
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from glscl_jax.evaluation import rank_files, run_card, single_vectors
from glscl_jax.evaluation.options import NO_CHECKPOINT, Options
from glscl_jax.evaluation.run_card_text import terminal, title
from glscl_jax.evaluation.task import writable
from glscl_jax.input_pipeline.cut_captions import Cut
from glscl_jax.retrieval import feature_identity, metrics
from glscl_jax.retrieval.encoded_split import IDENTITY
from glscl_jax.retrieval.feature_identity import trained_on
from glscl_jax.retrieval.split_scores import Scored
from glscl_jax.retrieval.tower_features import TowerFeatures, read_features
from glscl_jax.runtime import sharding
from glscl_jax.training import precomputed_features, recipe


def evaluate_features(directory: str | os.PathLike, options: Options) -> dict:
    """Ranks a split by a checkpoint's head, and writes run card and ranks.

    Args:
      directory: the features of all splits.
      options: checkpoint, config, step, split and `out`; no post-processing, no report.

    Returns:
      The run card, as results.json has it.

    Raises:
      UserError: naming what is not there, damaged, or does not fit the rest.
    """
    if options.checkpoint is None:
        raise UserError(NO_CHECKPOINT)
    if jax.process_count() > 1:
        raise UserError("--features works in one process only")
    options.check_beside("features")
    options.check()
    stages, mesh = run_card.Stages(), sharding.make_mesh()
    with stages("load"):
        where = sharding.replicated(mesh)
        loaded = load_model(options.checkpoint, where, options.step, encodes=False)
        head = single_vectors.head_of(loaded.head) if options.single_vector else loaded.head
        config = options.config or Workdir(loaded.directory).config()
        recipe.check_reading(config, loaded.config)
        sharding.check_batch_size(config.eval_batch_size, mesh, "eval_batch_size")
        split = options.split or config.data.test_split
        kept = read_features(directory, split, tokens=loaded.head.reads_tokens)
        called = f"--features {directory}, {split}"
        precomputed_features.check_sizes(called, kept, config, loaded.config)
        sha256 = parameters_sha256(loaded.params)
        _check_owner(called, kept, loaded, sha256)
        options.check_top_k(split, len(kept.ids))
        out = writable(paths.local(options.out or loaded.directory, "--out"))
    with stages("encode from features"):
        encode = precomputed_features.HeadEncoder(loaded.model, mesh, config.eval_batch_size)
        encoded = encode(loaded.params, kept)
    with stages("score and rank"):
        scores = Scored(encoded, head, mesh)
        result, beside = scores.retrieval(), None
        if options.single_vector:
            beside = single_vectors.beside_exact(encoded, loaded.head, mesh, scores)
    with stages("intervals"):
        card = _card(loaded, sha256, config, split, kept, encoded, result, options)
    card |= {"single_vector": beside}
    card |= {"notes": run_card.notes({**card, **run_card.machine_facts(mesh)})}
    card |= {**run_card.machine_facts(mesh), "seconds": stages.seconds}
    print(f"\n{title(card)}\n{metrics.table(result)}\n{terminal(card)}", flush=True)
    rank_files.write_ranks(out, result, encoded)
    run_card.write_card(out, card)
    written = [run_card.READABLE, run_card.RESULTS, rank_files.RANKS]
    if options.top_k is not None:
        rank_files.write_top(out, scores.top(options.top_k), encoded)
        written.append(rank_files.TOP)
    print(f"written to {out}: {', '.join(written)}")
    return card


def _check_owner(called: str, kept: TowerFeatures, loaded: LoadedModel, sha256: str) -> None:
    """Raises a `UserError` for features of another encoder than those that the head trained on."""
    theirs, named = feature_identity.owner_of(kept.identity), trained_on(loaded.directory)
    # What a run from clips says of its data names no encoder: that one is its own.
    known = {feature_identity.owner_of(x) for x in named.values()} or {sha256}
    if theirs not in known:
        raise UserError(
            f"{called}: they are of {theirs[:24]}, the head in {loaded.directory} is for those of "
            f"{min(known)[:24]}: give features of that encoder"
        )
    first = next(iter(named.values()), kept.identity)
    if found := feature_identity.unlike(first, kept.identity):
        raise UserError(
            f"{called}: they were made otherwise than those that the head in {loaded.directory} "
            f"trained on ({found}): give features that were made as those, and whose "
            f"{IDENTITY} says so"
        )


def _card(
    loaded: LoadedModel,
    sha256: str,
    config: ConfigDict,
    split: str,
    kept: TowerFeatures,
    encoded,
    result: metrics.Retrieval,
    options: Options,
) -> dict:
    """The run card, but for times, devices and notes."""
    figures = loaded.head.figures(encoded.text, encoded.video)
    return {
        "checkpoint": run_card.checkpoint_facts(loaded, sha256),
        "data": {
            "dataset": f"features of {feature_identity.owner_of(kept.identity)[:24]}",
            **run_card.split_facts(encoded, split),
            "failed": 0,
            "partial": "",
            "cut": dataclasses.asdict(Cut(len(encoded.captions), 0, config.data.num_words, 0)),
        },
        "settings": {
            "frames": kept.frames.shape[1],
            "dtype": loaded.config.dtype,
            "head": loaded.head.name,
            **dataclasses.asdict(loaded.head),
            "batch_size": config.eval_batch_size,
        },
        "head": {"figures": figures, "remarks": loaded.head.remarks(figures)},
        "tie_rule": "legacy" if options.legacy_ties else "mean",
        **run_card.direction_facts(result, encoded.owner, options.legacy_ties),
        "published": None,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "config": json.loads(config.to_json_best_effort()),
        "trained_otherwise": "",
        "rerank": {"method": "none"},
        "features": "kept",
    }
