"""Every family of encoders there and back, held against its own library with random weights."""

import dataclasses
import functools
import hashlib
import json
import pathlib

import jax
import numpy as np
import pytest

from convert.conversion import Options, convert_clip
from convert.export import convert_back
from convert.naming import families, rules
from convert.naming.published_names import OPEN_CLIP_TIMM, OPENAI
from convert.naming.sizes import HIDDEN, clip_config, parameter_shapes
from convert.readers import open_clip as reader
from convert.readers.hugging_face import kind_of, transformers_config, transformers_model
from convert.verification import torch_open_clip, torch_stages, torch_stand_in, verify
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES
from glscl_jax.models.encoders.clip import CLIP, sentence_feature
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.variants import VARIANTS
from tests.clip_sources import read, refused, safetensors, save, torch, torch_glscl

# What a difference may be, in float32.
FORWARD, GRADIENT = 2e-5, 1e-4


def small(variant: str, **changes):
    """A family's small relative, smaller still; the demo vocabulary fits."""
    clip = dataclasses.replace(VARIANTS[variant], text_layers=1, vocab_size=700)
    return dataclasses.replace(clip, **changes)


def assert_verified(out):
    figures = json.loads((out / "origin.json").read_text())["verification"]
    # Of blocks, whose values go beyond 1, the verification itself has judged.
    ends = [figures["float32"][f"{what} embedding"] for what in ("image", "text")]
    assert 0 < max(ends) < FORWARD
    assert set(figures["gradients"]) == {
        "gradient of images",
        "gradient of texts",
        "gradient of logits",
    }
    assert 0 < max(figures["gradients"].values()) < GRADIENT
    return figures["library"]


def convert(path, out, **options):
    convert_clip(str(path), str(out), Options(**{"verify": True} | options))
    return read(out).config.clip


def same_tensors(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert np.asarray(one[name]).tobytes() == np.asarray(other[name]).tobytes(), name


# ---- transformers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "model"),
    [
        pytest.param("tiny-bigG", "CLIPModel", marks=pytest.mark.slow),
        ("tiny-MetaCLIP2", "MetaClip2Model"),
        ("tiny-SigLIP", "SiglipModel"),
    ],
)
def test_directories_of_transformers(tmp_path, variant, model):
    clip = small(variant, end_id=2 if variant == "tiny-MetaCLIP2" else None)
    settings = transformers_config(clip)
    twin = torch_glscl.randomise(transformers_model(settings)(settings), seed=0)
    twin.save_pretrained(tmp_path / "theirs")
    assert convert(tmp_path / "theirs", tmp_path / "ours") == clip
    assert assert_verified(tmp_path / "ours") == f"transformers.{model}"
    convert_back(str(tmp_path / "ours"), str(tmp_path / "back"), "huggingface", whole=False)
    same_tensors(
        *(safetensors.load_file(tmp_path / x / "model.safetensors") for x in ("theirs", "back"))
    )
    said = json.loads((tmp_path / "back" / "config.json").read_text())
    assert said["architectures"] == [model]
    assert kind_of(clip) == said["model_type"]


def test_what_transformers_has_no_model_of(tmp_path):
    assert kind_of(VARIANTS["tiny-PE"]) is None
    assert kind_of(VARIANTS["tiny-CLIPA"]) is None
    with pytest.raises(UserError, match="transformers has no model of these towers"):
        transformers_config(VARIANTS["tiny-PE"])


def test_a_siglip_2_of_naflex_is_called_by_its_name(tmp_path):
    path = tmp_path / "naflex"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "siglip2"}))
    safetensors.save_file({"a": np.zeros(1, np.float32)}, path / "model.safetensors")
    assert "is a SigLIP 2 of NaFlex" in refused(path, tmp_path)


def test_a_config_of_another_model_than_the_tensors(tmp_path):
    clip = small("tiny-SigLIP")
    settings = transformers_config(clip)
    torch_glscl.randomise(transformers_model(settings)(settings), 0).save_pretrained(tmp_path / "a")
    said = json.loads((tmp_path / "a" / "config.json").read_text())
    said["vision_config"]["num_attention_heads"] = 3
    (tmp_path / "a" / "config.json").write_text(json.dumps(said))
    assert "vision_width 128 is no multiple" in refused(tmp_path / "a", tmp_path)


# ---- What plain files do not say ----------------------------------------------------------------


@pytest.mark.parametrize("variant", [x for x in VARIANTS if x.startswith("tiny")])
def test_a_file_s_sizes_say_which_model_it_is(variant):
    clip = VARIANTS[variant]
    shown = clip_config(parameter_shapes(clip))
    found = families.with_hidden(shown, "file")
    assert (
        dataclasses.replace(found, activation=clip.activation, text_activation=clip.text_activation)
        == clip
    )
    # Nothing that is hidden is read off.
    usual = clip_config(parameter_shapes(VARIANTS["tiny"]))
    hidden = set(HIDDEN) - {"vision_pooling"}
    if clip.is_video:
        hidden -= {"text_pooling", "vision_head_width"}
    assert all(getattr(shown, name) == getattr(usual, name) for name in hidden)


@pytest.mark.parametrize(
    ("variant", "changes", "message"),
    [
        ("ViT-H/14", {"vision_layers": 5}, "is like an open_clip ViT-H"),
        ("tiny", {"vocab_size": 32_000}, "is a CLIPA"),
        ("ViT-B/32", {"pre_norm": False}, "not built as OpenAI's CLIP (pre_norm)"),
        ("tiny-SigLIP", {"vision_layers": 3}, "not built as OpenAI's CLIP (patch_bias"),
    ],
)
def test_sizes_of_no_model_by_name(variant, changes, message):
    shown = dataclasses.replace(VARIANTS[variant], **changes)
    with pytest.raises(UserError) as caught:
        families.with_hidden(shown, "a.pt")
    assert message in str(caught.value)
    assert "convert the directory with its config" in str(caught.value)


@pytest.mark.parametrize(
    "variant", ["tiny-bigG", pytest.param("tiny-MetaCLIP2", marks=pytest.mark.slow)]
)
def test_wide_heads_and_end_tokens_in_files(tmp_path, variant):
    """As the larger models of open_clip are published; torch.nn stands in for it."""
    clip = VARIANTS[variant]
    model = torch_glscl.randomise(torch_glscl.CLIP(clip), seed=0)
    tensors = {name: x.detach().numpy() for name, x in model.state_dict().items()}
    path = save(tmp_path / "model.pt", tensors)
    assert convert(path, tmp_path / "ours", activation=clip.activation) == clip
    assert_verified(tmp_path / "ours")
    convert_back(str(tmp_path / "ours"), str(tmp_path / "back.pt"), "pytorch", whole=False)
    same_tensors(tensors, torch.load(tmp_path / "back.pt", weights_only=True))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("visual.layer1.0.conv1.weight", "a ResNet CLIP"),
        ("visual.trunk.blocks.0.attn.q_bias", "an EVA CLIP"),
        ("visual.trunk.blocks.3.mlp.fc1_g.weight", "an EVA CLIP"),
        ("visual.trunk.stages.0.blocks.0.conv_dw.weight", "a ConvNeXt CLIP"),
        ("visual.trunk.stages.2.blocks.1.token_mixer.x.weight", "a MobileCLIP or ViTamin"),
        ("visual.trunk.patch_embed.backbone.0.conv.weight", "a MobileCLIP or ViTamin"),
        ("visual.attn_pool.query", "CoCa's attentional pooler"),
        ("text_decoder.ln_final.weight", "a CoCa"),
    ],
)
def test_families_that_are_not_here_by_their_tensors(tmp_path, name, kind):
    path = save(tmp_path / "model.pt", {name: np.zeros(1, np.float32)})
    message = refused(path, tmp_path, activation="gelu", tokenizer=str(DEMO_MERGES))
    assert kind in message
    assert "\n" not in message


# ---- open_clip over itself and over timm --------------------------------------------------------


@pytest.fixture(scope="module")
def library():
    found = torch_open_clip._library()
    if found is None or torch_stand_in.import_library("timm") is None:
        pytest.skip("open_clip or timm is not installed: see requirements-twins.txt")
    return found


def text_cfg(clip, **settings) -> dict:
    return {
        "context_length": clip.context_length,
        "vocab_size": clip.vocab_size,
        "width": clip.text_width,
        "heads": clip.text_blocks.heads,
        "layers": clip.text_layers,
        "mlp_ratio": clip.text_blocks.mlp_width / clip.text_width,
        **settings,
    }


def of_open_clip(clip, **text):
    vision = {
        "image_size": clip.image_size,
        "layers": clip.vision_layers,
        "width": clip.vision_width,
        "head_width": clip.vision_head_width,
        "mlp_ratio": clip.vision_blocks.mlp_width / clip.vision_width,
        "patch_size": clip.patch_size,
    }
    if clip.vision_pooling == "mean":
        vision |= {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}
    return {"embed_dim": clip.embed_dim, "vision_cfg": vision, "text_cfg": text_cfg(clip, **text)}


SIGLIP_TEXT = {
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
    "act_kwargs": {"approximate": "tanh"},
}


def register_timm(clip, name: str) -> None:
    """A small tower of timm's, by a name of the pattern of its own."""
    from timm.models import eva, register_model, vision_transformer

    common = {
        "img_size": clip.image_size,
        "patch_size": clip.patch_size,
        "embed_dim": clip.vision_width,
        "depth": clip.vision_layers,
        "num_heads": clip.vision_blocks.heads,
        "mlp_ratio": clip.vision_blocks.mlp_width / clip.vision_width,
        "class_token": clip.class_token,
    }

    def make(pretrained=False, num_classes=0, global_pool="map", **_):
        settings = {"num_classes": num_classes, "global_pool": global_pool}
        if not clip.rotary:
            return vision_transformer.VisionTransformer(**common, **settings)
        return eva.Eva(
            **common,
            **settings,
            attn_type="rope",
            use_pre_transformer_norm=True,
            use_rot_pos_emb=True,
            ref_feat_shape=(clip.side, clip.side),
            norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-5),
            rope_grid_offset=float(clip.class_token),
            rope_grid_indexing="xy",
            attn_pool_num_heads=8,
            attn_pool_mlp_ratio=clip.probe.mlp_width / clip.vision_width,
        )

    make.__name__ = name
    make.__module__ = "timm.models.eva" if clip.rotary else "timm.models.vision_transformer"
    register_model(make)


def case(variant: str):
    """A small model of open_clip's config: (what it is here, `model_cfg`)."""
    clip = small(variant)
    if variant == "tiny-bigG":
        return clip, of_open_clip(clip)
    if variant == "tiny-MetaCLIP2":
        # As all of open_clip's configs that name no activation.
        clip = dataclasses.replace(clip, activation="gelu")
        return clip, of_open_clip(clip, pool_type="eos", eos_id=2)
    if variant == "tiny-CLIPA":
        return clip, of_open_clip(clip, no_causal_mask=True, pool_type="last")
    if variant == "tiny-SigLIP":
        # timm's towers of this name have heads of 64 and the exact GELU.
        clip = dataclasses.replace(
            clip, vision_head_width=64, activation="gelu", text_activation="gelu_tanh"
        )
        name, timm, text = "vit_small_patch16_siglip_32", {"timm_proj": "none"}, SIGLIP_TEXT
    else:
        heads = 96 if variant == "tiny-PE-G" else 64
        width = 2 * heads
        clip = dataclasses.replace(
            clip,
            vision_width=width,
            vision_head_width=heads,
            vision_mlp_width=3 * width,
            probe_mlp_width=None if variant == "tiny-PE" else 4 * width,
            vision_projection="biased",
        )
        size = "gigantic" if variant == "tiny-PE-G" else "small"
        name, timm, text = f"vit_pe_core_{size}_patch16_32", {"timm_proj": None}, {}
    if torch_stand_in.import_library("timm"):
        register_timm(clip, name)
    vision = {"image_size": 32, "timm_model_name": name, "timm_pool": "map", **timm}
    model = {"embed_dim": clip.embed_dim, "vision_cfg": vision, "text_cfg": text_cfg(clip, **text)}
    return clip, model | ({"init_logit_bias": -10} if clip.logit_bias else {})


@pytest.mark.parametrize(
    "variant",
    ["tiny-bigG", "tiny-MetaCLIP2", "tiny-CLIPA", "tiny-SigLIP", "tiny-PE", "tiny-PE-G"],
)
def test_directories_of_open_clip(library, tmp_path, variant):
    clip, model = case(variant)
    is_timm = "timm_model_name" in model["vision_cfg"]
    twin = (library.CustomTextCLIP if is_timm else library.CLIP)(**model)
    torch_glscl.randomise(twin, seed=0)
    path = tmp_path / "theirs"
    path.mkdir()
    tensors = {name: x.numpy() for name, x in twin.state_dict().items()}
    safetensors.save_file(tensors, path / "open_clip_model.safetensors")
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    # Of pictures and tokenizer the file says nothing: they are CLIP's.
    names = ("tokenizer", "resize", "interpolation", "image_mean", "image_std")
    unsaid = {name: getattr(CLIPConfig(), name) for name in names}
    assert convert(path, tmp_path / "ours") == dataclasses.replace(clip, **unsaid)
    assert assert_verified(tmp_path / "ours").startswith("open_clip ")
    table = OPEN_CLIP_TIMM if is_timm else OPENAI
    same_tensors(tensors, rules.to_torch_names(read(tmp_path / "ours").params, table))


OF_OPEN_CLIP = ["tiny-CLIPA", "tiny-SigLIP", "tiny-PE", "tiny-PE-G"]
NUMBERS = pathlib.Path(__file__).parents[1] / "golden" / "open_clip.npz"


def drawn(name: str, shape) -> np.ndarray:
    """A tensor that is a function of its name, whatever draws random numbers."""
    key = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], "<u8")
    words = np.random.Philox(key=key).random_raw(int(np.prod(shape))).reshape(shape)
    around = (words >> np.uint64(11)) * 2.0**-53 * 2 - 1
    return np.float32(0.15 * around + ("norm" in name and name.endswith("weight")))


def numbers(stages) -> np.ndarray:
    return np.concatenate([stages["image embedding"], stages["text embedding"]])


@pytest.mark.parametrize("variant", OF_OPEN_CLIP)
def test_numbers_of_open_clip_where_it_is_not_installed(variant):
    """What its own models computed of these weights; `test_where_the_numbers_are_from` says how."""
    clip, _ = case(variant)
    table = OPENAI if variant == "tiny-CLIPA" else OPEN_CLIP_TIMM
    shapes = parameter_shapes(clip)
    tensors = {
        name: drawn(name, place.view(np.broadcast_to(0, shapes[place.path])).shape)
        for name, place in table.places(shapes).items()
    }
    params = rules.from_torch_names(tensors, table, clip).params["clip"]
    inputs = verify.make_inputs(clip)
    images, tokens, _ = jax.jit(CLIP(clip).apply)(
        {"params": params}, inputs.images, inputs.ids, inputs.mask
    )
    found = np.concatenate([images, sentence_feature(tokens, inputs.ids, clip)])
    with np.load(NUMBERS) as stored:
        expected = stored[variant]
    np.testing.assert_allclose(found, expected, rtol=0, atol=FORWARD * np.abs(expected).max())


@pytest.mark.parametrize("variant", OF_OPEN_CLIP)
def test_where_the_numbers_are_from(library, variant):
    clip, model = case(variant)
    table = OPENAI if variant == "tiny-CLIPA" else OPEN_CLIP_TIMM
    kind = library.CLIP if variant == "tiny-CLIPA" else library.CustomTextCLIP
    twin = kind(**model).eval()
    tensors = {name: drawn(name, x.shape) for name, x in twin.state_dict().items()}
    twin = torch_stages.of_open_clip(twin, "", tensors, clip, table)
    found = numbers(torch_stages.stages(twin, verify.make_inputs(clip)))
    with np.load(NUMBERS) as stored:
        # Of numbers up to 6, on whatever processor.
        np.testing.assert_allclose(found, stored[variant], rtol=0, atol=2e-5)


def test_every_tag_of_open_clip_converts_or_says_why_not(library):
    """Its own list of pretrained weights, by the config of each."""
    converts, others = [], {}
    for architecture, tag in library.list_pretrained():
        model = library.get_model_config(architecture)
        try:
            reader.tower_settings(model, architecture)
            converts.append((architecture, tag))
        except UserError as error:
            others[architecture] = str(error)
    assert len(converts) >= 100
    for architecture, reason in others.items():
        assert "\n" not in reason
        name = architecture.lower()
        expected = {
            "rn": "a ResNet CLIP",
            "eva": "an EVA CLIP",
            "convnext": "a ConvNeXt CLIP",
            "coca": "a CoCa",
            "mobileclip": "a MobileCLIP",
            "vitamin": "a ViTamin",
            "nllb": "another text tower",
            "roberta": "another text tower",
            "xlm": "another text tower",
        }
        kind = next(kind for start, kind in expected.items() if name.startswith(start))
        assert kind in reason, (architecture, reason)
    print(f"{len(converts)} of {len(library.list_pretrained())} tags convert")
