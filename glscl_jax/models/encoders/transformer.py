"""The two kinds of transformer layer in GLSCL, stacked and scanned.

`ResidualBlock` is CLIP's pre-norm block (both towers and the temporal module); `DecoderLayer`
is the post-norm layer of `torch.nn.TransformerDecoder` (LIM). Layers of a stack hold their
parameters in one array with a leading layer axis, so compile time does not grow with depth.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from glscl_jax import target
from glscl_jax.models.encoders import attention, in_parts
from glscl_jax.models.encoders.attention import ALL, AttentionMask
from glscl_jax.models.encoders.offset_norm import OffsetNorm
from glscl_jax.models.encoders.parameters import BATCH, FSDP, TENSOR, Traits, state
from glscl_jax.models.encoders.products import PRODUCT, matmul, spread, sum_dtype
from glscl_jax.models.encoders.rotary import RotaryAngles, apply_rotary
from glscl_jax.models.encoders.split_norm import SplitNorm

# The first product of a pair is split over its outputs, the second over its inputs, so that the
# heads or the hidden units between them never leave their device (Shoeybi et al., 2019).
_IN, _OUT = (FSDP, TENSOR), (TENSOR, FSDP)
_BIAS = ((TENSOR, FSDP),)
_WHOLE, _SPLIT = (BATCH, None, None), (BATCH, None, TENSOR)

state(
    Traits(
        split={
            "attention/qkv_kernel": _IN,
            "mlp_in/kernel": _IN,
            "linear_1/kernel": _IN,
            "attention/qkv_bias": _BIAS,
            "mlp_in/bias": _BIAS,
            "linear_1/bias": _BIAS,
            "attention/out/kernel": _OUT,
            "mlp_out/kernel": _OUT,
            "linear_2/kernel": _OUT,
        },
        activations={
            "blocks": (_WHOLE, _WHOLE),
            "decoder": (_WHOLE, _WHOLE),
            "mlp_in": (_WHOLE, _SPLIT),
            "linear_1": (_WHOLE, _SPLIT),
            "attention/out": (_SPLIT, _WHOLE),
            "mlp_out": (_SPLIT, _WHOLE),
            "linear_2": (_SPLIT, _WHOLE),
        },
        stacks=("blocks", "decoder"),
    )
)

# torch.nn.LayerNorm's default, which CLIP and the decoder keep; Flax's own default is 1e-6.
LAYER_NORM_EPS = 1e-5
# What a layer keeps for the backward pass: everything, only matrix products, or only its input.
REMAT = {
    "none": None,
    # A product with a gradient of its own is none to the first of them.
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(PRODUCT),
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}
# "auto" on an accelerator, by what its compiler counts (docs/performance.md); elsewhere it is
# "none". A name of any of them chooses for all devices.
REMAT_KINDS = ("auto", *REMAT)
REMAT_BY_DEVICE = {"tpu": "full", "gpu": "full"}


def resolve_remat(kind: str) -> str:
    """A key of `REMAT` for a name of `REMAT_KINDS`, on the device that is compiled for."""
    return REMAT_BY_DEVICE.get(target.platform(), "none") if kind == "auto" else kind


def quick_gelu(x: jax.Array) -> jax.Array:
    """OpenAI's cheap GELU, `x * sigmoid(1.702 x)`: CLIP's weights were trained with it."""
    return x * jax.nn.sigmoid(1.702 * x)


# open_clip trains some of its models with the exact GELU of torch.nn.GELU, and JAX's own default,
# which SigLIP was trained with, is the approximation by tanh.
ACTIVATIONS: dict[str, Callable] = {
    "quick_gelu": quick_gelu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
}


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Settings of a stack of `ResidualBlock`s.

    Attributes:
      width: D.
      layers: how many.
      head_width: of attention, a divisor of D.
      mlp_width: hidden units of the MLP.
      activation: of the MLP, a key of `ACTIVATIONS`.
      epsilon: of the LayerNorms.
      cap: that attention's logits do not pass (see `attention.plain`); None for none.
      offset: whether the LayerNorms' scales are kept less 1 (see `OffsetNorm`).
    """

    width: int
    layers: int
    head_width: int
    mlp_width: int
    activation: str = "quick_gelu"
    epsilon: float = LAYER_NORM_EPS
    cap: float | None = None
    offset: bool = False

    @property
    def heads(self) -> int:
        return self.width // self.head_width

    def multiply_adds(self, length: int) -> int:
        """Of one block over L places: `4 L D^2 + 2 L^2 D + 2 L D M`.

        Four projections of attention, the weights and their sum, the masked ones as well; then the
        MLP of M hidden units there and back.
        """
        attention = 4 * length * self.width**2 + 2 * length**2 * self.width
        return attention + 2 * length * self.width * self.mlp_width

    def probe_multiply_adds(self, length: int) -> int:
        """Of a `Probe` over L places: `2 (L + 1) D^2 + 2 L D + 2 D M`.

        Keys and values of each, the query and what comes out of it; weights, their sum, the MLP.
        """
        attention = 2 * (length + 1) * self.width**2 + 2 * length * self.width
        return attention + 2 * self.width * self.mlp_width

    def pooler_multiply_adds(self, length: int) -> int:
        """Of a `Pooler` over L places: `(2 L + 2) D M + 2 L M`."""
        return (2 * length + 2) * self.width * self.mlp_width + 2 * length * self.mlp_width


def layer_norm(
    name: str, epsilon: float = LAYER_NORM_EPS, offset: bool = False
) -> nn.LayerNorm | OffsetNorm | SplitNorm:
    """LayerNorm in float32 with PyTorch's epsilon and its two-pass variance."""
    if offset:
        return OffsetNorm(epsilon, name=name)
    if target.platform() == "gpu":
        return SplitNorm(epsilon, name=name)
    return nn.LayerNorm(epsilon=epsilon, dtype=jnp.float32, use_fast_variance=False, name=name)


def torch_linear_uniform(fan_in: int) -> initializers.Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what torch.nn.Linear draws its weights and bias from."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, minval=-bound, maxval=bound
    )


class Linear(nn.Module):
    """`x @ kernel + bias` in `dtype`; parameters as nn.Dense names them."""

    features: int
    dtype: jnp.dtype
    kernel_init: initializers.Initializer
    bias_init: initializers.Initializer = initializers.zeros

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        product = matmul(x.astype(self.dtype), kernel)
        return product + spread(bias, product)


class Attention(nn.Module):
    """Multi-head attention with one fused projection, as torch.nn.MultiheadAttention has.

    The fused tensor `qkv` [D, 3, H, D/H] stays whole because the reference's optimiser clips
    the gradient of each PyTorch tensor by itself, and there the three are one.

    Attributes:
      heads: how many.
      dtype: of the computation.
      qkv_init, out_init: how the projections begin.
      dropout: of the weights.
      fused: by one kernel; without dropout, for the weights it would drop are not there.
      width: of all heads together; None for that of x.
      cap: see `attention.plain`.
      scaled: whether each of a head's dimensions has a learned factor on its query, which begins
        at 1: `softplus(s) / softplus(0)`.
    """

    heads: int
    dtype: jnp.dtype
    qkv_init: initializers.Initializer
    out_init: initializers.Initializer
    dropout: float = 0.0
    fused: bool = False
    width: int | None = None
    cap: float | None = None
    scaled: bool = False

    @nn.compact
    def __call__(
        self,
        x,
        memory=None,
        seen: AttentionMask = ALL,
        deterministic=True,
        angles: RotaryAngles | None = None,
    ):
        """Attends from x [B,Q,D] to what is `seen` of memory [B,M,D] (of itself without one).

        With `angles`, queries and keys are turned by their places first.
        """
        width = self.width or x.shape[-1]
        head = width // self.heads
        # Drawn as the matrix [D, 3D] that PyTorch initialises, then split into heads.
        kernel = self.param("qkv_kernel", self.qkv_init, (x.shape[-1], 3 * width))
        offset = self.param("qkv_bias", initializers.zeros, (3 * width,))

        def project(y, part):
            product = matmul(y, kernel[:, part])
            return product + spread(offset[part], product)

        filled = not self.dropout and attention.is_filled(self.dtype)
        if memory is None and (self.fused or filled):
            # They are wanted one by one: of one product that made all three they would be copied,
            # and back on the way of the gradient.
            thirds = (slice(part * width, (part + 1) * width) for part in range(3))
            query, key, value = (project(x, part) for part in thirds)
        elif memory is None:
            query, key, value = jnp.split(project(x, slice(None)), 3, axis=-1)
        else:
            query = project(x, slice(width))
            key, value = jnp.split(project(memory, slice(width, None)), 2, axis=-1)
        query, key, value = (
            y.reshape(*y.shape[:-1], self.heads, head) for y in (query, key, value)
        )
        if angles is not None:
            query, key = apply_rotary(query, angles), apply_rotary(key, angles)
        if self.scaled:
            factor = self.param("dimension_scale", initializers.zeros, (head,))
            factor = jax.nn.softplus(factor) / np.log(2)
            query = query * spread(factor, query)
        if self.fused:
            mixed = attention.fused(query, key, value, seen)
        elif filled:
            mixed = attention.filled(query, key, value, seen, self.cap)
        else:
            drop = nn.Dropout(self.dropout, deterministic=deterministic)
            mixed = attention.plain(query, key, value, seen, drop, self.cap)
        return Linear(x.shape[-1], self.dtype, kernel_init=self.out_init, name="out")(
            mixed.reshape(*x.shape[:-1], width)
        )


class ResidualBlock(nn.Module):
    """CLIP's block: `x + attention(ln_1(x))`, then `x + mlp(ln_2(x))`.

    Initialised as OpenAI's text tower: standard deviations D^-0.5 for the attention input,
    (2 D)^-0.5 for the MLP's, and D^-0.5 (2 layers)^-0.5 for what is added to the residual.
    """

    blocks: Blocks
    dtype: jnp.dtype
    fused: bool = False
    in_parts: bool = False

    @nn.compact
    def __call__(self, x, seen: AttentionMask, angles: RotaryAngles | None = None):
        """x [B,L,D], of which `seen` is seen. Returns (x, None), as `nn.scan` wants.

        With `in_parts`, on a TPU, a few examples at a time, unless each has a mask of its own.
        """
        wanted = self.in_parts and seen.mask is None and not self.is_initializing()
        if wanted and (rows := in_parts.rows_at_once(*x.shape[:2])):
            return self._by_parts(rows, x, seen, angles), None
        blocks = self.blocks
        attention = Attention(
            blocks.heads,
            self.dtype,
            initializers.normal(blocks.width**-0.5),
            residual_init(blocks),
            fused=self.fused,
            cap=blocks.cap,
            name="attention",
        )
        normed = layer_norm("ln_1", blocks.epsilon, blocks.offset)(x).astype(self.dtype)
        x = x + attention(normed, seen=seen, angles=angles)
        normed = layer_norm("ln_2", blocks.epsilon, blocks.offset)(x).astype(self.dtype)
        return x + mlp(normed, blocks, self.dtype), None

    def _by_parts(self, rows: int, x, seen: AttentionMask, angles: RotaryAngles | None):
        whole = ResidualBlock(self.blocks, self.dtype, self.fused, parent=None)

        def layer(params, x, seen, angles):
            return whole.apply({"params": params}, x, seen, angles)[0]

        params = self.variables["params"]
        return in_parts.by_parts(layer, params, x, seen, angles, rows=rows, sum_in=sum_dtype(x))


def residual_init(blocks: Blocks) -> initializers.Initializer:
    """Of what is added to the residual: OpenAI's standard deviation, D^-0.5 (2 layers)^-0.5."""
    return initializers.normal(blocks.width**-0.5 * (2 * blocks.layers) ** -0.5)


def mlp(x: jax.Array, blocks: Blocks, dtype: jnp.dtype) -> jax.Array:
    """x [B,L,D] -> [B,L,D]: `mlp_in`, the activation, `mlp_out`, modules of the one that calls."""
    hidden_init = initializers.normal((2 * blocks.width) ** -0.5)
    hidden = Linear(blocks.mlp_width, dtype, kernel_init=hidden_init, name="mlp_in")(x)
    hidden = ACTIVATIONS[blocks.activation](hidden)
    return Linear(blocks.width, dtype, kernel_init=residual_init(blocks), name="mlp_out")(hidden)


class Transformer(nn.Module):
    """A stack of `ResidualBlock`s: x [B,L,D], of which `seen` is seen -> [B,L,D]."""

    blocks: Blocks
    dtype: jnp.dtype
    remat: str = "none"
    scan: bool = True
    fused: bool = False

    @nn.compact
    def __call__(self, x, seen: AttentionMask = ALL, angles: RotaryAngles | None = None):
        stack = scan_layers(ResidualBlock, self.blocks.layers, self.remat, self.scan)
        # What is kept of all examples lies in the large memory in any case.
        parts = resolve_remat(self.remat) == "full"
        return stack(self.blocks, self.dtype, self.fused, parts, name="blocks")(x, seen, angles)[0]


class DecoderLayer(nn.Module):
    """Post-norm decoder layer with PyTorch's defaults: ReLU, dropout on every sublayer."""

    heads: int
    feed_forward: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, memory, seen: AttentionMask, deterministic):
        """x [B,K,D] attends to itself, then to what is `seen` of memory [B,M,D].

        Returns (x, None).
        """
        width = x.shape[-1]
        drop = nn.Dropout(self.dropout, deterministic=deterministic)

        def attention(name):
            return Attention(
                self.heads,
                self.dtype,
                # Xavier over the fused [D, 3D] matrix: sqrt(6 / (D + 3D)).
                initializers.xavier_uniform(),
                torch_linear_uniform(width),
                self.dropout,
                name=name,
            )

        def linear(features, fan_in, name):
            init = torch_linear_uniform(fan_in)
            return Linear(features, self.dtype, kernel_init=init, bias_init=init, name=name)

        def add_and_norm(x, update, name):
            return layer_norm(name)(x + drop(update)).astype(self.dtype)

        update = attention("self_attention")(x, deterministic=deterministic)
        x = add_and_norm(x, update, "norm_1")
        update = attention("cross_attention")(x, memory, seen, deterministic)
        x = add_and_norm(x, update, "norm_2")
        hidden = drop(jax.nn.relu(linear(self.feed_forward, width, "linear_1")(x)))
        x = add_and_norm(x, linear(width, self.feed_forward, "linear_2")(hidden), "norm_3")
        return x, None


def scan_layers(
    layer: type[nn.Module],
    length: int,
    remat: str = "none",
    scan: bool = True,
    same_init: bool = False,
):
    """`layer` repeated `length` times with stacked parameters.

    Args:
      layer: a module whose `__call__(x, *shared)` returns `(x, None)`.
      length: how many.
      remat: a name of `REMAT_KINDS`.
      scan: whether the compiled program loops over the layers or has each of them written out,
        which compiles longer.
      same_init: whether all layers start as copies of one (as torch.nn.TransformerDecoder's do).
    """
    remat = resolve_remat(remat)
    if REMAT[remat] is not None:
        # A loop already keeps XLA from merging the recomputation with the first computation.
        layer = nn.remat(layer, policy=REMAT[remat], prevent_cse=not scan)
    return nn.scan(
        layer,
        variable_axes={"params": 0},
        split_rngs={"params": not same_init, "dropout": True},
        in_axes=nn.broadcast,
        length=length,
        unroll=1 if scan else length,
    )
