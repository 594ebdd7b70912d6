"""Names of topologies, and what is said where a compiler is missing."""

import pytest

from glscl_jax.errors import UserError
from glscl_jax.profiling import topologies


@pytest.mark.parametrize(
    ("text", "size", "island"),
    [
        ("v5e:16x16", 256, 256),
        ("4xv5e:16x16", 1024, 256),
        ("v5p:4x4x4", 64, 64),
        ("v6e:2x4", 8, 8),
        ("h100x1", 1, 1),
        ("h100x8", 8, 8),
        ("h200x16", 16, 8),
    ],
)
def test_a_name_says_how_many_chips_and_how_many_share_fast_links(text, size, island):
    found = topologies.parse(text)
    assert (found.size, found.island) == (size, island)


def test_of_a_gpu_s_memory_programs_have_what_jax_takes(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    gpu, tpu = (topologies.parse(text) for text in ("h100x8", "v5e:2x2"))
    assert gpu.memory == int(0.75 * gpu.chip.memory)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    assert gpu.memory == int(0.9 * gpu.chip.memory)
    assert tpu.memory == tpu.chip.memory


@pytest.mark.parametrize(
    "text", ["", "v5e", "v5e:3x3", "v5p:4x4", "0xv5e:4x4", "h100", "h100x0", "h100x12", "a100x8"]
)
def test_an_unknown_name_is_told_the_known_ones(text):
    with pytest.raises(UserError, match=r"no topology.* v5e: with 1x1, .*h100 or h200") as refused:
        topologies.parse(text)
    assert "\n" not in str(refused.value)


def test_a_missing_compiler_is_told_with_the_command(monkeypatch):
    def missing(name):
        raise topologies.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(topologies.metadata, "version", missing)
    with pytest.raises(
        UserError, match=r'libtpu.* not installed: pip install "libtpu==[\d.]+\.\*"'
    ):
        topologies.check_compiler("libtpu", "tpu")


def test_a_compiler_of_another_version_is_told_with_the_command(monkeypatch):
    monkeypatch.setattr(topologies.metadata, "version", lambda name: "0.0.1")
    with pytest.raises(UserError, match=r"libtpu 0.0.1 does not go with JAX .*pip install"):
        topologies.check_compiler("libtpu", "tpu")
    monkeypatch.setattr(topologies.metadata, "version", lambda name: "0.10.1")
    with pytest.raises(UserError, match=r"jax-cuda13-plugin 0.10.1 does not go"):
        topologies.check_compiler("jax-cuda13-plugin", "cuda13")
