"""Time and memory of converting a full-size CLIP: ViT-L/14 with random weights.

    python -m benchmarks.convert

Writes a Hugging Face directory of 428 million parameters (1.7 GB), converts it with
`python -m convert.clip` in a process of its own, and takes that process's time and the most
memory it ever held. Fails above 60 s, or 2.2 times the parameters' size in float32.

Takes 16 s for the conversion on 2 cores of an Intel Xeon; what comes before it was not measured.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

SECONDS, TIMES_PARAMETERS = 60.0, 2.2
REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


def main() -> int:
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        source, out = (str(pathlib.Path(folder) / name) for name in ("source", "out"))
        # In a process of its own, whose memory does not count.
        subprocess.run([sys.executable, "-m", __spec__.name, source], cwd=REPOSITORY, check=True)
        size = (pathlib.Path(source) / "model.safetensors").stat().st_size
        seconds, peak = timed([sys.executable, "-m", "convert.clip", source, out])
    times = peak / size
    print(f"convert.clip, ViT-L/14 from a Hugging Face directory, {size / 1e9:.2f} GB in float32")
    print(machine())
    print(f"{'time':<12} {seconds:6.1f} s    (at most {SECONDS:.0f})")
    print(
        f"{'peak memory':<12} {peak / 1e9:6.2f} GB   {times:.2f} times the parameters "
        f"(at most {TIMES_PARAMETERS})"
    )
    return int(seconds > SECONDS or times > TIMES_PARAMETERS)


def timed(command: list[str]) -> tuple[float, int]:
    """Runs a command that must succeed; its seconds and its most bytes of memory."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=REPOSITORY)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - start, usage.ru_maxrss * unit


def machine() -> str:
    # Imports JAX, which the process that is measured must not inherit the memory of.
    from benchmarks.machine import machine

    return machine()


def write_source(directory: str) -> None:
    """A ViT-L/14 of random weights with the tokenizer of the demo, as transformers saves one."""
    import numpy as np
    from flax import traverse_util

    from convert.naming import rules, sizes
    from convert.naming.published_names import HUGGING_FACE
    from convert.readers import hugging_face
    from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
    from glscl_jax.models.encoders.variants import VARIANTS

    config, random = VARIANTS["ViT-L/14"], np.random.default_rng(0)
    arrays = {
        path: random.standard_normal(shape, dtype=np.float32)
        for path, shape in sizes.parameter_shapes(config).items()
    }
    params = traverse_util.unflatten_dict(arrays, sep="/")
    tensors = rules.to_torch_names(params, HUGGING_FACE)
    tokenizer = CLIPTokenizer.from_merges(DEMO_MERGES)
    hugging_face.write_directory(pathlib.Path(directory), tensors, config, tokenizer)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write_source(sys.argv[1])
    else:
        sys.exit(main())
