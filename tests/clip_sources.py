"""Small CLIPs of the real libraries with random weights, as conversion's tests need them."""

import json

import jax
import numpy as np
import pytest
from flax import traverse_util

from convert.conversion import Options, convert_clip
from convert.naming import rules, sizes
from convert.naming.published_names import OPENAI
from convert.readers import hugging_face
from glscl_jax.checkpoints.model_dir import load_model
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.runtime import sharding

torch = pytest.importorskip("torch", reason="PyTorch is missing: see requirements-torch.txt")
transformers = pytest.importorskip("transformers")
from safetensors import numpy as safetensors  # noqa: E402

from convert.verification import torch_glscl  # noqa: E402

VOCABULARY = CLIPTokenizer.from_merges(DEMO_MERGES)
SMALL = CLIPConfig(
    image_size=16,
    patch_size=8,
    vision_width=64,
    vision_layers=2,
    text_width=128,
    text_layers=1,
    embed_dim=64,
    context_length=20,
    vocab_size=VOCABULARY.vocab_size,
)
GELU = {"hidden_act": "gelu"}


def random_model(**text_and_vision) -> "transformers.CLIPModel":
    """transformers' own model, every tensor random."""
    torch.manual_seed(0)
    config = hugging_face.transformers_config(SMALL)
    for tower in (config.text_config, config.vision_config):
        tower.update(text_and_vision)
    return torch_glscl.randomise(transformers.CLIPModel(config), seed=0)


def random_tensors(table=OPENAI, config=SMALL, seed=0) -> dict[str, np.ndarray]:
    """A state dict of numbers that float16 has exactly."""
    random = np.random.default_rng(seed)
    arrays = {
        path: random.normal(size=shape, scale=0.2).astype(np.float16).astype(np.float32)
        for path, shape in sizes.parameter_shapes(config).items()
    }
    return rules.to_torch_names(traverse_util.unflatten_dict(arrays, sep="/"), table)


def save(path, tensors):
    torch.save({name: torch.from_numpy(np.asarray(x)) for name, x in tensors.items()}, path)
    return path


def scripted(tensors) -> "torch.jit.ScriptModule":
    """A TorchScript module with these names, as OpenAI's files: float16, sizes beside."""
    root = torch.nn.Module()
    for name, array in tensors.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, torch.nn.Module())
            module = module.get_submodule(part)
        tensor = torch.from_numpy(array).half()
        module.register_parameter(last, torch.nn.Parameter(tensor))
    for name, value in {"input_resolution": 16, "context_length": 20, "vocab_size": 600}.items():
        root.register_buffer(name, torch.tensor(value))
    return torch.jit.script(root)


def hugging_face_directory(path):
    """As `save_pretrained` writes it, with its tokenizer."""
    random_model().save_pretrained(path)
    VOCABULARY.save(path)
    return path


def copied(directory, path, **files):
    """The directory's config and weights, with other files or files of other content."""
    path.mkdir()
    for name in ("config.json", "model.safetensors"):
        (path / name).write_bytes((directory / name).read_bytes())
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def open_clip_settings() -> dict:
    """`SMALL` in open_clip's words."""
    return {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 16, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {
            "context_length": 20,
            "vocab_size": 600,
            "width": 128,
            "heads": 2,
            "layers": 1,
        },
    }


def open_clip_directory(path, changes, vision=None, images=None, text=None):
    path.mkdir()
    safetensors.save_file(random_tensors(), path / "open_clip_model.safetensors")
    model = open_clip_settings()
    model["vision_cfg"] |= vision or {}
    model["text_cfg"] |= text or {}
    content = {"model_cfg": model | changes, "preprocess_cfg": images or {}}
    (path / "open_clip_config.json").write_text(json.dumps(content))
    return path


def read(path):
    return load_model(path, sharding.replicated(sharding.make_mesh(jax.devices()[:1])))


def assert_same_params(one, other):
    one, other = (traverse_util.flatten_dict(jax.device_get(x), sep="/") for x in (one, other))
    assert one.keys() == other.keys()
    for path in one:
        assert one[path].dtype == other[path].dtype, path
        np.testing.assert_array_equal(one[path], other[path], err_msg=path)


def refused(path, tmp_path, **options) -> str:
    """The message; nothing may be left behind."""
    out = tmp_path / "refused" / "weights"
    with pytest.raises(UserError) as caught:
        convert_clip(str(path), str(out), Options(**options))
    assert not out.parent.exists() or not list(out.parent.iterdir())
    return str(caught.value)


def one_line(message: str) -> str:
    """A message, once it is found to be short, and of one line."""
    assert "\n" not in message
    assert len(message) < 800
    return message
