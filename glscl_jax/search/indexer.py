"""Makes an index of a folder of videos, or of a prepared data set, or brings one up to date."""

import contextlib
import dataclasses
import os
import pathlib
import uuid
from typing import TYPE_CHECKING, Any

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.models.glscl import config_of
from glscl_jax.models.heads.single_vector import has_vectors
from glscl_jax.retriever import Retriever, load
from glscl_jax.search import engine, location, metadata, provenance, video_folder
from glscl_jax.search.index_options import REMEMBERED, Options
from glscl_jax.search.index_run import IndexRun, Report
from glscl_jax.search.qdrant_vectors import QdrantVectors
from glscl_jax.search.store import INDEX, Store, unwritten
from glscl_jax.search.window_reader import Reading
from glscl_jax.search.windows import Cut

if TYPE_CHECKING:
    from glscl_jax.search.prepared_split import PreparedSplit

_SPLIT = "test"
_ANY = "glscl"


def index_videos(index: str | os.PathLike, **options) -> Report:
    """Indexes a folder or a split: adds what is new or changed, takes out what is gone.

    Args:
      index: the directory; made if it is not there.
      options: fields of `Options`.

    Raises:
      UserError: naming what is missing, damaged, or does not fit the index.
    """
    asked = Options(index, **options)
    asked.check()
    engine.module("lancedb")
    place = location.of(asked.index)
    with contextlib.ExitStack() as held:
        if paths.is_address(asked.index):
            # What is in it is known when it was fetched.
            held.enter_context(place.written())
        directory = place.path
        there = (directory / INDEX).is_file()
        about = Store.open(directory).about if there else {}
        asked.check_source(about, directory)
        asked = asked.resumed(about)
        _check_qdrant(asked, options.get("qdrant"))
        cut, prepared = Cut(asked.window, asked.stride), _prepared(asked)
        if prepared:
            prepared.check_only(asked.only)
            cut = Cut(0.0)
            asked = dataclasses.replace(asked, frame_rate=prepared.data.settings.frame_rate)
            asked = dataclasses.replace(asked, data_dir=prepared.data_dir, split=prepared.split)
        else:
            folder = _videos(asked, about)
            found = video_folder.videos_of(folder, bool(asked.follow_links), asked.only)
            told = metadata.read_for([video.name for video in found], folder, asked.metadata)
        if not paths.is_address(asked.index):
            held.enter_context(place.written())
        store, model, reading = _opened(asked, directory, cut, prepared)
        try:
            run = IndexRun(store, model, reading, asked, place)
            return run.run_prepared(prepared) if prepared else run.run(found, told)
        except OSError as error:
            raise unwritten(directory, error) from error


def _check_qdrant(asked: Options, given: str | None) -> None:
    """Raises a `UserError` where there is no such server; before the index remembers it."""
    if asked.qdrant and asked.neighbours:
        # Any name: what is asked is whether it answers.
        _ = QdrantVectors.at(asked.qdrant, _ANY, 0).there
    elif given:
        raise UserError("--qdrant keeps the neighbours of windows: add --neighbours")


def _prepared(asked: Options) -> "PreparedSplit | None":
    if not asked.data_dir:
        return None
    # Here, as it takes TensorFlow.
    from glscl_jax.search.prepared_split import PreparedSplit

    return PreparedSplit.open(asked.data_dir, asked.split or _SPLIT)


def _videos(asked: Options, about: dict[str, Any]) -> pathlib.Path:
    if asked.videos is None and "videos" not in about:
        raise UserError("--videos is missing: name the folder to index")
    return paths.local(asked.videos or about["videos"], "--videos").absolute()


def _opened(
    asked: Options, directory: pathlib.Path, cut: Cut, prepared: "PreparedSplit | None"
) -> tuple[Store, Retriever, Reading]:
    """The index to write to, the model and how videos are read; all must go together."""
    store = Store.open(directory) if (directory / INDEX).is_file() else None
    checkpoint = asked.checkpoint or (store and store.about["checkpoint"])
    if not checkpoint:
        raise UserError("--checkpoint is missing: name a directory that train or convert wrote")
    if store and asked.checkpoint is None:
        where = f"--index {directory}"
        model = provenance.load_for(
            store.about["made_of"], checkpoint, store.about.get("step"), where
        )
    else:
        model = load(checkpoint, step=asked.step)
    if model.tokenizer is None:
        raise UserError(
            f"--checkpoint {os.fspath(checkpoint)} has no tokenizer, so no sentence could be"
            " asked: convert its source again with --tokenizer"
        )
    if asked.neighbours and not has_vectors(type(model.head)):
        raise UserError(f"--neighbours: the head {model.head.name} has no one vector for them")
    most = config_of(model.config, model.params).most_frames
    if most is not None and (asked.num_frames or 0) > most:
        raise UserError(f"--num_frames {asked.num_frames}: the model takes at most {most}")
    images = model.config.clip.preprocessing
    reading = Reading(
        cut,
        images.size,
        asked.frame_rate or model.frame_rate,
        asked.num_frames or model.num_frames,
        images.resize,
        images.interpolation,
        asked.pictures_rate,
    )
    told = {"dtype": asked.dtype, **dataclasses.asdict(reading)}
    made = provenance.of_model(model) | {"reading": told}
    if prepared:
        prepared.check(images)
        made |= prepared.made_of
    if not paths.is_address(checkpoint):
        checkpoint = str(paths.local(checkpoint, "--checkpoint").absolute())
    lies = {"checkpoint": checkpoint, "step": model.step}
    if asked.metadata is not None:
        lies["metadata"] = str(paths.local(asked.metadata, "--metadata").absolute())
    lies |= {name: getattr(asked, name) for name in REMEMBERED if name not in lies}
    if asked.qdrant:
        # A server may have those of many indexes.
        known = store.about.get("collection") if store else None
        lies["collection"] = known or f"glscl_{uuid.uuid4().hex}"
    if store:
        store.check_provenance(made)
    else:
        store = Store.create(directory, {"made_of": made, "videos": "", **lies})
    store.sweep()
    videos = prepared.data_dir if prepared else str(_videos(asked, store.about))
    store.change(videos=videos, **lies)
    return store, model, reading
