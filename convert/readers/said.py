"""What a directory says of its model beside the tensors."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Said:
    """What a config says of the towers.

    Attributes:
      settings: by their names in `CLIPConfig`, among them all that tensors do not show.
      end_id: the token whose place has the sentence, where the settings do not say it; None if it
        is the highest of a caption.
      tokenizer_options: of open_clip's tokenizers, as `read_tokenizer` takes them.
      kind: transformers' `model_type`; None of another library's.
      keys: where the file says a setting, as far as it is named in a message.
    """

    settings: Mapping[str, object]
    end_id: int | None = None
    tokenizer_options: Mapping[str, object] = dataclasses.field(default_factory=dict)
    kind: str | None = None
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
