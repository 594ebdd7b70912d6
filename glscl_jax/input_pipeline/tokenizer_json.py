"""A `tokenizer.json` that does by itself what `Tokenizer.__call__` does around the words."""

import tokenizers
from tokenizers import processors

from glscl_jax.input_pipeline.tokenizer import Frame


def framed(rules: tokenizers.Tokenizer, frame: Frame, length: int) -> bytes:
    """The file of rules that frame captions, cut them and fill them up to L = `length` places.

    Args:
      rules: for the words; changed.
      frame: what is put around them.
      length: the words are cut so that start and end have places.
    """
    names = {number: rules.id_to_token(number) for number in (*frame.start, *frame.end)}
    whole = [*map(names.get, frame.start), "$A", *map(names.get, frame.end)]
    special = [(name, number) for number, name in names.items()]
    rules.post_processor = processors.TemplateProcessing(single=whole, special_tokens=special)
    rules.enable_truncation(length)
    rules.enable_padding(
        direction="left" if frame.pad_left else "right",
        pad_id=frame.pad_id,
        pad_token=rules.id_to_token(frame.pad_id),
        length=length,
    )
    return rules.to_str(pretty=True).encode()
