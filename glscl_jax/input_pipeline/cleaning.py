"""How captions are cleaned before they are cut into tokens, by the names of `CLEANINGS`.

Each is its family's own: a text that is cleaned otherwise is other tokens. This file is written
beside an exported text side (`convert.query_side`), too: it imports nothing of the library, and
`ftfy` for a text that has something to mend alone.
"""

import html
import re
import string
from collections.abc import Callable

# A word's boundary to SentencePiece, which writes it for a space.
BOUNDARY = "▁"
_WITHOUT = str.maketrans("", "", string.punctuation)
_AS_SPACE = str.maketrans(string.punctuation, " " * len(string.punctuation))


def clip(caption: str) -> str:
    """CLIP's text cleaning: repaired Unicode, no HTML entities, single spaces, lower case."""
    text = caption
    # Of plain characters, entities alone are anything to mend; to look for more takes four times
    # what all the rest of tokenizing does.
    if not (text.isascii() and text.isprintable()) or "&" in text:
        # Twice, because captions scraped from the web hold "&amp;amp;".
        text = _mended(text)
    return re.sub(r"\s+", " ", text).strip().lower()


def siglip(caption: str) -> str:
    """SigLIP's: lower case, no ASCII punctuation, single spaces."""
    return re.sub(r"\s+", " ", caption.lower().translate(_WITHOUT)).strip()


def videoprism(caption: str) -> str:
    """VideoPrism's: ASCII punctuation is space, lower case, single spaces, and a period behind."""
    return " ".join(caption.translate(_AS_SPACE).lower().split()) + "."


def whitespace(caption: str) -> str:
    """open_clip's of that name: repaired Unicode, no HTML entities, single spaces."""
    return " ".join(_mended(caption).split())


def canonical(caption: str) -> str:
    """open_clip's "canonicalize": the same without ASCII punctuation, in lower case."""
    return " ".join(_mended(caption).replace("_", " ").translate(_WITHOUT).lower().split())


def none(caption: str) -> str:
    """As it is."""
    return caption


def _mended(caption: str) -> str:
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(caption)))


CLEANINGS: dict[str, Callable[[str], str]] = {
    "none": none,
    "siglip": siglip,
    "videoprism": videoprism,
    "whitespace": whitespace,
    "lower": clip,
    "canonicalize": canonical,
}
