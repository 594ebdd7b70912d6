"""PyTorch's files: what is read, what is refused, and that nothing in them runs."""

import os
import pickle
import sys
import zipfile

import numpy as np
import pytest

from convert.readers import torch_file, torchscript
from glscl_jax.errors import UserError


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is missing: see requirements-torch.txt")


def small_module(torch):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4).half(), torch.nn.LayerNorm(4))
    module.scale = torch.nn.Parameter(torch.tensor(2.5))
    module.register_buffer("input_resolution", torch.tensor(224))
    # Not contiguous, and not at the start of its storage.
    module.register_buffer("columns", torch.arange(24.0).reshape(4, 6)[1:, 2:5].T)
    return module


def assert_same_state(arrays, module):
    expected = module.state_dict()
    assert arrays.keys() == expected.keys()
    for name, tensor in expected.items():
        assert arrays[name].dtype == tensor.numpy().dtype, name
        np.testing.assert_array_equal(arrays[name], tensor.numpy(), err_msg=name)


def test_state_dict(torch, tmp_path):
    module = small_module(torch)
    torch.save(module.state_dict(), tmp_path / "state.pt")
    assert not torchscript.is_archive(tmp_path / "state.pt")
    assert_same_state(torch_file.read_state_dict(tmp_path / "state.pt"), module)


@pytest.mark.filterwarnings("ignore")
def test_torchscript_archive(torch, tmp_path, monkeypatch):
    module = small_module(torch)
    torch.jit.script(module).save(tmp_path / "script.pt")
    # Needs no PyTorch, and in particular does not hand it a program.
    monkeypatch.setitem(sys.modules, "torch", None)
    arrays = torch_file.read_state_dict(tmp_path / "script.pt")
    monkeypatch.undo()
    assert_same_state(arrays, module)


def test_bfloat16_becomes_float32(torch, tmp_path):
    tensor = torch.randn(5).bfloat16()
    torch.save({"x": tensor}, tmp_path / "half.pt")
    read = torch_file.read_state_dict(tmp_path / "half.pt")["x"]
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, tensor.float().numpy())


def refused(path) -> str:
    with pytest.raises(UserError) as caught:
        torch_file.read_state_dict(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_file(tmp_path):
    assert "no such file" in refused(tmp_path / "nothing.pt")
    assert "no such file" in refused(tmp_path)


def test_without_pytorch(tmp_path, monkeypatch):
    (tmp_path / "state.pt").write_bytes(b"PK")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "requirements-torch.txt" in refused(tmp_path / "state.pt")


def test_broken_files(torch, tmp_path):
    path = tmp_path / "broken.pt"
    torch.save({"x": torch.zeros(1000)}, path)
    whole = path.read_bytes()
    for content in (b"", b"some text", whole[:2000]):
        path.write_bytes(content)
        refused(path)


def test_files_that_hold_something_else(torch, tmp_path):
    path = tmp_path / "other.pt"
    torch.save([torch.zeros(2)], path)
    assert "holds a list" in refused(path)
    torch.save({"epoch": 3, "x": torch.zeros(2)}, path)
    assert "not all of it is tensors (epoch)" in refused(path)
    torch.save({"epoch": 3, "model": {"x": torch.zeros(2), "best": 4}}, path)
    assert "not all of it is tensors (best)" in refused(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda torch, x: x.to_sparse(), "is a sparse tensor; save it dense"),
        (lambda torch, x: x.to_sparse_csr(), "is a sparse tensor; save it dense"),
        (lambda torch, x: x.to(torch.float8_e4m3fn), "of type float8_e4m3fn cannot be read"),
        (lambda torch, x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), "of type qint8"),
        (lambda torch, x: x.to("meta"), "of type float32 cannot be read"),
    ],
)
def test_tensors_that_numpy_does_not_have(torch, tmp_path, make, message):
    torch.save({"visual.proj": make(torch, torch.eye(3))}, tmp_path / "odd.pt")
    said = refused(tmp_path / "odd.pt")
    assert "visual.proj" in said
    assert message in said


@pytest.mark.filterwarnings("ignore")
def test_scripted_modules_hold_more_than_tensors(torch, tmp_path):
    class Model(torch.nn.Module):
        sizes: list[int]
        scales: list[float]

        def __init__(self):
            super().__init__()
            self.sizes, self.scales, self.flags = [1, 2], [0.5], [True]
            self.named = {"a": 1}
            self.several = [torch.zeros(2)]
            self.device = torch.device("cpu")
            self.layers = torch.nn.ModuleList([torch.nn.Linear(3, 4), torch.nn.GELU()])
            self.register_buffer("mask", torch.ones(2), persistent=False)

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x * self.scales[0] + self.sizes[0]

    torch.jit.script(Model()).save(tmp_path / "script.pt")
    arrays = torch_file.read_state_dict(tmp_path / "script.pt")
    # A scripted module does not tell which of its buffers are saved by name.
    assert arrays.keys() == {"layers.0.weight", "layers.0.bias", "mask"}


class Command:
    """Pickled, it is a call of os.system: what a hostile file would hold."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_hostile_files_run_nothing(torch, tmp_path):
    trace = tmp_path / "trace"
    command = Command(f"touch {trace}")
    torch.save({"x": command}, tmp_path / "state.pt")
    assert "could run code" in refused(tmp_path / "state.pt")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/constants.pkl", b"")
        archive.writestr("script/data.pkl", pickle.dumps(command, protocol=2))
    assert "is not allowed" in refused(tmp_path / "script.pt")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (5,), (1,)), (4, (1,), (1,)), (0, (2, 2), (3, 1)), (-1, (1,), (1,)), (2, (2,), (-1,))],
)
def test_a_tensor_cannot_reach_outside_its_storage(offset, size, stride):
    with pytest.raises(ValueError, match="a tensor"):
        torchscript._tensor(np.arange(4.0), offset, size, stride)


def test_a_tensor_in_its_storage():
    view = torchscript._tensor(np.arange(12.0), 1, (2, 3), (6, 2))
    np.testing.assert_array_equal(view, [[1, 3, 5], [7, 9, 11]])
    assert torchscript._tensor(np.arange(0.0), 0, (0, 3), (3, 1)).shape == (0, 3)
