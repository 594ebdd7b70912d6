"""What an Ogg file has lost. FFmpeg leaves out damaged pages, and says so to nobody.

A page has a checksum, the number of its stream and its own number in that stream; a stream's last
page is marked (RFC 3533).
"""

import bisect
import dataclasses
import itertools
import mmap
import pathlib
import struct
import zlib
from collections.abc import Iterator

_MAGIC = b"OggS"
_HEADER = struct.Struct("<4sBBqIIIB")
_CHECKSUM = 22  # its place in the header
_ENDS = 4  # the flag of a last page
# Ogg's checksum is zlib's of bytes and result read backwards, bit by bit, without its inversions.
_BACKWARDS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_ONES = 0xFFFFFFFF


@dataclasses.dataclass(frozen=True)
class _Page:
    """A page that is whole.

    Attributes:
      offset: of its first byte in the file.
      stream, number: of the stream that it is of, and its own in that.
      ends: whether it is marked as the stream's last.
      goes_on: whether its last packet goes on in the next page.
    """

    offset: int
    stream: int
    number: int
    ends: bool
    goes_on: bool


@dataclasses.dataclass(frozen=True)
class Holes:
    """What of a stream is not there, between its packets, which are numbered from 0.

    Attributes:
      behind: the packets ahead of which others are missing.
      torn: the packets of which a part is missing.
      times: when the frames would be shown that are missing, in ticks.
      cut_off: whether the end is missing.
    """

    behind: frozenset[int] = frozenset()
    torn: frozenset[int] = frozenset()
    times: tuple[int, ...] = ()
    cut_off: bool = False


def find_holes(
    path: pathlib.Path, positions: list[int], times: list[int | None], step: int
) -> Holes:
    """Finds what is missing of a stream, and mends the times of its packets.

    Behind a hole FFmpeg counts the first packet on from those before the hole, and goes by the
    file's clock again from the second on.

    Args:
      path: the file.
      positions: of each packet, the byte at which the page begins that it begins in; ascending.
      times: of each packet, when its frame is shown, in ticks; those that are wrong are changed, to
        None where nothing says the right one.
      step: ticks a frame.
    """
    pages = list(_pages(path))
    stream = next((page.stream for page in pages if page.offset == positions[0]), None)
    own = [page for page in pages if page.stream == stream]
    behind, torn, missing = set(), set(), []
    for before, page in itertools.pairwise(own):
        number = bisect.bisect_left(positions, page.offset)
        if page.number == before.number + 1 or number == len(positions):
            continue
        behind.add(number)
        if number == 0:
            continue
        if before.goes_on:
            torn.add(number - 1)
        counted = times[number]
        following = times[number + 1] if number + 1 < len(times) else None
        times[number] = None if following is None else following - step
        if times[number] == counted and not before.goes_on:
            # Whole packets are missing, and still no clock was gone by.
            last = bisect.bisect_right(positions, page.offset)
            times[number:last] = [None] * (last - number)
        elif times[number] is not None and times[number - 1] is not None:
            lost = range(times[number - 1] + step, times[number], step)
            # Each takes a byte or more, whatever the clock says.
            missing += lost if len(lost) <= page.offset - before.offset else ()
    cut_off = bool(own) and not own[-1].ends
    return Holes(frozenset(behind), frozenset(torn), tuple(missing), cut_off)


def _pages(path: pathlib.Path) -> Iterator[_Page]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(_MAGIC)
        while at >= 0:
            page, end = _page(data, at)
            if page is not None:
                yield page
            at = data.find(_MAGIC, end)


def _page(data: mmap.mmap, at: int) -> tuple[_Page | None, int]:
    """The page that begins at a byte, and where to look for the next; None if it is damaged."""
    beyond = at + len(_MAGIC)
    if at + _HEADER.size > len(data):
        return None, beyond
    _, _, flags, _, stream, number, checksum, count = _HEADER.unpack_from(data, at)
    lengths = data[at + _HEADER.size : at + _HEADER.size + count]
    end = at + _HEADER.size + count + sum(lengths)
    content = bytearray(data[at:end])
    content[_CHECKSUM : _CHECKSUM + 4] = bytes(4)
    backwards = zlib.crc32(content.translate(_BACKWARDS), _ONES) ^ _ONES
    if len(lengths) < count or end > len(data) or int(f"{backwards:032b}"[::-1], 2) != checksum:
        return None, beyond
    goes_on = bool(lengths) and lengths[-1] == 255
    return _Page(at, stream, number, bool(flags & _ENDS), goes_on), end
