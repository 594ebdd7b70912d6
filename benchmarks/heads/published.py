"""What was published of GLSCL and its peers on MSR-VTT: R@1, and the cost of what scores.

Both are of ViT-B/32. R@1 is text-to-video on the 1,000 pairs of 1k-A, without re-ranking, as each
method's own paper has it. GFLOP are of 1,000 texts x 1,000 videos, as GLSCL's paper has them for
all (arXiv 2405.12710). Its first figure is made of such pairs.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Published:
    """A method's point.

    Attributes:
      gflop: of all pairs.
      recall: R@1, percent; None where its paper was not at hand.
      source: the method's own paper.
    """

    gflop: float
    recall: float | None
    source: str


PUBLISHED = {
    "CLIP4Clip": Published(0.5, 44.5, "arXiv 2104.08860"),  # With its sequential transformer.
    "DiCoSA": Published(0.51, None, "arXiv 2305.12218"),
    "GLSCL": Published(1.0, 48.1, "arXiv 2405.12710"),
    "CenterCLIP": Published(1.5, 44.2, "arXiv 2205.00823"),
    "TS2-Net": Published(6.1, 47.0, "arXiv 2207.07852"),
    "X-CLIP": Published(220.9, 46.1, "arXiv 2207.07285"),
    "X-Pool": Published(275.0, 46.9, "arXiv 2203.15086"),
    "Prompt Switch": Published(298.5, None, "arXiv 2308.07648"),
}
