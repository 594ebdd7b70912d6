"""The validation split's figures in the course of a run."""

import functools

import jax

from glscl_jax.input_pipeline import pipeline
from glscl_jax.retrieval import encoding, metrics


class Validation:
    """Encodes, scores and ranks the validation split; called with parameters."""

    def __init__(self, config, data, tokenizer, model, mesh):
        self.split = config.data.validation_split
        self._config, self._data, self._model = config, data, model
        self._encoder = encoding.Encoder(model, mesh)
        self._tokenize = functools.partial(tokenizer, length=config.data.num_words)

    def __call__(self, params) -> dict[str, float]:
        """The figures of both directions; "R@1" is text-to-video's and decides the best."""
        config = self._config
        batches = pipeline.eval_batches(
            self._data,
            self.split,
            batch_size=config.eval_batch_size,
            num_frames=config.data.num_frames,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        encoded = encoding.encode_split(
            self._encoder,
            params,
            batches,
            self._tokenize,
            batch_size=config.eval_batch_size,
            total=self._data.splits[self.split],
            show=False,
        )
        result = encoding.rank_split(encoded, self._model.config.head)
        t2v, v2t = (metrics.recalls(ranks.mean).as_dict() for ranks in (result.t2v, result.v2t))
        return {**t2v, **{f"v2t {name}": value for name, value in v2t.items()}}
