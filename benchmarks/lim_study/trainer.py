"""Whole trainings as one program: the project's own steps, scanned over and mapped over lanes."""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import optax

from benchmarks.lim_study import recipe
from benchmarks.lim_study.clips import Clips
from benchmarks.lim_study.lanes import Lanes, Length
from benchmarks.lim_study.variants import Shape
from glscl_jax.models.glscl import GLSCL, init_params
from glscl_jax.training.optim import make_optimizer
from glscl_jax.training.steps import init_state, train_step
from glscl_jax.training.warm_start import start_params

# Items that towers are run on at once, where nothing is trained.
_BLOCK = 500


@flax.struct.dataclass
class Split:
    """N pairs on the device.

    Attributes:
      text: what the model takes of texts, arrays [N,...] by its arguments' names.
      video: likewise of videos.
    """

    text: dict[str, jax.Array]
    video: dict[str, jax.Array]

    def pairs(self, rows: jax.Array) -> dict[str, jax.Array]:
        """A training batch."""
        return jax.tree.map(lambda array: array[rows], {**self.text, **self.video})


def pixels(clips: Clips) -> Split:
    """A split of which encoders are trained."""
    return Split(
        {"text_ids": clips.text_ids, "text_mask": clips.text_mask},
        {"frames": clips.frames, "frame_mask": clips.frame_mask},
    )


@flax.struct.dataclass
class Trained:
    """What n trainings came to.

    Attributes:
      losses: float32 [S,n], of each batch before its update.
      scores: float32 [n,T,T], of the test texts and videos.
      text_queries, video_queries: float32 [n,T,K,D]; None of a head without.
      weight: float32 [n], the LIM's in the score; None likewise.
      params: of the first training.
    """

    losses: jax.Array
    scores: jax.Array
    text_queries: jax.Array | None
    video_queries: jax.Array | None
    weight: jax.Array | None
    params: dict


@dataclasses.dataclass(frozen=True)
class Program:
    """What is compiled at once.

    Attributes:
      shape: of the model.
      protocol: a name of `PROTOCOLS`.
      length: how much is trained.
    """

    shape: Shape
    protocol: str
    length: Length

    @property
    def of_features(self) -> bool:
        return self.protocol == recipe.FROM_FEATURES

    def __call__(self, lanes: Lanes, train: Split, test: Split, base: dict | None) -> Trained:
        """Trains and scores; `base` are the parameters of which features are, else None."""
        states = jax.vmap(functools.partial(self._begin, base=base))(lanes)

        def step(states, picks):
            return jax.vmap(self._step, in_axes=(0, 0, 0, None))(states, picks, lanes, train)

        picks = jnp.swapaxes(lanes.picks, 0, 1)
        states, losses = jax.lax.scan(step, states, picks)
        # One after the other: all at once would hold the frames' activations of every lane.
        scored = jax.lax.map(lambda one: self._score(*one, test), (states.params, lanes))
        return Trained(losses, *scored, jax.tree.map(lambda leaf: leaf[0], states.params))

    def _model(self, options) -> GLSCL:
        more = {"options": options} if self.shape.has_lim else {}
        return GLSCL(self.shape.model_config(**more))

    def _optimizer(self, options) -> optax.GradientTransformation:
        whole = make_optimizer(recipe.OPTIM[self.protocol], self.length.steps)

        def at_rate(updates, _):
            return {
                name: jax.tree.map(lambda leaf: options.lim_rate * leaf, part)
                if name == "lim"
                else part
                for name, part in updates.items()
            }

        return optax.chain(whole, optax.stateless(at_rate))

    def _begin(self, lanes: Lanes, base: dict | None):
        model = GLSCL(self.shape.model_config())
        params = init_params(model, lanes.seed)
        if base is not None:
            given = {name: part for name, part in base.items() if name in params}
            params = start_params(params, given, model.config)
        if self.shape.has_lim:
            lim = params["lim"]
            queries = {
                name: jnp.where(lanes.given, lanes.start, lim[name])
                for name in ("queries", "text_queries")
                if name in lim
            }
            params = {**params, "lim": {**lim, **queries}}
        optimizer = self._optimizer(lanes.options)
        return init_state(params, optimizer, recipe.OPTIM[self.protocol])

    def _step(self, state, picks, lanes: Lanes, train: Split):
        model = self._model(lanes.options)
        head = model.config.head
        state, metrics = train_step(
            state,
            train.pairs(picks),
            model=model,
            optimizer=self._optimizer(lanes.options),
            optim=recipe.OPTIM[self.protocol],
            weights=head.loss_weights(),
            seed=lanes.seed,
        )
        return state, metrics.losses.total

    def _score(self, params, lanes: Lanes, test: Split):
        """Scores [T,T], both sides' concepts [T,K,D] and the LIM's weight []."""
        model = self._model(lanes.options)
        apply = functools.partial(model.apply, {"params": params})
        if self.of_features:
            text = apply(**test.text, method="text_features")
            video = apply(**test.video, method="video_features")
        else:
            ids, text_mask = test.text["text_ids"], test.text["text_mask"]
            text = apply(ids, text_mask, method="encode_text")
            video = apply(test.video["frames"], test.video["frame_mask"], method="encode_video")
        scores = model.config.head.score(text, video)
        if not self.shape.has_lim:
            return scores, None, None, None
        return scores, text.queries, video.queries, text.weight[0]


def features(base: dict, clips: Clips, shape: Shape) -> Split:
    """What the towers of `base` make of a split; all tokens, also of a head that reads none."""
    model = GLSCL(shape.model_config())
    count = len(clips.frames)
    block = _BLOCK if count % _BLOCK == 0 else count

    def blocks(*arrays):
        return tuple(array.reshape(-1, block, *array.shape[1:]) for array in arrays)

    @jax.jit
    def towers(base, texts, videos):
        def text(part):
            return model.apply({"params": base}, *part, method="text_tower")

        def video(part):
            return model.apply({"params": base}, *part, method="frame_tower")

        found = (*jax.lax.map(text, texts), jax.lax.map(video, videos))
        return tuple(array.reshape(count, *array.shape[2:]) for array in found)

    texts = blocks(clips.text_ids, clips.text_mask)
    sentence, tokens, frames = towers(base, texts, blocks(clips.frames, clips.frame_mask))
    return Split(
        {"sentence": sentence, "tokens": tokens, "text_mask": clips.text_mask},
        {"frames": frames, "frame_mask": clips.frame_mask},
    )
