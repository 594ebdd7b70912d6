"""`query.py` of an exported text side: all that it takes to use the rest."""

from glscl_jax.input_pipeline.tokenizer import Portable

_HEAD = '''"""Sentences to a model's features, without the library that made it.

    python query.py "a dog runs on the beach"

Needs jax, numpy and {library}; ftfy besides for text that is broken, or has entities of HTML.
"""

import json
import pathlib
import sys

import {library}
import jax
import numpy as np
from cleaning import CLEANINGS
from jax import export

FOLDER = pathlib.Path(__file__).parent
CARD = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
HOW = CARD["tokenizer"]
PARAMETERS = jax.device_put(dict(np.load(FOLDER / "text.npz")))
TEXTS = jax.jit(export.deserialize((FOLDER / "text.jaxexport").read_bytes()).call)
'''

_TOKENIZERS = '''TOKENIZER = tokenizers.Tokenizer.from_file(str(FOLDER / HOW["file"]))


def tokenize(sentences):
    """Ids and mask, int32 [A,L] each."""
    rows = TOKENIZER.encode_batch([CLEANINGS[HOW["cleaning"]](text) for text in sentences])
    pairs = [(row.ids, row.attention_mask) for row in rows]
    return np.array(pairs, np.int32).transpose(1, 0, 2)
'''

_SENTENCEPIECE = '''FILE = str(FOLDER / HOW["file"])
PIECES = sentencepiece.SentencePieceProcessor(model_file=FILE)


def tokenize(sentences):
    """Ids and mask, int32 [A,L] each."""
    ids = np.full((len(sentences), HOW["length"]), HOW["pad_id"], np.int32)
    mask = np.zeros_like(ids)
    for row, text in enumerate(sentences):
        if HOW["before"]:
            text = "▁" + text.replace("▁", " ")
        text = HOW["before"] + CLEANINGS[HOW["cleaning"]](text)
        words = PIECES.encode(text)[len(PIECES.encode(HOW["before"])) :]
        room = HOW["length"] - len(HOW["start"]) - len(HOW["end"])
        tokens = [*HOW["start"], *words[:room], *HOW["end"]]
        places = slice(-len(tokens), None) if HOW["pad_left"] else slice(len(tokens))
        ids[row, places], mask[row, places] = tokens, 1
    return ids, mask
'''

_TAIL = '''

def features(sentences):
    """By name, what card.json calls outputs."""
    ids, mask = tokenize(sentences)
    return jax.device_get(TEXTS(PARAMETERS, ids, mask))


if __name__ == "__main__":
    for name, array in features(sys.argv[1:]).items():
        print(name, array.dtype, array.shape)
        print(array)
'''


def source(portable: Portable) -> str:
    """The file for a tokenizer."""
    middle = {"tokenizers": _TOKENIZERS, "sentencepiece": _SENTENCEPIECE}[portable.package]
    return _HEAD.format(library=portable.package) + middle + _TAIL
