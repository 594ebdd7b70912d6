"""How many videos and captions the benchmarks have, as published; beside each number its source.

"Counted" is what the published annotation files hold, where the tests could read them.
"""

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


# Yu et al. 2018 (JSFusion), one caption a video; counted.
_MSRVTT_TEST = _exactly(("test",), 1_000, 1_000)

PUBLISHED = {
    "msrvtt_9k": Published(
        (
            # Ids: Gabeur et al. 2020 (MMT), counted. Captions: 20 a video, Xu et al. 2016.
            _exactly(("train", "val"), 9_000, 180_000),
            _MSRVTT_TEST,
        ),
        "Xu et al. 2016 (20 captions a video); Yu et al. 2018 (test 1k-A); Gabeur et al. 2020 (9k)",
    ),
    "msrvtt_7k": Published(
        (
            # Ids: the list of Miech et al. 2019 (HowTo100M), counted. Captions: as above.
            _exactly(("train", "val"), 7_010, 140_200),
            _MSRVTT_TEST,
        ),
        "Xu et al. 2016 (20 captions a video); Yu et al. 2018 (test 1k-A); Miech et al. 2019 (7k)",
    ),
    "msrvtt_full": Published(
        (
            # Videos: Xu et al. 2016. Captions: 20 a video; the table in the README of Dong et al.
            # 2021 (hybrid_space) says the same of each split.
            _exactly(("train",), 6_513, 130_260),
            _exactly(("val",), 497, 9_940),
            _exactly(("test",), 2_990, 59_800),
        ),
        "Xu et al. 2016 (the official split, 20 captions a video)",
    ),
    "msvd": Published(
        (
            # Ids: Venugopalan et al. 2015. Captions: captions_msvd.json. All counted.
            _exactly(("train",), 1_200, 48_774),
            _exactly(("val",), 100, 4_290),
            _exactly(("test",), 670, 27_763),
        ),
        "Venugopalan et al. 2015 (the split); captions as counted in captions_msvd.json",
    ),
    "vatex": Published(
        (
            # Training videos: Wang et al. 2019. The halves: Chen et al. 2020 (HGR), who say so in
            # the 28th issue of cshizhe/hgr_v2t. Captions: 10 a video, Wang et al. 2019; the table
            # in the README of Dong et al. 2021 (hybrid_space) says all of these numbers.
            _exactly(("train",), 25_991, 259_910),
            _exactly(("val",), 1_500, 15_000),
            _exactly(("test",), 1_500, 15_000),
        ),
        "Wang et al. 2019 (10 English captions a video); Chen et al. 2020 (the split)",
    ),
    "lsmdc": Published(
        (
            # 101,079 sentences: the README of the 2016 challenge, which adds that one clip can have
            # several and does not count clips. Of 118,114 sentences in all (Rohrbach et al., arXiv
            # 1605.03705) on 118,081 clips (Luo et al. 2022) the difference would make 101,046 here:
            # not verified, so that whatever is between passes. Up to three clips are left out
            # (lsmdc.EXCLUDED).
            Count(("train",), (101_043, 101_079), (101_076, 101_079)),
            # 7,408: the same README. Two of those left out are from film scripts, which it says are
            # in training alone; where the third is could not be verified.
            Count(("val",), (7_407, 7_408), (7_407, 7_408)),
            # Yu et al. 2018; the README of Liu et al. 2019 (collaborative experts) counts the same.
            _exactly(("test",), 1_000, 1_000),
        ),
        "README of the LSMDC 2016 challenge (sentences); training videos not verified",
    ),
    "didemo": Published(
        (
            # 8,395: Hendricks et al. 2017. 8,392: the list of Liu et al. 2019, its README says so.
            _paragraphs(("train",), 8_392, 8_395),
            # 1,065: both.
            _paragraphs(("val",), 1_065, 1_065),
            # 1,004: both; 1,003 with CLIP4Clip (Luo et al. 2022).
            _paragraphs(("test",), 1_003, 1_004),
        ),
        "Hendricks et al. 2017; Liu et al. 2019 (8,392 train); Luo et al. 2022 (1,003 test)",
    ),
    "activitynet": Published(
        (
            # 10,009 and 4,917 (val_1): Krishna et al. 2017, as counted by Liu et al. 2019; the
            # paragraphs: Zhang et al. 2018.
            _paragraphs(("train", "val"), 10_009, 10_009),
            _paragraphs(("test",), 4_917, 4_917),
        ),
        "Krishna et al. 2017; Zhang et al. 2018 (paragraphs, tested on val_1)",
    ),
}
