"""The validation split's figures in the course of a run."""

import functools

import jax

from glscl_jax.input_pipeline import pipeline
from glscl_jax.models.heads.head import Head
from glscl_jax.retrieval import encoding, metrics
from glscl_jax.retrieval.encoded_split import EncodedSplit


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
        return figures(self._encode(params, batches), self._model.config.head)

    def _encode(self, params, batches):
        config = self._config
        return encoding.encode_split(
            self._encoder,
            params,
            batches,
            self._tokenize,
            batch_size=config.eval_batch_size,
            total=self._data.splits[self.split],
            show=False,
        )


def figures(encoded: EncodedSplit, head: Head) -> dict[str, float]:
    """What is logged of a split: both directions' ranks, and what the head says of its features."""
    result = encoding.rank_split(encoded, head)
    t2v, v2t = (metrics.recalls(ranks.mean).as_dict() for ranks in (result.t2v, result.v2t))
    v2t = {f"v2t {name}": value for name, value in v2t.items()}
    return {**t2v, **v2t, **head.figures(encoded.text, encoded.video)}
