"""Ranks the windows of an index by a sentence, a video or a picture.

    python -m glscl_jax.search query --index my_index "a dog runs on the beach" --top 5
    python -m glscl_jax.search query --index my_index "a dog" --where "year >= 2024" --json
    python -m glscl_jax.search query --index my_index --sentences questions.txt
    python -m glscl_jax.search query --index my_index --like clip.mp4
    python -m glscl_jax.search query --index my_index --like clip.mp4 --captions captions.txt

The order is that of an evaluation: every window is scored, by the model's own score. Printed are
rank, score, file, the window's seconds, and the second of the frame that the sentence looked at
most. --like takes a video or a picture instead of a sentence; with --captions the sentences of that
file are ranked by it, and no window.
"""

import json
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import tables
from glscl_jax.runtime import program
from glscl_jax.search import index as searched
from glscl_jax.search import question
from glscl_jax.search.candidates import PROOFS
from glscl_jax.search.hit import Answer
from glscl_jax.search.index import Index


def _define_flags() -> None:
    paths.define(
        "index", None, "The directory of the index, or its address in a bucket.", bucket=True
    )
    paths.define("checkpoint", None, "Where its checkpoint lies now, if it was moved.", bucket=True)
    flags.DEFINE_integer("top", 10, "How many windows.")
    flags.DEFINE_string(
        "where", None, "A filter of SQL over the columns, e.g. \"year >= 2024 and place = 'Bern'\"."
    )
    flags.DEFINE_boolean("json", False, "Print JSON.")
    paths.define("sentences", None, "A file of sentences, one a line; all are asked.")
    paths.define("like", None, "A video file, a folder of numbered pictures, or a picture.")
    paths.define("captions", None, "With --like: a file of sentences to rank, one a line.")
    flags.DEFINE_integer(
        "candidates", None, "Score the so many nearest windows alone; the index needs --neighbours."
    )
    flags.DEFINE_enum(
        "proof",
        "check",
        list(PROOFS),
        "With --candidates: whether to say that they hold the best, or to go on until they do.",
    )


def main(argv) -> None:
    """Runs the program."""
    values = flags.FLAGS
    given = {name: values[name].value for name in ("index", "checkpoint", "sentences", "like")}
    if given["index"] is None:
        raise UserError("--index is missing: name the directory of the index")
    asked = _asked(argv[1:], given["sentences"], given["like"])
    captions = values["captions"].value
    if captions:
        if not given["like"]:
            raise UserError("--captions ranks sentences by a video: name it by --like")
        program.refuse_beside("captions", ("where", "candidates", "proof"))
    if values["proof"].present and values["candidates"].value is None:
        raise UserError(
            "--proof is of --candidates, a search of all windows needs none: leave it out"
        )
    if not 1 <= (top := values["top"].value) <= searched.MOST_HITS:
        raise UserError(f"--top is {top}: give a whole number, 1 to {searched.MOST_HITS}")
    index = searched.open(given["index"], checkpoint=given["checkpoint"])
    if captions:
        _rank_captions(index, given["like"], captions, top, values["json"].value)
        return
    how = {name: values[name].value for name in ("top", "where", "candidates", "proof")}
    if given["like"]:
        answers = [index.query_file(given["like"], **how)]
    else:
        answers = index.queries(asked, **how)
    if values["json"].value:
        told = [answer.as_json() for answer in answers]
        print(json.dumps(told if given["sentences"] else told[0], ensure_ascii=False, indent=2))
    else:
        print("\n\n".join(_table(answer) for answer in answers))


def _asked(words: Sequence[str], file: str | None, like: str | None) -> list[str]:
    """The sentences that are asked, before anything is loaded."""
    ways = [bool(words), file is not None, like is not None]
    if sum(ways) != 1:
        raise UserError(
            f"give one of a sentence, --sentences and --like, not {sum(ways) or 'none'}"
        )
    if file:
        return question.sentences(tables.text(pathlib.Path(file)), file)
    # Without quotation marks a sentence is several words.
    return [] if like else [question.sentence(" ".join(words))]


def _rank_captions(index: Index, like: str, file: str, top: int, as_json: bool) -> None:
    """Prints the sentences of a file that fit a video best."""
    asked = question.sentences(tables.text(pathlib.Path(file)), file)
    scores = index.rank_sentences(like, asked)
    order = np.argsort(-scores, kind="stable")[:top]
    if as_json:
        found = [{"score": float(scores[n]), "sentence": asked[n]} for n in order]
        print(json.dumps({"query": like, "sentences": found}, ensure_ascii=False, indent=2))
        return
    print(like)
    for rank, number in enumerate(order, 1):
        print(f"{rank:4}  {scores[number]:7.4f}  {asked[number]}")


def _table(answer: Answer) -> str:
    lines = [f"{answer.query} ({answer.told})"]
    width = max((len(hit.video) for hit in answer.hits), default=0)
    for hit in answer.hits:
        beside = ", ".join(f"{k} {v}" for k, v in hit.metadata.items() if v is not None)
        most = "" if hit.looks_evenly else f", most at {hit.time:.1f} s"
        lines.append(
            f"{hit.rank:4}  {hit.score:7.4f}  {hit.video:{width}}  {hit.start:.1f} to {hit.end:.1f}"
            f" s{most}{f'  ({beside})' if beside else ''}"
        )
    if not answer.hits:
        lines.append("no window is left: take another filter")
    return "\n".join(lines)


def cli() -> None:
    """Runs the program."""
    _define_flags()
    program.run(main, positional=None)


if __name__ == "__main__":
    cli()
