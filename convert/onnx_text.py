"""The text side as ONNX, of one text at a time, held against the model's own by onnxruntime."""

import logging
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.extend
import numpy as np

from glscl_jax.errors import UserError

FILE, INPUTS = "text.onnx", ("text_ids", "text_mask")
# The largest difference of a feature that is written.
ACCURATE = 1e-4
_PIP = "pip install -r requirements-onnx.txt"
_WARNINGS_OFF = 3

# (ids int32 [1,L], mask int32 [1,L]) -> features by name.
OneText = Callable[[jax.Array, jax.Array], dict[str, jax.Array]]


def write(encode: OneText, texts: Sequence[tuple[np.ndarray, np.ndarray]], folder: pathlib.Path):
    """Writes `FILE`, and tries it.

    Args:
      encode: the text side, with its parameters.
      texts: ids and masks, int32 [1,L] each, to compare with.
      folder: where to.

    Returns:
      the largest difference of a feature.

    Raises:
      UserError: what it needs is not installed; the model cannot be written as ONNX, or onnxruntime
        does not load it, or gives other features.
    """
    try:
        import jax2onnx
        import onnxruntime
    except ImportError as error:
        raise UserError(f"--onnx needs {error.name}, which is not installed: {_PIP}") from error
    logging.getLogger("jax2onnx").setLevel(logging.ERROR)
    path, one = folder / FILE, jax.ShapeDtypeStruct(texts[0][0].shape, np.int32)
    encode = jax.jit(encode)
    names = sorted(encode(*texts[0]))
    # Traced by jax2onnx itself, Flax's loop over the blocks fails: it is given what JAX traced.
    traced = jax.make_jaxpr(lambda *text: [_own(encode(*text)[name]) for name in names])(one, one)
    try:
        jax2onnx.to_onnx(
            lambda ids, mask: tuple(jax.extend.core.jaxpr_as_fun(traced)(ids, mask)),
            [one, one],
            model_name="text",
            return_mode="file",
            output_path=path,
            input_names=list(INPUTS),
            output_names=names,
        )
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = _WARNINGS_OFF
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        worst = max(_difference(session, encode, names, *each) for each in texts)
    # Both have many kinds of errors.
    except Exception as error:
        told = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise UserError(
            f"--onnx: this model cannot be written so ({told}): leave it out"
        ) from error
    if not worst <= ACCURATE:
        raise UserError(
            f"--onnx: onnxruntime's features differ from the model's by {worst:.1e}, more than"
            f" {ACCURATE:g}: leave it out"
        )
    return worst


def _own(output: jax.Array) -> jax.Array:
    """An output that is no input, as a mask may be: ONNX has one name for either."""
    return output if output.dtype.kind == "f" else output + 0


def _difference(session, encode: OneText, names: list[str], ids, mask) -> float:
    wanted = encode(ids, mask)
    found = session.run(names, dict(zip(INPUTS, (ids, mask), strict=True)))
    differences = [
        np.abs(np.asarray(wanted[name], np.float64) - one).max(initial=0)
        for name, one in zip(names, found, strict=True)
    ]
    return float(np.max(differences))
