"""A decoded frame -> RGB as a screen shows it: upright, without alpha, in a standard range.

FFmpeg's own filters do what takes more than a table: tone mapping and deinterlacing.
"""

import fractions
import threading

import av
import av.filter
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import ColorTrc, VideoReformatter

from glscl_jax.input_pipeline.decoding import geometry

# PQ (SMPTE ST 2084) and HLG (ARIB STD-B67): codes for more light than other screens have. What is
# as bright as paper, 203 cd/m2, becomes white; lamps and skies beyond it do, too (ITU-R BT.2408).
_HIGH_RANGE = {int(ColorTrc.SMPTE2084), int(ColorTrc.ARIB_STD_B67)}
_TONE_MAP = "out_transfer=bt709:out_primaries=bt709:intent=relative_colorimetric"
# Each field's missing lines from its own, along edges: a frame alone is enough for it.
_DEINTERLACE = "mode=frame:parity=auto:deint=all"
# Where a fourth byte of each pixel is often only filling.
_FILLED = {"rawvideo"}
# A thread's last graph that tone-maps: its tables take seconds to make.
_tone_map = threading.local()


class Screen:
    """Shows the frames of one video, one after the other, in one thread."""

    def __init__(self, codec: str, pixel: fractions.Fraction | int = 1):
        """Takes the name of the video's codec, and width by height of a pixel as stored."""
        self._pixel = pixel
        self._opaque_if_empty = codec in _FILLED
        self._reformatter = VideoReformatter()  # keeps its tables from frame to frame

    def show(self, frame: av.VideoFrame, size: int, **how: str) -> np.ndarray:
        """The frame as `geometry.fit` brings it to size, uint8 [size,size,3].

        Args:
          frame: as it was decoded.
          size: in pixels.
          how: `resize` and `interpolation`, see there.

        Raises:
          av.FFmpegError: FFmpeg cannot convert such a frame.
        """
        oriented = _oriented(frame)
        lying = oriented[0] == 0
        picture = geometry.upright(self._colours(frame), oriented)
        return geometry.fit(picture, size, 1 / self._pixel if lying else self._pixel, **how)

    def _colours(self, frame: av.VideoFrame) -> np.ndarray:
        """uint8 [H,W,3], RGB, not yet turned; what shows through is black."""
        clear = frame.format.has_palette or any(part.is_alpha for part in frame.format.components)
        wanted = "rgba" if clear else "rgb24"
        picture = self._filtered(frame, wanted)
        if picture is None:
            picture = self._reformatter.reformat(frame, format=wanted)
        pixels = picture.to_ndarray()
        return self._on_black(pixels) if clear else pixels

    def _filtered(self, frame: av.VideoFrame, wanted: str) -> av.VideoFrame | None:
        """The frame by what filters it needs, if any."""
        high = int(frame.color_trc) in _HIGH_RANGE
        if frame.interlaced_frame:
            chain = [("estdif", _DEINTERLACE), *([("scale", _TONE_MAP)] if high else [])]
            graph = _graph(frame, [*chain, ("format", wanted)])
            graph.push(frame)
            graph.push(None)  # it would wait for a frame after this
            return graph.pull()
        if not high:
            return None
        kind = frame.format.name, frame.width, frame.height, wanted
        if kind != getattr(_tone_map, "kind", None):
            _tone_map.graph = _graph(frame, [("scale", _TONE_MAP), ("format", wanted)])
        _tone_map.kind = None  # what an error leaves in a graph is no frame for the next
        _tone_map.graph.push(frame)
        picture = _tone_map.graph.pull()
        _tone_map.kind = kind
        return picture

    def _on_black(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [H,W,4] -> [H,W,3]: hidden colours stay hidden."""
        alpha = pixels[..., 3:].astype(np.uint16)
        if alpha.min() == 255 or (self._opaque_if_empty and not alpha.any()):
            return pixels[..., :3]
        return ((pixels[..., :3] * alpha + 127) // 255).astype(np.uint8)


def _graph(frame: av.VideoFrame, chain: list[tuple[str, str]]) -> av.filter.Graph:
    graph = av.filter.Graph()
    nodes = [
        graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=frame.time_base or fractions.Fraction(1, 1000),
        ),
        *(graph.add(name, arguments) for name, arguments in chain),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    return graph


def _oriented(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Where the axes of the stored picture point to; the identity if nothing says."""
    told = frame.side_data.get(Type.DISPLAYMATRIX)
    return (
        geometry.IDENTITY if told is None else geometry.orientation(np.frombuffer(told, np.int32))
    )
