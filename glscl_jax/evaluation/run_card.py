"""What a result is a result of: results.json, and results.md to read.

With it somebody else can repeat the evaluation and see that it is the same one: which parameters,
captions and videos (by SHA-256), how they were scored and ranked, on what, in what time.
"""

import contextlib
import hashlib
import importlib.metadata
import pathlib
import platform
import time
from collections.abc import Iterator

import numpy as np
from jax.sharding import Mesh

from glscl_jax.checkpoints.model_dir import LoadedModel, read_origin, read_run_config
from glscl_jax.errors import UserError
from glscl_jax.evaluation import published_results
from glscl_jax.evaluation.published_results import Published
from glscl_jax.evaluation.run_card_text import LABELS, page
from glscl_jax.figures import DIRECTIONS
from glscl_jax.files import write_json, write_text
from glscl_jax.input_pipeline.cut_captions import Cut
from glscl_jax.models.encoders.variants import variant_of
from glscl_jax.retrieval import bootstrap, metrics
from glscl_jax.retrieval.encoded_split import EncodedSplit
from glscl_jax.version import __version__

RESULTS, READABLE = "results.json", "results.md"


class Stages:
    """Wall time of named stages, in seconds."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Times its body."""
        begun = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begun


def lines_sha256(lines: list[str]) -> str:
    """SHA-256 of lines, sorted: what `LC_ALL=C sort FILE | sha256sum` prints for a file of them."""
    return hashlib.sha256(b"".join(sorted(f"{line}\n".encode() for line in lines))).hexdigest()


def checkpoint_facts(loaded: LoadedModel, sha256: str) -> dict:
    """Which parameters, and where they came from: a converted file, or a run of `train`."""
    origin = {}
    if said := read_origin(loaded.directory):
        origin = {key: said.get(key) for key in ("source", "format", "sha256", "date")}
    elif said := read_run_config(loaded.directory):
        origin = {key: said.get(key) for key in ("seed", "batch_size", "num_epochs", "num_steps")}
        origin["init_from"] = pathlib.Path(said.get("init_from") or "").name or None
    return {
        "directory": loaded.directory.name,
        "step": loaded.step,
        "variant": variant_of(loaded.config.clip),
        "parameters_sha256": sha256,
        "origin": origin,
    }


def split_facts(encoded: EncodedSplit, split: str) -> dict:
    """Which captions and videos; the captions' hash is of lines "clip id, tab, caption"."""
    owners = [encoded.clip_ids[b] for b in encoded.owner]
    told = [f"{clip}\t{text}" for clip, text in zip(owners, encoded.captions, strict=True)]
    return {
        "split": split,
        "clip_ids_sha256": lines_sha256(encoded.clip_ids),
        "captions_sha256": lines_sha256(told),
        "texts": len(encoded.captions),
        "videos": len(encoded.clip_ids),
        "frames_decoded": encoded.frames_decoded,
    }


def direction_facts(result: metrics.Retrieval, owner: np.ndarray, legacy: bool) -> dict:
    """Both directions' figures under every tie rule, with 95 % intervals of the mean rank's.

    Captions of one video are drawn together: they are not independent.
    """
    facts = metrics.summary(result)
    for name, groups in zip(DIRECTIONS, (owner, None), strict=True):
        places = getattr(result, name)
        drawn = bootstrap.intervals(places.mean, groups=groups)
        facts[name]["interval_95"] = {key: [x.low, x.high] for key, x in drawn.items()}
        if legacy:
            facts[name]["legacy"] = metrics.recalls(metrics.legacy_ranks(places)).as_dict()
    return facts


def published_facts(row: Published | None, videos: int) -> dict | None:
    """The paper's row, where the split is one that it reports, and how the gallery differs."""
    if row is None:
        return None
    return {
        "benchmark": row.benchmark,
        "source": published_results.SOURCE,
        "differs": published_results.differing_videos(row, videos),
        **{name: getattr(row, name).as_dict() for name in DIRECTIONS},
    }


def machine_facts(mesh: Mesh) -> dict:
    """The devices and the versions that decide the numbers."""
    device = mesh.devices.flat[0]
    return {
        "device": f"{mesh.size} x {device.device_kind} ({device.platform})",
        "versions": {
            "glscl_jax": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy")},
        },
    }


def notes(card: dict) -> list[str]:
    """What a reader of the figures must not overlook."""
    return caveats(card) + [
        f"{tied:,} of {card[name]['queries']:,} {label} queries have ties"
        for name, label in DIRECTIONS.items()
        if (tied := card[name]["tied_queries"])
    ]


def caveats(card: dict) -> list[str]:
    """`notes` without those on ties."""
    data, found = card["data"], []
    if (method := card["rerank"]["method"]) != "none":
        found.append(f"post-processed: {LABELS[method]}")
    if single := card.get("single_vector"):
        found.append(_beside_exact(card, single))
    if data["partial"]:
        found.append(f"a part of the data set only: {data['partial']}")
    if data["failed"]:
        found.append(
            f"{data['failed']:,} clips of this split could not be read when it was prepared and "
            "are not in the gallery"
        )
    if cut := Cut(**data["cut"]).describe(data["split"]):
        found.append(cut)
    if gallery := card.get("gallery") or (card["published"] or {}).get("differs"):
        found.append(gallery)
    if card["trained_otherwise"]:
        found.append(f"trained with {card['trained_otherwise']}")
    # Cards of earlier versions say nothing of the head.
    return found + card.get("head", {}).get("remarks", [])


def _beside_exact(card: dict, single: dict) -> str:
    """What ranking by single vectors is, and how far from the exact score's."""
    told = ", ".join(
        f"{label} R@1 {card[name]['mean']['R@1']:.1f}, by its own score "
        f"{single[name]['exact']['R@1']:.1f}, the same best item for "
        f"{single[name]['same_best']:.1f} % of queries"
        for name, label in DIRECTIONS.items()
    )
    return f"ranked by one vector a text and one a video, not by the head's own score: {told}"


def write_card(out: pathlib.Path, card: dict) -> None:
    """Writes results.json and results.md into `out`, each whole or not at all."""
    try:
        write_json(out / RESULTS, card)
        write_text(out / READABLE, page(card))
    except OSError as error:
        raise UserError(f"{out / RESULTS} cannot be written: {error.strerror}") from error
