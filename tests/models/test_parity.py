"""The model, its losses and its optimiser against numbers of the original implementation.

tests/golden/README.md says what the numbers are: float32 on a CPU, and so is everything here.
"mini" and "mini_lstm" lie beside it; "tiny", which starts from a whole checkpoint, does not.
An LSTM and a LIM that shares nothing are held against torch.nn, too.
"""

import dataclasses
import functools
import hashlib
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convert.naming import rules
from convert.readers import torch_file
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.glscl import GLSCL, GLSCLConfig
from glscl_jax.models.heads.concept_losses import LossWeights
from glscl_jax.models.heads.gim import gim_similarity
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.models.heads.lim import lim_similarity
from glscl_jax.training import optim, steps

PARTS = ("total", "contrastive", "diversity", "consistency")
STEPS = 5
# Half of the time these tests take would go into LLVM's optimisation of code that runs once.
QUICK_COMPILE = {"xla_backend_optimization_level": 0}
HERE = pathlib.Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module", params=["tiny", "mini", "mini_lstm"])
def model_name(request):
    return request.param


@pytest.fixture(scope="module")
def numbers(model_name, request):
    folder = request.getfixturevalue("golden") if model_name == "tiny" else HERE
    with np.load(folder / f"{model_name}.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def meta(numbers):
    return json.loads(str(numbers["meta"]))


@pytest.fixture(scope="module")
def optimiser_numbers(golden):
    with np.load(golden / "bertadam.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is missing: see requirements-torch.txt")


@pytest.fixture(scope="module")
def converted(model_name, meta, request):
    if model_name == "tiny":
        request.getfixturevalue("torch")
        path = request.getfixturevalue("golden") / "tiny_glscl_checkpoint.pt"
        return rules.from_torch_names(torch_file.read_state_dict(path))
    tensors = {name: weight(name, shape) for name, shape in meta["names"].items()}
    # What tensors do not show: the heads, 8 whatever the width, and what is in use, since of
    # these the unused ones do not lie where they were drawn, either.
    config = rules.from_torch_names(tensors).config
    head = dataclasses.replace(
        config.head,
        lim_heads=8,
        share_queries=bool(meta["config"]["query_share"]),
        share_decoder=bool(meta["config"]["cross_att_share"]),
    )
    config = dataclasses.replace(config, head=head)
    return rules.from_torch_names(tensors, config=config)


def weight(name: str, shape: list[int]) -> np.ndarray:
    """A tensor of the minis, which is a function of its name (tests/golden/README.md)."""
    key = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], "<u8")
    words = np.random.Philox(key=key).random_raw(math.prod(shape)).reshape(shape)
    u = (words >> np.uint64(11)) * 2.0**-53 * 2 - 1
    if name.endswith("logit_scale"):
        return np.float32(np.log(1 / 0.07))
    if ("ln_" in name or "norm" in name) and name.endswith("weight"):
        return np.float32(1 + 0.2 * u)
    if name.endswith("bias") or "bias_" in name:
        return np.float32(0.1 * u)
    if "queries" in name:
        return np.float32(0.5 + 0.5 * u)
    if "embedding" in name:
        return np.float32(0.3 * u)
    fan = shape[1] if len(shape) == 2 else math.prod(shape[1:] or shape)
    return np.float32(1.5 * u * np.sqrt(2 / fan))


@pytest.fixture(scope="module")
def model(converted):
    # The original's training steps were taken with every dropout 0.
    head = dataclasses.replace(converted.config.head, lim_dropout=0.0)
    return GLSCL(dataclasses.replace(converted.config, head=head))


def batch_of(numbers, prefix: str) -> dict[str, np.ndarray]:
    """The original's [B,V,3,H,W] frames and int64 ids as this library has them."""
    return {
        "text_ids": numbers[f"{prefix}/text_ids"].astype(np.int32),
        "text_mask": numbers[f"{prefix}/text_mask"].astype(np.int32),
        "frames": numbers[f"{prefix}/video"].transpose(0, 1, 3, 4, 2),
        "frame_mask": numbers[f"{prefix}/video_mask"].astype(np.int32),
    }


@pytest.fixture(scope="module")
def evaluate(numbers, model):
    """A function of the parameters -> everything that the original's evaluation was asked for."""

    def forward(bound, batch):
        text = bound.encode_text(batch["text_ids"], batch["text_mask"])
        video = bound.encode_video(batch["frames"], batch["frame_mask"])
        images = batch["frames"].reshape(-1, *batch["frames"].shape[2:])
        config = bound.config
        return {
            "clip/image_embeds": bound.clip.vision(images),
            "clip/image_hidden": bound.clip.vision(images[:2], all_tokens=True),
            "eval/text_tokens": bound.clip.text(batch["text_ids"], batch["text_mask"]),
            "eval/text_cls": text.sentence,
            "eval/frame_feats": video.frames,
            "eval/text_queries": text.queries,
            "eval/video_queries": video.queries,
            "eval/sim_gim": gim_similarity(
                text.sentence, video.frames, video.mask, config.head.temperature
            ),
            "eval/sim_lim": lim_similarity(text.queries, video.queries),
            "eval/sim": config.head.score(text, video),
        }

    batch = batch_of(numbers, "input")
    run = jax.jit(
        lambda params: model.apply({"params": params}, batch, method=forward),
        compiler_options=QUICK_COMPILE,
    )
    return lambda params: jax.device_get(run(params))


@pytest.fixture(scope="module")
def features(converted, evaluate):
    return evaluate(converted.params)


@pytest.mark.parametrize("model_name", ["tiny"], indirect=True)
@pytest.mark.parametrize("name", ["clip/image_embeds", "clip/image_hidden"])
def test_images(numbers, features, name):
    assert features[name].shape == numbers[name].shape
    np.testing.assert_allclose(features[name], numbers[name], rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "name",
    [
        "eval/text_tokens",
        "eval/text_cls",
        "eval/frame_feats",
        "eval/text_queries",
        "eval/video_queries",
        "eval/sim_gim",
        "eval/sim_lim",
        "eval/sim",
    ],
)
def test_features_and_scores(numbers, features, name):
    assert features[name].shape == numbers[name].shape
    np.testing.assert_allclose(features[name], numbers[name], rtol=0, atol=2e-5)


def test_clip_alone_is_the_same_clip(golden, torch):
    # The two files hold the same weights under two sets of names.
    alone, whole = (
        rules.from_torch_names(torch_file.read_state_dict(golden / name))
        for name in ("tiny_clip_state_dict.pt", "tiny_glscl_checkpoint.pt")
    )
    assert alone.config == whole.config.clip
    jax.tree.map(np.testing.assert_array_equal, alone.params, {"clip": whole.params["clip"]})


@dataclasses.dataclass(frozen=True)
class Training:
    """Five steps: what each reported, and tensors by the original's names."""

    metrics: list[steps.StepMetrics]
    first_grads: dict[str, np.ndarray]
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    scores: np.ndarray


def recorder() -> optax.GradientTransformation:
    """Passes gradients through and keeps them, so that the step need not be compiled twice."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda grads, state, params: (grads, grads),
    )


@pytest.fixture(scope="module")
def loss_weights(meta):
    return LossWeights(alpha=meta["config"]["alpha"], beta=meta["config"]["beta"])


@pytest.fixture(scope="module")
def training(numbers, meta, converted, model, evaluate, loss_weights):
    said = meta["optimizer"]
    config = optim.OptimConfig()
    # The defaults of the library are what the original was run with.
    assert (config.learning_rate, config.coef_lr) == (said["lr"], said["coef_lr"])
    assert (config.b1, config.b2, config.eps) == (said["b1"], said["b2"], said["eps"])
    assert config.weight_decay == said["weight_decay"]
    assert said["steps"] == STEPS

    optimizer = optax.chain(recorder(), optim.make_optimizer(config, said["t_total"]))
    step = jax.jit(
        functools.partial(
            steps.train_step,
            model=model,
            optimizer=optimizer,
            optim=config,
            weights=loss_weights,
            seed=0,
        ),
        compiler_options=QUICK_COMPILE,
    )
    state = steps.init_state(converted.params, optimizer, config)
    metrics = []
    for index in range(STEPS):
        batch = batch_of(numbers, f"train{index}" if index else "input")
        state, reported = step(state, batch)
        metrics.append(jax.device_get(reported))
        if index == 0:
            first_grads = rules.to_torch_names(jax.device_get(state.opt_state[0]))
    return Training(
        metrics,
        first_grads,
        rules.to_torch_names(converted.params),
        rules.to_torch_names(jax.device_get(state.params)),
        evaluate(state.params)["eval/sim"],
    )


def losses_of(metrics: steps.StepMetrics) -> np.ndarray:
    losses = metrics.losses
    parts = {"total": losses.total, "contrastive": losses.contrastive, **losses.own}
    return np.array([parts[name] for name in PARTS])


def names_under(numbers, prefix: str) -> list[str]:
    return [key.removeprefix(prefix) for key in numbers if key.startswith(prefix)]


def sampled(tensor: np.ndarray, model_name: str) -> np.ndarray:
    """The values that the golden file keeps of a tensor."""
    flat, kept = tensor.ravel(), 256 if model_name == "tiny" else 64
    return flat if flat.size <= kept else flat[places(flat.size, kept)]


def places(size: int, kept: int) -> np.ndarray:
    """`torch.linspace(0, size - 1, kept).long()`: in float32, from either end to the middle."""
    last, number = np.float32(size - 1), np.arange(kept, dtype=np.float32)
    step = last / np.float32(kept - 1)
    exact = np.where(number < kept // 2, step * number, last - step * (kept - 1 - number))
    return exact.astype(int)


def test_places(torch):
    for size in range(257, 3000):
        for kept in (64, 256):
            expected = torch.linspace(0, size - 1, kept).long().numpy()
            np.testing.assert_array_equal(places(size, kept), expected)


def beyond_rounding(tensor: np.ndarray, name: str) -> np.ndarray:
    """Where a tensor's change is not rounding alone: outside the keys' third of a bias.

    A bias of the keys adds the same to all scores of a query, so its gradient is 0. What float32
    makes of that, Adam divides by its own size.
    """
    there = np.ones(tensor.shape, bool)
    if name.endswith("in_proj_bias"):
        there.reshape(3, -1)[1] = False
    return there


def test_losses(numbers, training, loss_weights):
    # The diversity is alpha times a difference of unit vectors' products, which float32 rounds to
    # about 1e-7 each.
    rounding = loss_weights.alpha * 1e-6
    np.testing.assert_allclose(
        losses_of(training.metrics[0]), numbers["train/losses"][0], rtol=1e-5, atol=rounding
    )


def test_gradient_of_every_tensor(numbers, training, model_name):
    names = names_under(numbers, "grad/")
    # The original never trains the patch convolution; every other tensor has a gradient.
    assert set(training.first_grads) - set(names) == {"clip.visual.conv1.weight"}
    assert set(names) <= set(training.first_grads)
    for name in names:
        grad = training.first_grads[name]
        norm = np.linalg.norm(grad.astype(np.float64))
        np.testing.assert_allclose(norm, numbers[f"gradnorm/{name}"], rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(
            sampled(grad, model_name),
            numbers[f"grad/{name}"].ravel(),
            rtol=0,
            atol=1e-4 * np.abs(grad).max(),
            err_msg=name,
        )


def test_global_gradient_norms(numbers, training):
    norms = [metrics.grad_norm for metrics in training.metrics]
    np.testing.assert_allclose(norms, numbers["train/global_grad_norm"], rtol=1e-5)


def test_losses_of_five_steps(numbers, training):
    losses = [losses_of(metrics) for metrics in training.metrics]
    np.testing.assert_allclose(losses, numbers["train/losses"], rtol=1e-4)


def test_scores_after_five_steps(numbers, training):
    # The steps move scores by up to 0.1.
    np.testing.assert_allclose(training.scores, numbers["after_eval/sim"], rtol=0, atol=1e-4)


def test_parameters_after_five_steps(numbers, training, model_name):
    for name in names_under(numbers, "after/"):
        after = numbers[f"after/{name}"].ravel()
        # Five roundings to float32, and a thousandth of what five steps of CLIP can move: four
        # of them have a rate, of at most 1e-7.
        allowed = 5 * np.spacing(np.abs(after)) + 1e-3 * 4e-7 * (1 + 1e3 * ("clip." not in name))
        error = np.abs(sampled(training.after[name], model_name) - after)
        assert np.all(error <= allowed), name


def test_change_of_new_parameters(numbers, training, model_name):
    names = [name for name in names_under(numbers, "delta/") if "clip." not in name]
    assert len(names) > 60
    for name in names:
        change = training.after[name] - training.before[name]
        norm = np.linalg.norm(change.astype(np.float64))
        np.testing.assert_allclose(norm, numbers[f"deltanorm/{name}"], rtol=1e-4, err_msg=name)
        # A difference of two weights is a multiple of their spacing, 1.2e-7 next to 1.
        spacing = np.spacing(np.abs(training.before[name]).max())
        expected = numbers[f"delta/{name}"].ravel()
        there = sampled(beyond_rounding(change, name), model_name) | (model_name == "tiny")
        np.testing.assert_allclose(
            sampled(change, model_name)[there],
            expected[there],
            rtol=0,
            atol=2 * spacing + 1e-4 * np.abs(expected).max(),
            err_msg=name,
        )


def test_frozen_patches_do_not_move(training):
    name = "clip.visual.conv1.weight"
    np.testing.assert_array_equal(training.after[name], training.before[name])


def bert_adam_run(stored, case):
    """Parameters after each of the kept steps, and the last moments m and v."""
    said = json.loads(str(stored["meta"]))
    config = optim.OptimConfig()
    optimizer = optax.chain(
        optim.clip_tensor_norms(said["per_tensor_clip"]),
        optim.bert_adam(
            config,
            optim.warmup_cosine(said["t_total"], said["warmup"]),
            float(stored[f"{case}/lr"]),
            decays=lambda path: True,
        ),
    )

    def step(carry, grad):
        params, state = carry
        updates, state = optimizer.update({"weight": grad}, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params["weight"]

    @jax.jit
    def run(start, grads):
        params = {"weight": start}
        return jax.lax.scan(step, (params, optimizer.init(params)), grads)

    (_, state), history = run(stored[f"{case}/p0"], stored[f"{case}/grads"])
    adam = state[1]
    kept = np.asarray(history)[stored["steps_kept"] - 1]
    return kept, np.asarray(adam.mu["weight"]), np.asarray(adam.nu["weight"])


def test_bert_adam_in_float32(optimiser_numbers):
    kept, first, second = bert_adam_run(optimiser_numbers, "fp32")
    for value, name in ((kept, "p"), (first, "m"), (second, "v")):
        expected = optimiser_numbers[f"fp32/{name}"]
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    "case", ["fp16_tiny_grad", "fp16_mid_grad", "fp16_big_grad", "fp16_head_lr"]
)
def test_bert_adam_in_float16(optimiser_numbers, case):
    kept, first, second = bert_adam_run(optimiser_numbers, case)
    for value, name in ((kept, "p"), (first, "m"), (second, "v")):
        assert value.dtype == np.float16
        assert np.mean(value == optimiser_numbers[f"{case}/{name}"]) >= 0.999, name


UNSHARED = GLSCLConfig(
    clip=CLIPConfig(
        image_size=16,
        patch_size=8,
        vision_width=64,
        vision_layers=1,
        text_width=128,
        text_layers=2,
        embed_dim=64,
        context_length=8,
        vocab_size=32,
    ),
    temporal="seqLSTM",
    head=GLSCLHead(
        queries=3, lim_layers=2, lim_feed_forward=96, share_queries=False, share_decoder=False
    ),
)


def test_lstm_and_unshared_lim(torch):
    from convert.verification import torch_glscl  # imports torch, which may be missing

    reference = torch_glscl.randomise(torch_glscl.GLSCL(UNSHARED), seed=0)
    random = np.random.default_rng(0)
    text_mask = (np.arange(6) < np.array([[6], [4], [2]])).astype(np.int32)
    ids = random.integers(1, 30, text_mask.shape, dtype=np.int32) * text_mask
    ids[np.arange(3), text_mask.sum(axis=1) - 1] = 31
    frame_mask = (np.arange(4) < np.array([[4], [1], [3]])).astype(np.int32)
    frames = random.normal(size=(3, 4, 16, 16, 3)).astype(np.float32)
    frames *= frame_mask[:, :, None, None, None]

    with torch.no_grad():
        expected = (
            *reference.encode_text(torch.tensor(ids).long(), torch.tensor(text_mask)),
            *reference.encode_video(
                torch.tensor(frames).permute(0, 1, 4, 2, 3), torch.tensor(frame_mask)
            ),
        )
    tensors = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    converted = rules.from_torch_names(tensors, config=UNSHARED)
    assert converted.ignored == ()
    run = jax.jit(GLSCL(UNSHARED).apply, compiler_options=QUICK_COMPILE)
    text, video, _ = run({"params": converted.params}, ids, text_mask, frames, frame_mask)
    ours = (text.sentence, text.queries, video.frames, video.queries)
    for got, wanted in zip(ours, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5)
