"""TensorFlow, Triton, PyTorch in a fresh process: in one order it is a segmentation fault."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.conftest import REPO

# Everything that is run: `python -m PACKAGE.MODULE` imports the package first, tests theirs.
PACKAGES = ("glscl_jax", "convert", "benchmarks", "tests")


def run(code, **environment) -> str:
    """What a fresh Python prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPO,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout


@pytest.fixture
def tellers(tmp_path):
    """Packages `tensorflow` and `triton` that say when they are imported, before the real ones."""
    for name in ("tensorflow", "triton"):
        (tmp_path / f"{name}.py").write_text(f"print({name!r})\n", encoding="utf-8")
    return str(tmp_path)


@pytest.mark.parametrize("package", PACKAGES)
def test_triton_is_imported_before_tensorflow_and_only_with_it(tellers, package):
    code = f"import {package}; print('then'); import tensorflow; import triton"
    assert run(code, PYTHONPATH=tellers).split() == ["then", "triton", "tensorflow"]


def test_after_tensorflow_triton_is_as_if_it_were_not_installed(tellers):
    code = """
import tensorflow, glscl_jax
try:
    import triton
except ImportError:
    print("none")
"""
    assert run(code, PYTHONPATH=tellers).split() == ["tensorflow", "none"]


def test_a_triton_that_cannot_be_loaded_does_not_keep_tensorflow_away(tmp_path, tellers):
    (tmp_path / "triton.py").write_text("raise RuntimeError('no driver')\n", encoding="utf-8")
    code = "import glscl_jax, tensorflow; print('goes on')"
    assert run(code, PYTHONPATH=tellers).split() == ["tensorflow", "goes", "on"]


def test_the_logs_do_not_import_pytorch_which_can_be_imported_afterwards(tmp_path):
    (tmp_path / "torch.py").write_text("print('torch')\n", encoding="utf-8")
    code = "import glscl_jax.training.logbook; print('then'); import torch"
    assert run(code, PYTHONPATH=str(tmp_path)).split() == ["then", "torch"]


def installed(name) -> bool:
    return importlib.util.find_spec(name) is not None


@pytest.mark.skipif(
    not (installed("torch") and installed("triton")),
    reason="PyTorch is missing, or a build without CUDA, which brings no Triton",
)
@pytest.mark.parametrize("first", ["glscl_jax.input_pipeline.pipeline", "tensorflow"])
def test_the_real_ones_live_in_one_process(first):
    # The model of transformers and the compiler of PyTorch: what imports Triton.
    run(
        f"import {first}, convert.verification.torch_stages, torch._dynamo;"
        " from transformers import CLIPModel"
    )
