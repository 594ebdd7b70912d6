"""What retrieval is told by: the names of its figures, and its two directions."""

RECALLS_AT = (1, 5, 10, 50)
RECALLS = tuple(f"R@{k}" for k in RECALLS_AT)
FIGURES = (*RECALLS, "MdR", "MnR")
# As files and code have them -> as sentences do.
DIRECTIONS = {"t2v": "text-to-video", "v2t": "video-to-text"}


def more_is_better(figure: str) -> bool:
    """Whether a higher value is a better one; of ranks a lower one is."""
    return figure in RECALLS
