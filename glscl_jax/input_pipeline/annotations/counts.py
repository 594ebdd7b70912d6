"""How many videos and captions the benchmarks have, as published."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Count:
    """What one published split holds.

    Attributes:
      splits: the splits here that it is divided into, in which a validation split is carved.
      videos: fewest and most videos; papers differ by a few that are gone.
      captions: fewest and most captions, of paragraph sets one a video.
    """

    splits: tuple[str, ...]
    videos: tuple[int, int]
    captions: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Published:
    """A benchmark's counts, and where they are from."""

    counts: tuple[Count, ...]
    source: str


def _exactly(splits: tuple[str, ...], videos: int, captions: int) -> Count:
    return Count(splits, (videos, videos), (captions, captions))


def _paragraphs(split: tuple[str, ...], fewest: int, most: int) -> Count:
    return Count(split, (fewest, most), (fewest, most))


_MSRVTT_TEST = _exactly(("test",), 1_000, 1_000)

PUBLISHED = {
    "msrvtt_9k": Published(
        (_exactly(("train", "val"), 9_000, 180_000), _MSRVTT_TEST),
        "Xu et al. 2016 (20 captions a video); Yu et al. 2018 (test 1k-A); Gabeur et al. 2020 (9k)",
    ),
    "msrvtt_7k": Published(
        (_exactly(("train", "val"), 7_010, 140_200), _MSRVTT_TEST),
        "Xu et al. 2016 (20 captions a video); Yu et al. 2018 (test 1k-A); Miech et al. 2019 (7k)",
    ),
    "msvd": Published(
        (
            _exactly(("train",), 1_200, 48_774),
            _exactly(("val",), 100, 4_290),
            _exactly(("test",), 670, 27_763),
        ),
        "Venugopalan et al. 2015 (the split); captions as counted in captions_msvd.json",
    ),
    # 33 training clips have two sentences; up to three clips are left out (lsmdc.EXCLUDED).
    "lsmdc": Published(
        (
            Count(("train",), (101_043, 101_046), (101_076, 101_079)),
            Count(("val",), (7_405, 7_408), (7_405, 7_408)),
            _exactly(("test",), 1_000, 1_000),
        ),
        "LSMDC 2016 challenge (its README; Rohrbach et al. 2017)",
    ),
    "didemo": Published(
        (
            _paragraphs(("train",), 8_392, 8_395),
            _paragraphs(("val",), 1_065, 1_065),
            _paragraphs(("test",), 1_003, 1_004),
        ),
        "Hendricks et al. 2017; papers on retrieval count 8,392 to 8,395 and 1,003 to 1,004",
    ),
    "activitynet": Published(
        (
            _paragraphs(("train", "val"), 10_009, 10_009),
            _paragraphs(("test",), 4_917, 4_917),
        ),
        "Krishna et al. 2017; Zhang et al. 2018 (paragraphs, tested on val_1)",
    ),
}
