"""An index in an accelerator's memory: what a query takes of features that are kept there.

They are drawn at random where they lie, block by block, in the place of files, and are scored and
kept by what `glscl_jax.search` does with an index. Needs jax, flax, numpy and absl alone.
"""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.search.made import FRAMES, HEAD, QUERIES, TOP, WIDTH
from glscl_jax.models.heads.features import TextFeatures
from glscl_jax.models.heads.gim import einsum
from glscl_jax.retrieval.ranking import TopK
from glscl_jax.search.scan import Scan, windows_of

DTYPE = jnp.bfloat16
# Bytes a second, as the data sheets have them; by the device's name.
DATA_SHEETS = {"H100 80GB HBM3": 3.35e12, "H200": 4.8e12, "A100-SXM4-80GB": 2.04e12}
# What of the windows of one number is drawn from which stream.
_CENTRES, _FRAMES, _QUERIES = range(3)
_REPEATS = 15


class Drawn:
    """Rows of an array that are drawn on the device when they are sliced, each time the same.

    Args:
      make: from the first row's number and how many, the rows.
      shape: of the whole array.
      dtype: of it.
    """

    def __init__(self, make: Callable, shape: tuple[int, ...], dtype):
        self._make, self.shape, self.dtype = make, shape, jnp.dtype(dtype)

    def __getitem__(self, rows: slice) -> jax.Array:
        start, stop, _ = rows.indices(self.shape[0])
        return self._make(start, stop - start)


def _normal(stream: int, first, shape) -> jax.Array:
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), stream), first)
    return jax.random.normal(key, shape, DTYPE)


@functools.partial(jax.jit, static_argnums=1)
def _frames(first, count):
    centres = _normal(_CENTRES, first, (count, 1, WIDTH))
    return centres + 0.5 * _normal(_FRAMES, first, (count, FRAMES, WIDTH))


@functools.partial(jax.jit, static_argnums=1)
def _queries(first, count):
    drawn = _normal(_QUERIES, first, (count, QUERIES, WIDTH)).astype(jnp.float32)
    return (drawn / jnp.linalg.norm(drawn, axis=-1, keepdims=True)).astype(DTYPE)


@functools.partial(jax.jit, static_argnums=1)
def _mask(first, count):
    return jnp.full((count, FRAMES), 1, jnp.int32) + 0 * first


@functools.partial(jax.jit, static_argnums=1)
def _prepared(first, count):
    frames = _frames(first, count)
    return HEAD.prepare(HEAD.video_features(frames, _mask(first, count), frames[:, :0]))


def drawn(count: int) -> dict[str, Drawn]:
    """What `scan.to_arrays` would keep of so many windows."""
    return {
        "features.frames": Drawn(_frames, (count, FRAMES, WIDTH), DTYPE),
        "features.mask": Drawn(_mask, (count, FRAMES), jnp.int32),
        "features.queries": Drawn(_queries, (count, QUERIES, WIDTH), DTYPE),
        "prepared.0": Drawn(_prepared, (count, FRAMES, FRAMES), jnp.float32),
    }


def asked(count: int) -> TextFeatures:
    """Sentences and concepts of so many queries, float32 on the host."""
    random = np.random.default_rng(1)
    queries = random.standard_normal((count, QUERIES, WIDTH), np.float32)
    queries /= np.linalg.norm(queries, axis=-1, keepdims=True)
    sentence = random.standard_normal((count, WIDTH), np.float32)
    return TextFeatures(sentence, queries)


def in_float64(text: TextFeatures, frames: np.ndarray, queries: np.ndarray) -> float:
    """The score of one text and one window, by the formula."""
    sentence, concepts = (np.asarray(x[0], np.float64) for x in (text.sentence, text.queries))
    frames, queries = (np.asarray(x, np.float64) for x in (frames, queries))
    logits = frames @ sentence
    weights = np.exp((logits - logits.max()) / HEAD.temperature)
    pooled = weights @ frames
    cosine = pooled @ sentence / np.linalg.norm(pooled) / np.linalg.norm(sentence)
    return cosine + HEAD.lim_weight * np.mean(np.sum(concepts * queries, axis=-1))


def seconds(run: Callable[[], object], times: int = _REPEATS) -> float:
    """The median of some runs, after one that compiles."""
    run()
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))


def measure(count: int) -> None:
    """Prints what it takes."""
    device = jax.local_devices()[0]
    begun = time.perf_counter()
    windows, rows = windows_of(HEAD, drawn(count)), np.arange(count)
    # A CPU would not keep them; here to see that the program works.
    on_cpu = device.platform == "cpu"
    scan = Scan(windows, HEAD, kept_bytes=2**62 if on_cpu else None)
    each = sum(x.dtype.itemsize * int(np.prod(x.shape[1:])) for x in jax.tree.leaves(windows))
    room = scan.blocks.kept_bytes
    print(
        f"{count:,} windows of {each:,} bytes, {each * count / 1e9:.1f} GB, in blocks of"
        f" {scan.blocks.size:,}",
        flush=True,
    )
    whole = -(-count // scan.blocks.size) * scan.blocks.size * each
    if whole > room:
        raise SystemExit(f"{device.device_kind} keeps {room / 1e9:.1f} GB: give fewer --windows")
    text = asked(1)
    best = scan.top(text, TOP, rows)
    print(f"drawn and scored for the first time in {time.perf_counter() - begun:.1f} s", flush=True)
    worst = rounding(scan, text, best)
    print(f"the {TOP} best scores differ from float64's by {worst:.1e} at most", flush=True)
    plain = reading(scan, rows)
    sheet = next((x for name, x in DATA_SHEETS.items() if name in device.device_kind), None)
    print(f"a maximum over all of it: {each * count / plain / 1e9:,.0f} GB/s", flush=True)
    for number in (1, 50):
        text_of = asked(number)
        taken = seconds(lambda text_of=text_of: scan.top(text_of, TOP, rows))
        rate = each * count / taken
        share = f", {rate / sheet:.0%} of the data sheet's" if sheet else ""
        print(
            f"{number} at once, the {TOP} best: {1e3 * taken:.2f} ms,"
            f" {1e3 * taken / number:.2f} ms a query, {rate / 1e9:,.0f} GB/s,"
            f" {plain / taken:.0%} of the maximum's{share}",
            flush=True,
        )
    parts(scan, rows)
    copied()
    print(f"all of it in {time.perf_counter() - begun:.0f} s")


def rounding(scan: Scan, text: TextFeatures, best: TopK) -> float:
    """How far the scores of what was found are from those of float64, at most."""
    differences = []
    for row, score in zip(best.items[0].tolist(), best.scores[0], strict=True):
        # Rows are drawn a block at a time.
        first = row // scan.blocks.size * scan.blocks.size
        size = min(scan.blocks.size, scan.blocks.count - first)
        frames, queries = (
            np.asarray(make(first, size)[row - first]) for make in (_frames, _queries)
        )
        differences.append(abs(in_float64(text, frames, queries) - score))
    return max(differences)


def reading(scan: Scan, rows: np.ndarray) -> float:
    """Seconds of the simplest program that reads all the windows."""

    @jax.jit
    def largest(windows):
        return [jnp.max(leaf) for leaf in jax.tree.leaves(windows)]

    def run():
        jax.block_until_ready([largest(block.windows) for block in scan.blocks.over(rows)])

    return seconds(run)


def parts(scan: Scan, rows: np.ndarray) -> None:
    """Prints where the time goes: a block's scores, its frames' logits in other ways, the host."""
    block = next(iter(scan.blocks.over(rows)))
    blocks = -(-len(rows) // scan.blocks.size)
    frames = block.windows.features.frames
    for number in (1, 64):
        text = jax.device_put(asked(number))
        halves = jax.tree.map(lambda x: x.astype(DTYPE), text)
        ways = {
            "scores": lambda text=text: scan.block_scores(text, block),
            "scores, queries rounded": lambda text=halves: scan.block_scores(text, block),
            "logits, float32 by bfloat16": lambda c=text.sentence: _logits(frames, c),
            "logits, bfloat16 by bfloat16": lambda c=halves.sentence: _logits(frames, c),
            "logits, float32 in three parts": lambda c=text.sentence: _logits_of_parts(frames, c),
        }
        for name, way in ways.items():
            taken = seconds(lambda way=way: jax.block_until_ready(way()))
            print(
                f"one of {blocks} blocks, {number} queries, {name}: {1e3 * taken:.3f} ms",
                flush=True,
            )
    walked = seconds(lambda: [None for _ in scan.blocks.over(rows)])
    print(f"the host walks through the blocks in {1e3 * walked:.2f} ms")


@jax.jit
def _logits(frames, sentence):
    return einsum("BVD,AD->BVA", frames, sentence)


@jax.jit
def _logits_of_parts(frames, sentence):
    """A float32 is the sum of three bfloat16, whose products with others are exact in float32."""
    parts, left = [], sentence
    for _ in range(3):
        rounded = jax.lax.reduce_precision(left, exponent_bits=8, mantissa_bits=7)
        parts.append(rounded.astype(DTYPE))
        left = left - rounded
    found = einsum("BVD,AD->BVA", frames, jnp.concatenate(parts))
    return found.reshape(*found.shape[:2], 3, len(sentence)).sum(axis=2)


def copied(size: int = 2**29) -> None:
    """Prints how fast the first query brings features here."""
    array = np.ones(size, np.int8)
    taken = seconds(lambda: jax.block_until_ready(jax.device_put(array)), 3)
    print(f"from the host's memory to the device: {size / taken / 1e9:.1f} GB/s")
