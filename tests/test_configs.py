"""Every config can be read, and its `:tiny` trains."""

import importlib
import subprocess
import sys

import pytest

from glscl_jax import recipe
from tests.conftest import REPO

NAMES = sorted(
    path.stem for path in (REPO / "configs").glob("*.py") if path.stem not in ("__init__", "common")
)


@pytest.mark.parametrize("name", NAMES)
def test_settings_fit_together(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    settings = recipe.read(config)
    assert settings.model.clip.image_size % settings.model.clip.patch_size == 0
    assert config.data.num_words <= settings.model.clip.context_length


@pytest.mark.parametrize("name", NAMES)
def test_tiny_trains(name, shapes, run_program, tmp_path):
    done = run_program(
        "glscl_jax.train",
        f"--config=configs/{name}.py:tiny",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.dir={shapes / 'data'}",
        "--config.num_steps=2",
    )
    assert "trained to step 2" in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_there_is_only_one_variant(name):
    with pytest.raises(ValueError, match="small"):
        importlib.import_module(f"configs.{name}").get_config("small")


def test_configs_are_data():
    script = (
        "import sys, importlib\n"
        f"for name in {NAMES}: importlib.import_module(f'configs.{{name}}').get_config()\n"
        "assert not [name for name in sys.modules if name.startswith('glscl_jax')]"
    )
    subprocess.run([sys.executable, "-c", script], cwd=REPO, check=True)
