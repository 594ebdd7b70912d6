"""How many places captions have, of a model whose text tower sees them all."""

import dataclasses

import pytest

from configs import folder
from convert import checkpoint_output
from glscl_jax.errors import UserError
from glscl_jax.evaluation import compile_for
from glscl_jax.evaluation.task import open_task
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.models.glscl import GLSCLConfig
from glscl_jax.models.heads.mean import MeanHead
from glscl_jax.profiling import topologies
from tests.builders import params_of

# It takes pictures as the prepared clips have them.
_IMAGES = ("resize", "interpolation", "image_mean", "image_std")
SEES_PADDING = dataclasses.replace(
    VARIANTS["tiny-SigLIP"],
    image_size=32,
    vocab_size=1000,
    **{name: getattr(CLIPConfig(), name) for name in _IMAGES},
)
PLACES = SEES_PADDING.fixed_length


def test_a_recipe_follows_the_model(shapes, tmp_path, capsys):
    path = tmp_path / "converted"
    path.mkdir()
    model = GLSCLConfig(clip=SEES_PADDING, temporal="None", head=MeanHead())
    tokenizer = CLIPTokenizer.from_merges(DEMO_MERGES)
    checkpoint_output.write_checkpoint(path, params_of(model, 0), SEES_PADDING, tokenizer, {})
    config = folder.get_config()
    config.data.dir, config.data.frame_rate = str(shapes / "data"), 2.0
    task = open_task(path, config, None, None, tmp_path / "out")
    assert task.config.data.num_words == PLACES
    assert config.data.num_words == 32
    assert f"note: captions have {PLACES} places" in capsys.readouterr().out
    config.data.num_words = PLACES + 1
    with pytest.raises(UserError, match=f"num_words {PLACES + 1} is more than"):
        open_task(path, config, None, None, tmp_path / "out")


def test_so_it_does_where_an_evaluation_is_compiled(tmp_path, capsys, monkeypatch):
    def stop(topology):
        raise UserError(f"{topology.text} is not here")

    monkeypatch.setattr(topologies, "devices", stop)
    config = folder.get_config()
    config.model.clip.variant = "SigLIP-B/16"
    with pytest.raises(UserError, match="v5e:1x1 is not here"):
        compile_for.run("v5e:1x1", config, None, str(tmp_path))
    assert "note: captions have 64 places" in capsys.readouterr().out
