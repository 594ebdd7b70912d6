"""Whether a GLSCL's second queries and decoder are in use, as far as its tensors tell."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from convert.naming import rules, sharing
from glscl_jax.errors import UserError
from tests.builders import MODELS, random_params

DECODER = "transformer_decoder_spatial.layers."
START = "decoder_layer_spatial.linear1.weight"


@pytest.fixture
def small() -> dict[str, np.ndarray]:
    """Of one set of queries, and a decoder for texts and one for videos."""
    return rules.to_torch_names(random_params(MODELS["none, own decoder"]))


def drawn() -> np.ndarray:
    """As torch.rand draws it."""
    return (np.random.default_rng(0).integers(0, 1 << 24, (3, 64)) / 2**24).astype(np.float32)


def untrained(tensors: dict, layers: int = 3) -> dict:
    """The videos' decoder as it starts: its layers copies of one."""
    first = {n: t for n, t in tensors.items() if n.startswith(f"{DECODER}0.")}
    return tensors | {
        name.replace("layers.0", f"layers.{layer}"): tensor
        for name, tensor in first.items()
        for layer in range(layers)
    }


def test_a_decoder_is_in_use_if_it_was_trained(small):
    assert not sharing.infer(small, {}, "")["share_decoder"]
    # Layers that are still copies of one were never trained.
    assert sharing.infer(untrained(small), {}, "")["share_decoder"]
    # The one that they are copies of is saved, too: it tells of a single layer.
    single = {n: t for n, t in small.items() if DECODER not in n or n.startswith(f"{DECODER}0")}
    single[START] = single[f"{DECODER}0.linear1.weight"]
    assert sharing.infer(single, {}, "")["share_decoder"]
    single[START] = single[START] + 1
    assert not sharing.infer(single, {}, "")["share_decoder"]


def test_queries_are_in_use_if_they_were_trained(small):
    assert sharing.infer({**small, "noun_queries": drawn()}, {}, "")["share_queries"]
    converted = rules.from_torch_names({**small, "noun_queries": drawn() - np.float32(1e-7)})
    assert not converted.config.head.share_queries
    trained = converted.params["lim"]["text_queries"]
    np.testing.assert_array_equal(trained, drawn() - np.float32(1e-7))


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("widened", [False, True])
def test_half_precision_hides_training(small, half, widened):
    """Trained or not, its numbers are whole multiples of 2^-24: it is asked, not guessed."""

    def rounded(tensors):
        halves = {name: tensor.astype(half) for name, tensor in tensors.items()}
        return {n: t.astype(np.float32) if widened else t for n, t in halves.items()}

    trained = np.clip(drawn() + np.float32(1e-3), 0, 1)
    tensors = rounded(untrained(small) | {"noun_queries": trained})
    with pytest.raises(UserError, match=r"--share_queries or --noshare_queries and --share_dec"):
        sharing.infer(tensors, {}, "half.pt")
    with pytest.raises(UserError, match=r"half\.pt does not tell.*: give --share_decoder or --no"):
        sharing.infer(tensors, {"share_queries": False}, "half.pt")
    given = {"share_queries": False, "share_decoder": True}
    assert sharing.infer(tensors, given, "half.pt") == given
    # What only training can have done still tells.
    apart = rounded(small | {"noun_queries": trained - 1})
    assert sharing.infer(apart, {}, "") == {"share_queries": False, "share_decoder": False}


def test_a_single_layer_without_its_start_is_asked(small):
    config = dataclasses.replace(
        MODELS["none, own decoder"],
        head=dataclasses.replace(MODELS["none, own decoder"].head, lim_layers=1),
    )
    tensors = rules.to_torch_names(random_params(config))
    with pytest.raises(UserError, match="--share_decoder or --noshare_decoder"):
        sharing.infer(tensors, {}, "")
