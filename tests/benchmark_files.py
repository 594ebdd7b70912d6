"""Each benchmark in its real file layout, small: rendered clips under the names it would use.

What a row, a key or a folder is called is as the benchmarks ship it, with the fields that nobody
reads too; videos are in the containers and codecs that they come in.
"""

import csv
import dataclasses
import functools
import json
import pathlib
import pickle
from collections.abc import Callable

import av
import numpy as np

from glscl_jax.input_pipeline import rendered

TRAIN, VAL, TEST = 12, 4, 4
SECONDS = 3  # A rendered clip's length.
DATASETS = (
    "msrvtt_9k",
    "msrvtt_7k",
    "msrvtt_full",
    "msvd",
    "vatex",
    "lsmdc",
    "didemo",
    "activitynet",
)


@dataclasses.dataclass(frozen=True)
class Told:
    """A rendered scene with a benchmark's id for it."""

    name: str
    scene: rendered.Scene

    @property
    def captions(self) -> list[str]:
        """Two that differ."""
        first, second = (f"a {e.colour} {e.shape}" for e in self.scene.events)
        return [self.scene.caption, f"{first} and {second}"]


@functools.cache
def _scenes() -> dict[str, list[rendered.Scene]]:
    scenes = rendered.scenes(0, TRAIN, VAL)
    return {split: [s for s in scenes if s.split == split] for split in ("train", "val", "test")}


@functools.cache
def _frames(scene: rendered.Scene) -> np.ndarray:
    return rendered.render_clip(scene)


def _named(name: Callable[[int], str]) -> dict[str, list[Told]]:
    return {
        split: [Told(name(scene.number), scene) for scene in scenes]
        for split, scenes in _scenes().items()
    }


def encode(scene: rendered.Scene, path: pathlib.Path, codec: str = "libx264") -> None:
    """Writes a scene's video; the file's ending says the container."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=rendered.FRAME_RATE)
        stream.height = stream.width = rendered.SIZE
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 400_000
        stream.thread_count = 1
        for frame in _frames(scene):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write(dataset: str, folder: pathlib.Path) -> pathlib.Path:
    """Writes a benchmark into a folder; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _WRITERS[dataset](folder)
    return folder


def _rows(path: pathlib.Path, rows: list) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _json(path: pathlib.Path, value) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _list(path: pathlib.Path, told: list[Told]) -> None:
    path.write_text("".join(f"{one.name}\n" for one in told), encoding="utf-8")


def _msrvtt(folder: pathlib.Path) -> None:
    """9k holds all that can be trained on, 7k fewer; there is no validation list."""
    told = _named(lambda number: f"video{number}")
    train, test = told["train"] + told["val"], told["test"]
    for name, listed in (("9k", train), ("7k", train[:TRAIN])):
        _rows(folder / f"MSRVTT_train.{name}.csv", [["video_id"], *([one.name] for one in listed)])
    pairs = [
        [f"ret{i}", one.name.replace("video", "msr"), one.name, one.captions[0]]
        for i, one in enumerate(test)
    ]
    header = ["key", "vid_key", "video_id", "sentence"]
    _rows(folder / "MSRVTT_JSFUSION_test.csv", [header, *pairs])
    videos = [
        {"category": 9, "url": "", "video_id": one.name, "start time": 137.72, "end time": 149.44}
        | {"split": "train", "id": i}
        for i, one in enumerate(train + test)
    ]
    sentences = [
        {"caption": caption, "video_id": one.name, "sen_id": 2 * i + k}
        for i, one in enumerate(train + test)
        for k, caption in enumerate(one.captions)
    ]
    _json(
        folder / "MSRVTT_data.json",
        {"info": {"version": "1.0"}, "videos": videos, "sentences": sentences},
    )
    for one in train + test:
        encode(one.scene, folder / "videos" / "all" / f"{one.name}.mp4")


def official_msrvtt(folder: pathlib.Path, training: list[Told], test: list[Told]) -> None:
    """Microsoft's own two files; the last four to train on are official validation videos."""
    validation = {one.name for one in training[TRAIN:]}
    files = {"train_val_videodatainfo.json": training, "test_videodatainfo.json": test}
    for name, listed in files.items():
        split = "test" if listed is test else "train"
        videos = [
            {"category": 9, "url": "https://www.youtube.com/watch?v=9lZi22qLlEo", "id": i}
            | {"video_id": one.name, "start time": 137.72, "end time": 149.44}
            | {"split": "validate" if one.name in validation else split}
            for i, one in enumerate(listed)
        ]
        info = {"contributor": "Microsoft MSM group", "version": "1.0", "year": "2016"}
        # Not in the order of the videos, as in the real ones.
        sentences = [
            {"caption": one.captions[k], "video_id": one.name, "sen_id": 2 * i + k}
            for k in range(2)
            for i, one in enumerate(listed)
        ]
        _json(folder / name, {"info": info, "videos": videos, "sentences": sentences})


def _msrvtt_full(folder: pathlib.Path) -> None:
    told = _named(lambda number: f"video{number}")
    training, test = told["train"] + told["val"], told["test"]
    official_msrvtt(folder, training, test)
    for name, listed in (("TrainValVideo", training), ("TestVideo", test)):
        for one in listed:
            encode(one.scene, folder / name / f"{one.name}.mp4")


def _msvd(folder: pathlib.Path) -> None:
    told = _named(lambda number: f"-wsu{number}DBc_5_15")
    captions = {}
    for split, listed in told.items():
        _list(folder / f"{split}_list.txt", listed)
        # One of them twice, as the real ones have.
        captions |= {one.name: [*one.captions, one.captions[1]] for one in listed}
        for one in listed:
            encode(one.scene, folder / "YouTubeClips" / f"{one.name}.avi", "mpeg4")
    _json(folder / "captions_msvd.json", captions)


def as_pickle(folder: pathlib.Path, protocol: int = 2) -> None:
    """MSVD's other format in place of the first."""
    path = folder / "captions_msvd.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    words = {name: [caption.split() for caption in captions] for name, captions in told.items()}
    (folder / "raw-captions.pkl").write_bytes(pickle.dumps(words, protocol))
    path.unlink()


def as_original(folder: pathlib.Path) -> None:
    """MSVD's captions and lists as its authors published them, in place of the others."""
    captions = folder / "captions_msvd.json"
    told = json.loads(captions.read_text(encoding="utf-8"))
    numbered = []
    for split, first in (("train", 1), ("val", 1_201), ("test", 1_301)):
        path = folder / f"{split}_list.txt"
        ids = path.read_text(encoding="utf-8").split()
        numbered += [(name, number) for number, name in enumerate(ids, first)]
        path.unlink()
    # As the real one: Windows' line ends, and none at the end of the file.
    mapping = "\r\n".join(f"{name} vid{number}" for name, number in numbered)
    (folder / "youtube_mapping.txt").write_text(mapping, encoding="utf-8", newline="")
    header = ["#" * 60, "# The English descriptions", "#", "# ID description", "#", "#" * 60, ""]
    lines = [f"{name} {caption}" for name, listed in told.items() for caption in listed]
    text = "\n".join([*header, *lines, ""])
    (folder / "AllVideoDescriptions.txt").write_text(text, encoding="utf-8")
    captions.unlink()


def _vatex(folder: pathlib.Path) -> None:
    told = _named(lambda number: f"Ptf_2VRj-{number:02}_000122_000132")
    files = {
        "vatex_training_v1.0.json": told["train"],
        "vatex_validation_v1.0.json": told["val"] + told["test"],
    }
    for name, listed in files.items():
        entries = [
            {"videoID": one.name, "enCap": one.captions, "chCap": ["一个人在跑步。"] * 2}
            for one in listed
        ]
        _json(folder / name, entries)
    for split, listed in told.items():
        if split != "train":
            _list(folder / f"{split}_list.txt", listed)
        for one in listed:
            encode(one.scene, folder / f"{split}_video" / f"{one.name}.mp4")


def _lsmdc(folder: pathlib.Path) -> None:
    told = _named(lambda number: f"10{number:02}_Film_00.0{number % 10}.16.065-00.05.21.941")
    files = {
        "train": "LSMDC16_annos_training.csv",
        "val": "LSMDC16_annos_val.csv",
        "test": "LSMDC16_challenge_1000_publictect.csv",
    }
    times = "00.05.16.065\t00.05.21.941\t00.05.16.065\t00.05.21.941"
    for split, listed in told.items():
        lines = [f"{one.name}\t{times}\t{one.captions[0]}" for one in listed]
        if split == "train":
            # A second sentence of a clip, with a quotation mark; and clips that are left out.
            lines.append(f'{listed[0].name}\t{times}\tSOMEONE says "no')
            lines.append(f"0017_Pianist_00.23.28.872-00.23.34.843\t{times}\tSOMEONE plays.")
            lines.append(f"0017_Pianist_00.30.36.767-00.30.38.009\t{times}\tSOMEONE stops.")
            lines.append(f"3064_SPARKLE_2012_01.41.07.000-01.41.11.793\t{times}\tShe sings.")
        (folder / files[split]).write_text("\n".join(lines) + "\n", encoding="utf-8")
        for one in listed:
            film = one.name[: one.name.index("_00")]
            encode(one.scene, folder / "avi" / film / f"{one.name}.avi", "mpeg4")


def _didemo(folder: pathlib.Path) -> None:
    # Flickr's names: with an @, and with the ending that the uploaded file had.
    told = _named(lambda number: f"{number}@N02_13482799053_87ef417396.mov")
    for split, listed in told.items():
        _list(folder / f"{split}_list.txt", listed)
        entries = [
            {"annotation_id": 1000 * i + k, "description": caption, "video": one.name}
            | {"times": [[k, k], [k, k + 1]], "num_segments": 6, "dl_link": ""}
            for k in range(2)
            for i, one in enumerate(listed)
            for caption in [one.captions[k]]
        ]
        _json(folder / f"{split}_data.json", entries)
        for one in listed:
            # As downloads leave them: some as they were, some converted.
            name = one.name if one.scene.number % 2 else f"{one.name}.mp4"
            encode(one.scene, folder / "videos" / name)


def _activitynet(folder: pathlib.Path) -> None:
    told = _named(lambda number: f"v_-{number:02}0fO5uXTQw")
    splits = {"train": told["train"] + told["val"], "val": told["test"]}
    captions = {"train": "train.json", "val": "val_1.json"}
    for split, listed in splits.items():
        _json(folder / f"{split}_ids.json", [one.name for one in listed])
        entries = {
            one.name: {
                # The annotators' players rounded otherwise than the files' headers.
                "duration": SECONDS - 0.24,
                "timestamps": [[0.0, 1.4], [1.4, SECONDS - 0.24]],
                "sentences": [one.captions[0], f" {one.captions[1]}"],
            }
            for one in listed
        }
        _json(folder / captions[split], entries)
        for one in listed:
            ending = ".mkv" if one.scene.number % 2 else ".mp4"
            encode(one.scene, folder / "v1-3" / "train_val" / f"{one.name}{ending}")


_WRITERS = {
    "msrvtt_9k": _msrvtt,
    "msrvtt_7k": _msrvtt,
    "msrvtt_full": _msrvtt_full,
    "msvd": _msvd,
    "vatex": _vatex,
    "lsmdc": _lsmdc,
    "didemo": _didemo,
    "activitynet": _activitynet,
}
