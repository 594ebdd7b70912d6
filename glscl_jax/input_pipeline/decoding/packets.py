"""Packets -> the good frames among those that are wanted, past the others that nothing leans on.

Frames are found by their timestamps where each has one of its own (`by_timestamp`, which seeks),
and else by counting what the decoder puts out (`count`, `by_count`).
"""

import bisect
import dataclasses
import pathlib
from collections.abc import Iterator

import av

from glscl_jax.input_pipeline.decoding import containers
from glscl_jax.input_pipeline.decoding.ogg import Holes
from glscl_jax.input_pipeline.decoding.packet_scan import Packets
from glscl_jax.input_pipeline.decoding.timeline import Timeline

# A coded frame that says "as before" is not put out by decoders; the one before stays on screen.
_HOLD_SECONDS = 0.25
# Formats with an index of key frames. In the others timestamps can differ after a seek.
_SEEKABLE = {"mov", "matroska", "avi"}
# Where every packet is a frame with its own timestamp, a frame that no other leans on can be left
# undecoded: a quarter of the time at x264's defaults.
_TIMED = {"mov", "matroska"}
_SKIPPABLE = {"h264", "hevc"}
_PROGRESSIVE = 1  # FFmpeg's AV_FIELD_PROGRESSIVE; 0 is unknown
# FFmpeg's own decoders of these leave out what is beside the picture: its alpha.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
# Where a stream begins with a picture that leans on others, it is whole after two refreshes.
_REFRESHES = 3

_type = av.video.frame.PictureType
_LEANING = {_type.P, _type.B, _type.S, _type.SP}


class UntrustedTimestamps(Exception):
    """Decoded frames are not where the packets say, as with H.264 in AVI."""


class _NoWholeKey(Exception):
    """A key frame is not a whole picture, as with periodic intra refresh."""


@dataclasses.dataclass(frozen=True)
class Film:
    """A file's stream of pictures, to be decoded as often as need be.

    Attributes:
      path: the file.
      index: the stream's.
      packets: what its packets say.
    """

    path: pathlib.Path
    index: int
    packets: Packets


@dataclasses.dataclass(frozen=True)
class Counted:
    """What a decoder puts out of a film.

    Attributes:
      times: when the good frames are shown, in the order that they come in, which is ascending.
      lost: when those would be that do not decode.
    """

    times: list[int]
    lost: list[int]


def by_timestamp(
    film: Film, timeline: Timeline, wanted: list[int], strict: bool = False
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yields (ticks, frame) of the good wanted frames.

    A key frame is checked: where one that was sought is not a whole picture, all is decoded from
    the beginning, and frames can come twice.

    Args:
      film: what to decode.
      timeline: its frames.
      wanted: ticks of some of them, ascending.
      strict: makes an error of what decoders would conceal.

    Raises:
      UntrustedTimestamps: frames cannot be found by their timestamps.
    """
    try:
        with containers.opened(film.path) as container:
            yield from frames_by_timestamp(Decoder(container, film.index, strict), timeline, wanted)
    except _NoWholeKey:
        with containers.opened(film.path) as container:
            decoder = Decoder(container, film.index, strict)
            decoder.seekable = False
            yield from frames_by_timestamp(decoder, timeline, wanted)


def frames_by_timestamp(
    decoder: "Decoder", timeline: Timeline, wanted: list[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """As `by_timestamp`; seeks past frames that nobody wants."""
    frames, position = decoder.good_frames(wanted), timeline.keys[0]
    previous = current = None
    for ticks in wanted:
        key = timeline.keys[bisect.bisect_right(timeline.keys, ticks) - 1]
        if key > position and decoder.seek(key):
            frames = decoder.good_frames(wanted)
            previous = current = None
        while current is None or current.pts < ticks:
            following = next(frames, None)
            if following is None:
                break
            if following.pts is None or (current is not None and following.pts <= current.pts):
                raise UntrustedTimestamps
            previous, current, position = current, following, following.pts
        on_screen = current if current is not None and current.pts <= ticks else previous
        if on_screen is None and not decoder.bad:
            raise UntrustedTimestamps
        if (
            ticks not in decoder.bad
            and on_screen is not None
            and _holds(timeline, on_screen, ticks)
        ):
            yield ticks, on_screen


def _holds(timeline: Timeline, frame: av.VideoFrame, ticks: int) -> bool:
    return (ticks - frame.pts) * timeline.tick <= _HOLD_SECONDS


def count(film: Film, strict: bool = False) -> Counted:
    """Decodes all of a film that was scanned, to see what comes out."""
    times = film.packets.times
    with containers.opened(film.path) as container:
        decoder = Decoder(container, film.index, strict)
        decoder.holes = film.packets.holes
        numbers = [number for number, _ in decoder.numbered_frames(len(times))]
    good = [times[number] for number in numbers if times[number] is not None]
    lost = [times[number] for number in decoder.bad - {None, len(times)}]
    lost += film.packets.holes.times
    # Some containers hold the frames' times in the order in which they are decoded.
    return Counted(sorted(good), sorted(time for time in lost if time is not None))


def by_count(
    film: Film, wanted: list[int], strict: bool = False
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yields (number, frame) of the wanted frames among `count`'s, from the beginning."""
    times, wanted, position = film.packets.times, set(wanted), -1
    with containers.opened(film.path) as container:
        decoder = Decoder(container, film.index, strict)
        decoder.holes = film.packets.holes
        for number, frame in decoder.numbered_frames(len(times)):
            position += times[number] is not None
            if times[number] is not None and position in wanted:
                yield position, frame
            if position >= max(wanted):
                return


class Decoder:
    """Decodes one stream of an open container.

    Attributes:
      bad: the names of the packets that do not decode, and of what leans on them.
      seekable: whether to seek.
      holes: what is missing between packets that are named by their numbers.
    """

    def __init__(self, container, index: int, strict: bool):
        self.container, self.stream = container, container.streams[index]
        self.context = _context(self.stream, strict)
        kinds = containers.kinds(container)
        self.seekable = bool(_SEEKABLE & kinds)
        # Of interlaced video a packet can be half a frame.
        progressive = self.context.field_order <= _PROGRESSIVE
        self._skipping = _TIMED & kinds and self.context.name in _SKIPPABLE and progressive
        self._sought = False
        self.bad: set[int] = set()
        self.holes = Holes()

    def seek(self, key: int) -> bool:
        """Goes to a key frame, if the file can be sought in."""
        if self.seekable:
            self.container.seek(key, stream=self.stream)
            if self.context.is_open:
                self.context.flush_buffers()
            self._sought = True
        return self.seekable

    def good_frames(self, wanted: list[int]) -> Iterator[av.VideoFrame]:
        """Good frames from here on, in the order they are shown, named by their timestamps.

        Frames that are not wanted are left undecoded where that is safe.
        """
        wanted = set(wanted)

        def packets():
            for packet in self.container.demux(self.stream):
                if not packet.size and packet.dts is not None:
                    continue  # as before, says an AVI
                if self._skipping:
                    # Whether to decode a packet is asked as it is sent: there is one thread.
                    needed = packet.pts is None or packet.pts in wanted
                    self.context.skip_frame = "DEFAULT" if needed else "NONREF"
                yield packet.pts, packet

        yield from (frame for _, frame in self._good(packets(), lambda frame, _: frame.pts))

    def numbered_frames(self, limit: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """(number of its packet, frame) of the good ones among so many packets from here on."""

        def packets():
            number = 0
            for packet in self.container.demux(self.stream):
                if packet.size and number == limit:
                    break
                if packet.size:
                    packet.opaque = number
                    yield number, packet
                    number += 1
            yield number, None

        self.context.copy_opaque = True

        def name(frame, newest):
            return newest if frame.opaque is None else frame.opaque

        yield from self._good(packets(), name)

    def _good(self, packets, name) -> Iterator[tuple[int | None, av.VideoFrame]]:
        """(name, frame) of the good frames; the others' names go to `bad`.

        Once a packet does not decode, what follows it up to the next key frame leans on it, and
        the packet before it may be damaged where a decoder conceals it.
        """
        broken, before, ready, whole, keys = False, None, [], False, 0
        for newest, packet in packets:
            if packet is not None:
                keys += packet.is_keyframe
                behind_a_hole = newest in self.holes.behind
                broken = (broken or behind_a_hole) and not packet.is_keyframe
                broken = broken or packet.is_corrupt or newest in self.holes.torn
                # What is missing between two packets is no fault of the first.
                before = None if behind_a_hole else before
                # Of what an edit list hides no frame comes out by which to check it.
                whole = whole or (packet.is_keyframe and packet.is_discard)
            try:
                decoded = self.context.decode(packet)
            except (av.FFmpegError, ValueError) as error:
                if isinstance(error, MemoryError):
                    raise
                decoded, broken = [], True
            if broken:
                self.bad.update({before, newest})
            named = [(name(frame, newest), frame) for frame in decoded]
            for one, frame in named:
                whole = whole or keys >= _REFRESHES or frame.pict_type not in _LEANING
                if not whole and self._sought:
                    raise _NoWholeKey
                if frame.is_corrupt or not whole:
                    self.bad.add(one)
            yield from (pair for pair in ready if pair[0] not in self.bad)
            before, ready = newest, named
        yield from (pair for pair in ready if pair[0] not in self.bad)


def _context(stream, strict: bool):
    """The stream's decoder, not yet open."""
    context = stream.codec_context
    told = {name.lower(): value for name, value in stream.metadata.items()}
    if context.name in _WITH_ALPHA and told.get("alpha_mode") == "1":
        other = av.CodecContext.create(_WITH_ALPHA[context.name], "r")
        other.extradata = context.extradata
        context = other
    # Clips are decoded side by side, one thread each.
    context.thread_type, context.thread_count = "NONE", 1
    context.options = {"max_pixels": str(containers.MAX_PIXELS)}
    if strict:
        context.options = context.options | {"err_detect": "explode"}
    return context
