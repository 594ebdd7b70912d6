"""A checkpoint as a model of `mteb`, for its text-to-video and video-to-text retrieval tasks.

    import mteb
    from glscl_jax.evaluation.mteb_model import MTEBModel

    model = MTEBModel.load("runs/msrvtt")
    mteb.evaluate(model, mteb.get_tasks(["MSRVTTT2V", "MSRVTTV2T"]))

What is scored is the head's own score, exactly, every text against every video: the model is one
that searches (mteb's `SearchProtocol`), not one that gives a vector each (its `EncoderProtocol`).
Videos are read by this library's decoder from their files' bytes, so that torchcodec is not
needed, and their frames picked as the run was trained. Tracks of sound are not heard. Prompts of
tasks have no part: a caption is read as it is.
"""

import functools
import hashlib
import os
import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from glscl_jax.checkpoints.model_dir import parameters_sha256
from glscl_jax.errors import UserError
from glscl_jax.models.heads.features import Features
from glscl_jax.retriever import BATCH_SIZE, Retriever, load

INSTALL = "mteb is not installed: pip install -r requirements-mteb.txt"


class MTEBModel:
    """What `mteb.evaluate` takes, around a `Retriever`.

    Attributes:
      retriever: what encodes and scores.
      name: as mteb's results have it, "glscl-jax/NAME".
    """

    def __init__(self, retriever: Retriever, name: str):
        """`name` tells it from other models in mteb's results."""
        self.retriever, self.name = retriever, f"glscl-jax/{name}"
        self._corpus: tuple[list[str], str, Features] | None = None

    @classmethod
    def load(cls, directory: str | os.PathLike, *, step: int | None = None) -> "MTEBModel":
        """Reads a checkpoint directory, as `glscl_jax.load` does, and is named after it.

        Raises:
          UserError: there is no such checkpoint, or it is damaged.
        """
        return cls(load(directory, step=step), pathlib.Path(directory).absolute().name)

    @functools.cached_property
    def mteb_model_meta(self):
        """Its `mteb.models.ModelMeta`.

        mteb keeps results by name and revision, so the revision is made of all that scores are
        made of: parameters, settings of model and head, words, frames and their rate.

        Raises:
          UserError: mteb is not installed.
        """
        try:
            from mteb.models import ModelMeta
        except ModuleNotFoundError as error:
            raise UserError(INSTALL) from error
        model = self.retriever
        read = f"{model.num_words} {model.num_frames} {model.frame_rate}"
        made_of = f"{parameters_sha256(model.params)} {model.config} {model.head} {read}"
        told = {
            "name": self.name,
            "revision": hashlib.sha256(made_of.encode()).hexdigest()[:40],
            "n_parameters": sum(leaf.size for leaf in jax.tree.leaves(model.params)),
            "max_tokens": model.num_words,
            "framework": ["JAX"],
            "modalities": ["text", "video"],
            "use_instructions": False,
        }
        return ModelMeta.create_empty(told)

    def index(self, corpus, *, task_metadata, encode_kwargs: Mapping[str, Any], **where) -> None:
        """Encodes a task's documents, all of them texts or all of them videos.

        Args:
          corpus: a `datasets.Dataset` with "id", and "text" or "video".
          task_metadata: the task's.
          encode_kwargs: its "batch_size" is how many are encoded at once.
          where: split, subset and processes, which change nothing.

        Raises:
          UserError: the task is no retrieval of videos by texts or of texts by videos, or a video
            cannot be read.
        """
        queries, documents = _kinds(task_metadata)
        del queries, where
        self._corpus = (
            list(corpus["id"]),
            documents,
            self._encode(corpus, documents, encode_kwargs),
        )

    def search(
        self,
        queries,
        *,
        task_metadata,
        top_k: int,
        encode_kwargs: Mapping[str, Any],
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **where,
    ) -> dict[str, dict[str, float]]:
        """Scores a task's queries against the documents of `index`.

        Args:
          queries: a `datasets.Dataset` with "id", and "video" or "text".
          task_metadata: the task's.
          top_k: how many documents are told of a query, the best.
          encode_kwargs: as of `index`.
          top_ranked: of a query's id, the documents that alone are scored; None for all.
          where: as of `index`.

        Returns:
          By a query's id, the score of each of its best documents by id.

        Raises:
          UserError: as `index` does.
          ValueError: nothing was indexed.
        """
        if self._corpus is None:
            raise ValueError("nothing to search in: call index first")
        ids, documents, indexed = self._corpus
        asked = self._encode(queries, _kinds(task_metadata)[0], encode_kwargs)
        if documents == "video":
            scores = self.retriever.score(asked, indexed)
        else:
            scores = self.retriever.score(indexed, asked).T
        places = {name: place for place, name in enumerate(ids)}
        found = {}
        for query, row in zip(queries["id"], scores, strict=True):
            among = np.arange(len(ids))
            if top_ranked is not None:
                among = np.array([places[name] for name in top_ranked.get(query, ())], int)
            best = among[np.argsort(-row[among], kind="stable")[:top_k]]
            found[query] = {ids[place]: float(row[place]) for place in best}
        return found

    def _encode(self, items, kind: str, encode_kwargs: Mapping[str, Any]) -> Features:
        """Features of a data set's texts or videos."""
        size = encode_kwargs.get("batch_size", BATCH_SIZE)
        if kind == "text":
            return self.retriever.encode_captions(_texts(items), batch_size=size)
        return self._encode_videos(items, size)

    def _encode_videos(self, items, size: int) -> Features:
        """Features of a data set's videos, of which a batch at a time lies on disk."""
        from datasets import Video

        # Undecoded: a file's bytes, or where it lies.
        items = items.cast_column("video", Video(decode=False))
        parts = []
        for first in range(0, len(items), size):
            with tempfile.TemporaryDirectory() as folder:
                rows = items.select(range(first, min(first + size, len(items))))
                files = [_file(row, place, pathlib.Path(folder)) for place, row in enumerate(rows)]
                parts.append(self.retriever.encode_video_files(files, batch_size=size))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _kinds(task_metadata) -> tuple[str, str]:
    """What a task's queries and its documents are, each "text" or "video", and not the same."""
    from mteb.types import PromptType

    sides = (PromptType.query, PromptType.document)
    read = [set(task_metadata.get_modalities(side)) - {"audio"} for side in sides]
    if read not in ([{"text"}, {"video"}], [{"video"}, {"text"}]):
        raise UserError(
            f"{task_metadata.name} is a task of category {task_metadata.category}: take one that "
            "finds videos by texts (t2v) or texts by videos (v2t)"
        )
    queries, documents = (side.pop() for side in read)
    return queries, documents


def _texts(items) -> list[str]:
    """The texts, of a document its title before it, as mteb joins them."""
    titles = items["title"] if "title" in items.column_names else [""] * len(items)
    return [
        f"{title or ''} {text}".strip() for title, text in zip(titles, items["text"], strict=True)
    ]


def _file(row: Mapping[str, Any], place: int, folder: pathlib.Path) -> pathlib.Path:
    """The place-th video as a file: where it lies, or its bytes, written into `folder`."""
    name, video = row["id"], row["video"]
    if video["bytes"] is None:
        path = pathlib.Path(video["path"])
        if not path.is_file():
            raise UserError(f"video {name!r}: {path} is not there: load the task's data again")
        return path
    # What cannot be read is told by its path, so that is of the id; what a file is its bytes say.
    path = folder / f"{place}-{re.sub(r'[^A-Za-z0-9.-]+', '_', name)[-100:]}"
    path.write_bytes(video["bytes"])
    return path
