"""The list of benchmarks, and what they keep away from: the library, its tests, and libraries."""

import subprocess
import sys

import pytest

from benchmarks import __main__ as listing
from tests.server import REPO
from tests.source_tree import imports

# What a machine with a GPU may lack: all but jax, flax, optax, orbax and what comes with them, and
# torch.
MISSING = (
    "PIL",
    "array_record",
    "av",
    "ftfy",
    "jinja2",
    "matplotlib",
    "ml_collections",
    "safetensors",
    "tensorboardX",
    "tensorflow",
    "tensorflow_datasets",
    "tokenizers",
)


def test_every_benchmark_is_listed(capsys):
    listing.main()
    printed = capsys.readouterr().out
    modules = [line.split()[-1] for line in printed.splitlines() if line.startswith("python -m ")]
    folders = {
        path.name for path in (REPO / "benchmarks").iterdir() if (path / "__init__.py").exists()
    }
    singles = {"convert", "demo_heads", "precision", "saving"}
    assert modules == sorted(f"benchmarks.{name}" for name in folders | singles)
    assert "5 minutes, --table 2 minutes, on 2 cores of an Intel Xeon" in printed
    assert "  Time and memory of converting a full-size CLIP" in printed


@pytest.mark.parametrize("where", ["Makefile", "README.md", "docs"])
def test_what_is_said_to_run_is_there(where):
    path = REPO / where
    text = "".join(
        file.read_text(encoding="utf-8") for file in [path, *path.glob("*.md")] if file.is_file()
    )
    told = {word.strip("`.,;:)") for word in text.split() if word.startswith("benchmarks.")}
    # What a benchmark has beside itself to run, such as its data's making, is not listed.
    beside = {
        ".".join(file.relative_to(REPO).with_suffix("").parts)
        for file in (REPO / "benchmarks").glob("*/*.py")
        if listing._is_run(file)
    }
    assert told <= beside | {benchmark.module for benchmark in listing.benchmarks()}


def test_nothing_needs_the_benchmarks():
    for part in ("glscl_jax", "convert", "configs", "yardsticks", "tests"):
        for path in (REPO / part).rglob("*.py"):
            if (REPO / "tests" / "benchmarks") not in path.parents:
                assert not {name for name in imports(path) if name.split(".")[0] == "benchmarks"}, (
                    path
                )


@pytest.mark.parametrize("program", ["figure1", "on_gpu"])
def test_what_runs_on_a_gpu_needs_no_more_than_a_training_step(program):
    found = set()
    for path in (REPO / "benchmarks" / program).glob("*.py"):
        found |= {name for name in imports(path) if name.startswith(("benchmarks.", "glscl_jax."))}
    code = "\n".join(
        [
            "import contextlib, importlib, sys",
            f"sys.modules.update(dict.fromkeys({MISSING}))",
            f"for name in {sorted(found)}:",
            "    package, _, last = name.rpartition('.')",
            "    try:",
            "        importlib.import_module(name)",
            "    except ModuleNotFoundError as error:",
            "        if error.name != name or not hasattr(importlib.import_module(package), last):",
            "            raise",
            f"import benchmarks.{program}.__main__",
        ]
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
