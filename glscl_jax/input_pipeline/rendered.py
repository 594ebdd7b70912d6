"""The demo's clips: moving coloured shapes, two events a clip, as real MP4 files with captions.

    python -m glscl_jax.input_pipeline.rendered --out demo/videos

writes a folder of videos with a `captions.csv`, exactly what a user's own videos look like. It
is a retrieval problem that takes more than words to solve: a clip shows two *events* (a colour, a
shape, a motion) one after the other, and every validation and test clip has three companions
that the very same bag of words describes, told apart only by which shape makes which motion and
by what comes first. A model blind to binding and order finds one clip in four.
"""

import concurrent.futures
import csv
import dataclasses
import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import pathlib
from collections.abc import Sequence

import av
import numpy as np
from absl import flags
from PIL import Image

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.files import unfinished, write_text
from glscl_jax.runtime import program, progress

# Six colours, four shapes and four motions make 15 * 6 * 6 = 540 bags of words: 125 each for
# validation and test (four clips a bag) and 290 to learn from. Colours are the attribute that
# costs a model least to learn, so the numbers grow there; 4, 4 and 4 would make only 216 bags.
COLOURS = {
    "red": (225, 40, 40),
    "green": (40, 190, 60),
    "blue": (60, 90, 245),
    "yellow": (235, 215, 40),
    "purple": (205, 60, 220),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle", "cross")
MOTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}

VERBS = ("moves", "goes", "travels")
# Read in order, first event first. No split has wordings of its own.
TEMPLATES = (
    "{first}, then {second}",
    "{first} before {second}",
    "{first} and after that {second}",
    "{first}, and later {second}",
    "first {first} and then {second}",
    "at first {first}, afterwards {second}",
)

SIZE = 64  # pixels, height and width
FRAME_RATE = 12
EVENT_FRAMES = 18  # 1.5 s
VARIANTS_HELD_OUT = 4
STAMP = "rendered.txt"
# Counts changes of the rendering: clips of another version are not taken for finished.
VERSION = 1
# Streams of random numbers apart from each other.
_WORDING, _DRAWING = 1, 2


@dataclasses.dataclass(frozen=True)
class Event:
    """One shape of one colour making one motion."""

    colour: str
    shape: str
    motion: str


@dataclasses.dataclass(frozen=True)
class Scene:
    """A clip before it is drawn.

    Attributes:
      number: unique, from 0 on; with the seed it fixes every jitter of the rendering.
      events: what happens, in order.
      caption: one sentence that says so.
      split: train, val or test.
      seed: the seed of the whole set.
    """

    number: int
    events: tuple[Event, Event]
    caption: str
    split: str
    seed: int

    @property
    def bag(self) -> frozenset[str]:
        """The six content words, without their order."""
        return frozenset(word for event in self.events for word in dataclasses.astuple(event))

    @property
    def video(self) -> str:
        """File name, relative to the folder."""
        return f"videos/{self.number:05}.mp4"


def scenes(seed: int = 0, num_train: int = 4000, num_held_out: int = 500) -> list[Scene]:
    """All scenes of the demo; the same arguments give the same list.

    Whole bags of words go to one split, so no two events that meet in one split meet in another.

    Args:
      seed: of the assignment, the wording and the rendering.
      num_train: training clips; past 8 times the training bags, scenes repeat with new jitter.
      num_held_out: clips of val and of test each, a multiple of 4.
    """
    bags = list(
        itertools.product(
            itertools.combinations(COLOURS, 2),
            itertools.combinations(SHAPES, 2),
            itertools.combinations(MOTIONS, 2),
        )
    )
    num_bags = num_held_out // VARIANTS_HELD_OUT
    if num_held_out % VARIANTS_HELD_OUT or 2 * num_bags >= len(bags):
        most = VARIANTS_HELD_OUT * ((len(bags) - 1) // 2)
        raise UserError(f"--held_out {num_held_out}: give a multiple of 4, at most {most}")
    rng = np.random.default_rng([seed, VERSION])
    rng.shuffle(bags)
    # Held-out clips come first, so that they stay the same however many there are to train on.
    told = []
    for split in ("val", "test"):
        held_out, bags = bags[:num_bags], bags[num_bags:]
        for bag in held_out:
            told += [(split, events) for events in _variants(bag, flip_shapes=rng.random() < 0.5)]
    every = [events for bag in bags for flip in (False, True) for events in _variants(bag, flip)]
    rng.shuffle(every)
    told += [("train", tuple(every[i % len(every)])) for i in range(num_train)]
    return [
        Scene(number, events, _caption(events, seed, number), split, seed)
        for number, (split, events) in enumerate(told)
    ]


def _variants(bag, flip_shapes: bool) -> list[tuple[Event, Event]]:
    """Both orders of both bindings of motions, for one binding of shapes to colours."""
    (colour1, colour2), shapes, (motion1, motion2) = bag
    shape1, shape2 = reversed(shapes) if flip_shapes else shapes
    bound = [
        (Event(colour1, shape1, motion1), Event(colour2, shape2, motion2)),
        (Event(colour1, shape1, motion2), Event(colour2, shape2, motion1)),
    ]
    return [events for one, two in bound for events in ((one, two), (two, one))]


def _caption(events, seed: int, number: int) -> str:
    rng = np.random.default_rng([seed, VERSION, number, _WORDING])
    first, second = (
        f"a {event.colour} {event.shape} {VERBS[rng.integers(len(VERBS))]} {event.motion}"
        for event in events
    )
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(first=first, second=second)


def render_clip(scene: Scene) -> np.ndarray:
    """Draws a scene: uint8 [T, 64, 64, 3] RGB, T = 36 frames at 12 a second."""
    rng = np.random.default_rng([scene.seed, VERSION, scene.number, _DRAWING])
    background = _background(rng)
    return np.concatenate([_draw(event, background, rng) for event in scene.events])


def _background(rng) -> np.ndarray:
    """A dark, smoothly varied picture, float32 [64, 64, 3]."""
    coarse = Image.fromarray(rng.integers(0, 45, (4, 4, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float32)


def _draw(event: Event, background: np.ndarray, rng) -> np.ndarray:
    """One event's frames, uint8 [18, 64, 64, 3]."""
    direction = np.array(MOTIONS[event.motion])
    radius = rng.uniform(12, 14)
    travel = rng.uniform(30, 38)
    middle = SIZE / 2 + np.where(direction == 0, rng.uniform(-9, 9), rng.uniform(-3, 3))
    along = np.linspace(-0.5, 0.5, EVENT_FRAMES) * travel
    centres = middle + along[:, None] * direction
    pixel = np.arange(SIZE) + 0.5
    x = (pixel - centres[:, :1])[:, None, :]
    y = (pixel - centres[:, 1:])[:, :, None]
    # A signed distance in pixels gives antialiased edges: half covered where it is 0.
    cover = np.clip(0.5 - _distance(event.shape, x, y, radius), 0, 1)[..., None]
    colour = np.array(COLOURS[event.colour]) * rng.uniform(0.8, 1) + rng.uniform(-12, 12, 3)
    frames = background + cover * (np.clip(colour, 0, 255) - background)
    return np.rint(frames).astype(np.uint8)


def _distance(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Distance to the outline, negative inside, in pixels (exact at the edges, not beyond)."""
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "square":
        return np.maximum(abs(x), abs(y)) - 0.9 * radius
    if shape == "triangle":
        sides = (np.sqrt(3) * abs(x) - y) / 2
        return np.maximum(sides - 0.62 * radius, y - 0.62 * radius)
    arm = 0.36 * radius
    upright = np.maximum(abs(x) - arm, abs(y) - 1.05 * radius)
    level = np.maximum(abs(x) - 1.05 * radius, abs(y) - arm)
    return np.minimum(upright, level)


def write_video(frames: np.ndarray, path: pathlib.Path) -> None:
    """Encodes uint8 [T, H, W, 3] RGB as H.264 in MP4; the file appears whole or not at all."""
    with unfinished(path) as part, av.open(part, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        # With x264's macroblock tree one clip in five came out with other bytes than before.
        stream.options = {"preset": "veryfast", "crf": "16", "mbtree": "0"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_folder(out: pathlib.Path, told: Sequence[Scene]) -> int:
    """Renders the scenes that have no file yet, then writes captions.csv; returns how many."""
    (out / "videos").mkdir(parents=True, exist_ok=True)
    missing = [scene for scene in told if not (out / scene.video).exists()]
    # Starting a process takes as long as some fifty clips.
    workers = min(os.cpu_count() or 1, 1 + len(missing) // 50)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        done = pool.map(functools.partial(_render_file, out), missing, chunksize=16)
        for _ in progress.track(done, "rendering", len(missing)):
            pass
    # Last and at once: a folder with captions.csv is a finished one.
    table = out / "captions.csv"
    with unfinished(table) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "caption", "split"])
        writer.writerows([scene.video, scene.caption, scene.split] for scene in told)
    return len(missing)


def _render_file(out: pathlib.Path, scene: Scene) -> None:
    write_video(render_clip(scene), out / scene.video)


def claim_folder(out: pathlib.Path, told: Sequence[Scene]) -> bool:
    """Makes the folder, or finds it begun for these same scenes; returns whether it is finished.

    Raises:
      UserError: if it holds anything else, which stays untouched.
    """
    words = json.dumps([dataclasses.astuple(scene) for scene in told])
    stamp = f"version {VERSION}, {hashlib.sha256(words.encode()).hexdigest()}\n"
    stamp_file = out / STAMP
    if stamp_file.is_file():
        if stamp_file.read_text(encoding="utf-8") != stamp:
            raise UserError(f"--out {out} holds clips of other settings: delete it or name another")
        return (out / "captions.csv").exists()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} is no empty folder: name one that is, or a new one")
    out.mkdir(parents=True, exist_ok=True)
    write_text(stamp_file, stamp)
    return False


def _define_flags() -> None:
    paths.define("out", None, "Folder to write; made if it is not there.", required=True)
    flags.DEFINE_integer("clips", 4000, "Clips to train on.", lower_bound=1)
    flags.DEFINE_integer("held_out", 500, "Clips of val, and of test; 4 to a bag.", lower_bound=4)
    flags.DEFINE_integer("seed", 0, "Another seed draws other clips.", lower_bound=0)


def main(_) -> None:
    """Runs the program."""
    values = flags.FLAGS
    out = pathlib.Path(values.out)
    told = scenes(values.seed, values.clips, values.held_out)
    if claim_folder(out, told):
        print(f"{out} holds these {len(told)} clips already")
        return
    new = write_folder(out, told)
    print(f"rendered {new} clips; {out} now holds {len(told)}")


if __name__ == "__main__":
    _define_flags()
    program.run(main)
