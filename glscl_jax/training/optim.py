"""BertAdam, its clips and its schedule.

The reference's optimiser is Adam without bias correction and with decoupled weight decay, two
gradient clips in a row, and a learning rate for CLIP a thousand times smaller than the rest's.
Not `optax.adamw`: it corrects the bias, knows no layers of a stack that train in part, and does not
round float16 as PyTorch does after every operation.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from glscl_jax.models.encoders.parameters import is_half, stack_end
from glscl_jax.training.groups import groups_of, map_groups, train_part
from glscl_jax.training.optim_config import OptimConfig
from glscl_jax.trees import path_name

# torch.nn.utils.clip_grad_norm_ divides by the norm plus this.
TORCH_CLIP_EPS = 1e-6


def warmup_cosine(total_steps: int, warmup: float) -> optax.Schedule:
    """Factor on the learning rate at progress x = step / total_steps.

    `x / warmup` while x < warmup, then `(1 + cos(pi x)) / 2`: with 0.1 a step down from 1 to
    0.976 at the joint, as in the reference; the first step has rate 0.
    """

    # Compared in steps: XLA's step * (1 / total) would miss the joint by a rounding.
    climb = warmup * total_steps

    def schedule(step):
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * (step / total_steps)))
        return jnp.where(step < climb, step / climb, cosine) if climb else cosine

    return schedule


def clip_tensor_norms(max_norm: float) -> optax.GradientTransformation:
    """Clips every PyTorch tensor's gradient by itself: each layer of a stacked leaf apart."""

    def clip(path, grad):
        # In float16, PyTorch rounds the norm, then the coefficient, then the product.
        return _shrunk(grad, _clip_coefficient(max_norm, _tensor_norms(path, grad), grad.dtype))

    return optax.stateless(lambda grads, params: jax.tree_util.tree_map_with_path(clip, grads))


def clip_global_norm(max_norm: float) -> optax.GradientTransformation:
    """torch.nn.utils.clip_grad_norm_ over all gradients together."""

    def clip(grads, params):
        norms = jax.tree_util.tree_map_with_path(_tensor_norms, grads)
        # PyTorch stacks the tensors' norms in the widest of their dtypes.
        dtype = jnp.result_type(*jax.tree.leaves(grads))
        total = _rounding(dtype)(optax.tree.norm(norms))
        coefficient = _clip_coefficient(max_norm, total, dtype)
        return jax.tree.map(lambda grad: _shrunk(grad, coefficient), grads)

    return optax.stateless(clip)


def global_norm(grads) -> jax.Array:
    """float32 [], the norm over all of `grads`, whatever their dtypes.

    Squares of float16 numbers would vanish below 2e-4 and be infinite from 256 on.
    """
    return optax.tree.norm(jax.tree.map(lambda grad: grad.astype(jnp.float32), grads))


def _tensor_norms(path, grad: jax.Array) -> jax.Array:
    """Norm of each PyTorch tensor in a leaf, with axes of size 1 to go against `grad`.

    As PyTorch has it: float32, summed in it, then rounded to the gradient's dtype.
    """
    axes = tuple(range(1 if stack_end(path_name(path)) else 0, grad.ndim))
    squares = jnp.sum(grad.astype(jnp.float32) ** 2, axis=axes, keepdims=True)
    return _rounding(grad.dtype)(jnp.sqrt(squares))


def _clip_coefficient(max_norm: float, norm: jax.Array, dtype) -> jax.Array:
    """What a gradient of this norm, a `dtype`, is multiplied by: float32, 1 at most."""
    rounded = _rounding(dtype)
    return jnp.minimum(1.0, rounded(max_norm / rounded(norm + _added(TORCH_CLIP_EPS, dtype))))


def _shrunk(grad: jax.Array, coefficient: jax.Array) -> jax.Array:
    """`grad` times `coefficient` in float32, rounded to the gradient's dtype."""
    product = grad.astype(jnp.float32) * coefficient
    return _rounding(grad.dtype)(product).astype(grad.dtype)


def _rounding(dtype) -> Callable[[jax.Array], jax.Array]:
    """Rounds a float32 result to what `dtype` holds, also inside a fused chain of operations."""
    if dtype != jnp.float16:
        return lambda x: x
    return _round_to_float16


def _round_to_float16(x):
    # reduce_precision flushes what float16 holds as subnormals (below 2^-14, in steps of 2^-24)
    # to zero, and the second moments live there.
    normal = jax.lax.reduce_precision(x, exponent_bits=5, mantissa_bits=10)
    subnormal = jnp.round(x * 2.0**24) * 2.0**-24
    return jnp.where(jnp.abs(x) < 2.0**-14, subnormal, normal)


def _added(scalar: float, dtype) -> float:
    """A Python number as PyTorch adds it to a tensor of `dtype`: rounded to it first.

    A number that multiplies a tensor stays in float32 there.
    """
    return float(np.asarray(scalar, np.float16 if dtype == jnp.float16 else np.float64))


def bert_adam(
    config: OptimConfig,
    schedule: optax.Schedule,
    rate: float,
    decays: Callable,
    factors: Callable = lambda path: np.ones(1, np.float32),
) -> optax.GradientTransformation:
    """Adam without bias correction; decoupled decay added before the learning rate.

    `m' = b1 m + (1-b1) g`, `v' = b2 v + (1-b2) g^2`,
    `p' = p - rate * factor * schedule * (m' / (sqrt(v') + eps) + decay p)`.

    The moments have the parameter's dtype. Where that is float16 every operation is rounded to
    it, in PyTorch's order.

    Args:
      config: constants.
      schedule: updates done before this one -> factor on the rate.
      rate: peak learning rate.
      decays: parameter path -> whether it decays.
      factors: parameter path -> factor on the rate, float32 [layers] of a stack, else [1].
    """

    def init(params):
        # Made twice: a buffer that stands in two places cannot be donated.
        mu, nu = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), mu=mu, nu=nu)

    def update(grads, state, params):
        step_rate = rate * schedule(state.count)

        def first(grad, m):
            rounded = _rounding(m.dtype)
            pulled = _added(1 - config.b1, m.dtype) * grad.astype(jnp.float32)
            return rounded(rounded(config.b1 * m.astype(jnp.float32)) + pulled)

        def second(grad, v):
            rounded, grad = _rounding(v.dtype), grad.astype(jnp.float32)
            pulled = (1 - config.b2) * grad * grad
            return rounded(rounded(config.b2 * v.astype(jnp.float32)) + pulled)

        def change(path, m, v, param):
            name, rounded = path_name(path), _rounding(param.dtype)
            eps = _added(config.eps, param.dtype)
            step = rounded(m / rounded(rounded(jnp.sqrt(v)) + eps))
            if decays(name):
                decay = rounded(config.weight_decay * param.astype(jnp.float32))
                step = rounded(step + decay)
            # [layers] against [layers, ...]; a scalar has no axis at all.
            factor = factors(name).reshape(((-1,) + (1,) * (param.ndim - 1))[: param.ndim])
            return rounded(-step_rate * factor * step).astype(param.dtype)

        mu = jax.tree.map(first, grads, state.mu)
        nu = jax.tree.map(second, grads, state.nu)
        updates = jax.tree_util.tree_map_with_path(change, mu, nu, params)
        mu, nu = (
            jax.tree.map(lambda x, param: x.astype(param.dtype), moment, params)
            for moment in (mu, nu)
        )
        return updates, optax.ScaleByAdamState(state.count + 1, mu=mu, nu=nu)

    return optax.GradientTransformation(init, update)


def make_optimizer(config: OptimConfig, total_steps: int) -> optax.GradientTransformation:
    """Both clips, then BertAdam by groups; frozen parameters have neither gradient nor state.

    Of a stack that trains in part, the moments of the layers that do are held in one array.

    Args:
      config: see `OptimConfig`.
      total_steps: updates in the whole run, which the schedule spans. It goes by the updates that
        were made.
    """
    schedule = warmup_cosine(total_steps, config.warmup)

    def init(params):
        groups = groups_of(params, config)
        return _by_groups(config, schedule, groups).init(map_groups(train_part, groups, params))

    def update(grads, state, params):
        groups = groups_of(params, config)
        grads, trained = (map_groups(train_part, groups, tree) for tree in (grads, params))
        updates, state = _by_groups(config, schedule, groups).update(grads, state, trained)

        def whole(update, param, group):
            if group.rows is None:
                return update
            return jnp.zeros(param.shape, update.dtype).at[group.rows].set(update)

        return map_groups(whole, groups, updates, params), state

    return optax.GradientTransformation(init, update)


def _by_groups(config, schedule, groups) -> optax.GradientTransformation:
    """What `make_optimizer` does to the parts that train."""

    def labels(params):
        return map_groups(lambda _, group: group.label, groups, params)

    def is_frozen(params):
        return map_groups(
            lambda _, group: "frozen" if group.label == "frozen" else "trained", groups, params
        )

    def adam(rate):
        return bert_adam(
            config,
            schedule,
            rate,
            decays=lambda path: groups[path].decays,
            factors=lambda path: groups[path].factor,
        )

    by_rate = {
        "new": adam(config.learning_rate),
        "clip": adam(config.learning_rate * config.coef_lr),
    }
    trained = optax.chain(
        clip_global_norm(config.max_global_norm),
        clip_tensor_norms(config.max_tensor_norm),
        optax.partition(by_rate, labels),
    )
    return optax.partition({"trained": trained, "frozen": optax.set_to_zero()}, is_frozen)


def trainable(grads, config: OptimConfig):
    """`grads` without what is frozen: what the norms and the clips see."""

    def part(grad, group):
        return None if group.label == "frozen" else train_part(grad, group)

    return map_groups(part, groups_of(grads, config), grads)


def cast_params(params, config: OptimConfig):
    """`params` in the dtypes that `config.clip_numerics` keeps them in."""

    def cast(path, param):
        half = config.clip_numerics == "float16_reference" and is_half(path_name(path))
        return param.astype(jnp.float16 if half else jnp.float32)

    return jax.tree_util.tree_map_with_path(cast, params)
