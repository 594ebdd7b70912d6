"""What is asked: a sentence, checked."""

import unicodedata

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations.tables import has_letters

# A caption has some tens of words; more is a file that was meant as something else.
MOST_CHARACTERS = 2000


def sentence(text: str) -> str:
    """A sentence to ask, stripped.

    Raises:
      UserError: there is nothing in it that can be read aloud, it is no text, or is too long.
    """
    text = " ".join(text.split())
    if len(text) > MOST_CHARACTERS:
        raise UserError(
            f"the sentence has {len(text):,} characters: ask with at most {MOST_CHARACTERS:,}"
        )
    for character in text:
        # Control characters, and halves of characters.
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise UserError(
                f"the sentence holds the control character U+{ord(character):04X}: take it out"
            )
    if not has_letters(text):
        raise UserError("the sentence is empty: write what is to be seen")
    return text


def sentences(text: str, name: str) -> list[str]:
    """The sentences of a file's text, one a line; blank lines are passed over.

    Raises:
      UserError: naming the line that is none.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(sentence(line))
        except UserError as error:
            raise UserError(f"{name} line {number}: {error}") from error
    if not found:
        raise UserError(f"{name}: no sentence in it: write one a line")
    return found
