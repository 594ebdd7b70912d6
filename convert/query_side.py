"""A model's text side as files that run without this library: for a server, or another language.

text.jaxexport   the text tower and the head's text part, as StableHLO, for CPUs, GPUs and TPUs
text.npz         their parameters
tokenizer.json   captions to ids, or a model of SentencePiece
cleaning.py      what is done to a caption before
card.json        what goes in, what comes out, and of which model
query.py         how the rest is used
text.onnx        of one text at a time, where it is asked for (`onnx_text`)
"""

import dataclasses
import inspect
import json
import os
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import export

import glscl_jax
from convert import checkpoint_output, onnx_text, query_example
from glscl_jax.checkpoints.model_dir import parameters_sha256
from glscl_jax.errors import UserError
from glscl_jax.files import write_json
from glscl_jax.input_pipeline import cleaning
from glscl_jax.input_pipeline.tokenizer import Portable
from glscl_jax.models.glscl import GLSCL, config_of, encode_text
from glscl_jax.models.heads.settings import settings_of_head
from glscl_jax.retriever import Retriever, load

PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM, PARAMETERS, CARD, CLEANING = "text.jaxexport", "text.npz", "card.json", "cleaning.py"
EXAMPLE, VECTOR = "query.py", "text_vector"
# (parameters by path, ids int32 [A,L], mask int32 [A,L]) -> features by name.
TextSide = Callable[[dict, jax.Array, jax.Array], dict]


@dataclasses.dataclass(frozen=True)
class Program:
    """The text side, compiled for no device yet.

    Attributes:
      exported: what `jax.export` makes of it; the number of texts, A, is left open.
      parameters: those that it reads, by path.
    """

    exported: export.Exported
    parameters: dict[str, np.ndarray]


def export_queries(
    path: str | os.PathLike,
    out: str | os.PathLike,
    step: int | None = None,
    *,
    onnx: bool = False,
):
    """Writes a folder of the files above.

    Args:
      path: a checkpoint directory, or its address in a bucket.
      out: the folder, which is not there yet.
      step: of a work directory; the best by validation R@1.
      onnx: whether to write `onnx_text.FILE`, too.

    Raises:
      UserError: the checkpoint cannot be read, has no tokenizer, or the folder is there already; or
        as `onnx_text.write` does.
    """
    out = pathlib.Path(out)
    checkpoint_output.check_free(out)
    model = load(path, step=step)
    if model.tokenizer is None:
        raise UserError(
            f"{os.fspath(path)} has no tokenizer: convert its source again with --tokenizer"
        )
    made, portable = program(model), model.tokenizer.portable(model.num_words)
    with checkpoint_output.unfinished(out) as folder:
        folder.mkdir()
        (folder / PROGRAM).write_bytes(made.exported.serialize())
        np.savez(folder / PARAMETERS, **made.parameters)
        (folder / portable.file).write_bytes(portable.content)
        (folder / CLEANING).write_text(inspect.getsource(cleaning), encoding="utf-8")
        (folder / EXAMPLE).write_text(query_example.source(portable), encoding="utf-8")
        write_json(folder / CARD, _card(model, made, portable))
        if onnx:
            worst = onnx_text.write(*_one_text(model, made), folder)
            print(f"{onnx_text.FILE}: onnxruntime's features are the model's to {worst:.0e}")
    count = sum(array.size for array in made.parameters.values())
    told = f"{count:,} parameters, {model.num_words} words, for {', '.join(PLATFORMS)}"
    print(f"{out}: {told}; {EXAMPLE} in it shows the use")


def program(model: Retriever) -> Program:
    """Traces the text side of a model.

    Parameters are arguments and no constants of it: those of a large tower would be more than a
    file of StableHLO holds, and compiling would take twice their memory.
    """
    encode = text_side(model)
    flat = traverse_util.flatten_dict(model.params, sep="/")
    names = _read_by(encode, flat, model.num_words)
    flat = {name: np.asarray(flat[name]) for name in names}
    # NumPy's own files have no half precision of 8 bits' exponent; wider, the numbers are the same.
    flat = {name: x if x.dtype.kind == "f" else x.astype(np.float32) for name, x in flat.items()}
    made = export.export(jax.jit(encode), platforms=PLATFORMS)
    return Program(made(_shapes(flat), *_texts(model.num_words)), flat)


def text_side(model: Retriever) -> TextSide:
    """What is exported: `encode_text`, and the head's one vector a text, where it has one."""
    # Whichever device traces it, no kernel is taken that the others have not.
    config = dataclasses.replace(config_of(model.config, model.params), attention="plain")
    head = config.head
    # Modules look at parameters that texts have no use for, but at their shapes alone.
    others = {
        name: np.broadcast_to(np.zeros((), x.dtype), x.shape)
        for name, x in traverse_util.flatten_dict(model.params, sep="/").items()
    }

    def encode(parameters, text_ids, text_mask):
        params = traverse_util.unflatten_dict(others | parameters, sep="/")
        features = encode_text(params, text_ids, text_mask, model=GLSCL(config))
        found = dict(vars(features))
        if (vector := head.text_vector(features)) is not None:
            found[VECTOR] = vector
        return found

    return encode


def _one_text(model: Retriever, made: Program) -> tuple[onnx_text.OneText, list]:
    """The text side of one text with its parameters, and texts of several lengths to try it on."""
    encode = text_side(model)
    parameters = jax.tree.map(jnp.asarray, made.parameters)
    captions = ("a", "a dog runs on the beach", "a dog and " * model.num_words)
    batch = model.tokenizer(captions, model.num_words)
    ids, mask = (np.asarray(x, np.int32) for x in (batch.ids, batch.mask))
    texts = [(ids[n : n + 1], mask[n : n + 1]) for n in range(len(captions))]
    return (lambda ids, mask: encode(parameters, ids, mask)), texts


def _read_by(encode: TextSide, flat: dict, words: int) -> list[str]:
    """The names of the parameters that the text side reads."""
    traced = jax.make_jaxpr(encode)(_shapes(flat), *_texts(words, "a")).jaxpr
    read = {id(one) for equation in traced.eqns for one in equation.invars}
    # Arguments are flattened in the order of their sorted names, the texts behind them.
    return [name for name, one in zip(sorted(flat), traced.invars, strict=False) if id(one) in read]


def _shapes(flat: dict) -> dict:
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in flat.items()}


def _texts(words: int, count: str = "A") -> tuple:
    """Ids and mask of any number of texts."""
    (any_number,) = export.symbolic_shape(count)
    one = jax.ShapeDtypeStruct((any_number, words), np.int32)
    return one, one


def _card(model: Retriever, made: Program, portable: Portable) -> dict:
    exported = made.exported
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    texts = {"shape": ["A", model.num_words], "dtype": "int32"}
    frame = dataclasses.asdict(model.tokenizer.frame)
    return {
        "format": 1,
        "inputs": {
            "parameters": PARAMETERS,
            "text_ids": texts,
            "text_mask": texts | {"told": "1 on tokens, 0 on padding"},
        },
        "outputs": {
            output: {"shape": [_size(n) for n in x.shape], "dtype": x.dtype.name}
            for output, x in outputs.items()
        },
        "program": {
            "file": PROGRAM,
            "texts": "any number, A",
            "platforms": list(exported.platforms),
            "calling_convention_version": exported.calling_convention_version,
            "jax": jax.__version__,
        },
        "tokenizer": {
            "library": portable.package,
            "file": portable.file,
            "cleaning": portable.cleaning,
            "before": portable.before,
            "length": model.num_words,
            **frame,
        },
        "model": {
            "step": model.step,
            "parameters_sha256": parameters_sha256(model.params),
            "head": json.loads(json.dumps(settings_of_head(model.head))),
            "written_by": f"glscl-jax {glscl_jax.__version__}",
        },
    }


def _size(number) -> int | str:
    return number if isinstance(number, int) else str(number)
