"""A prepared data set, open for reading.

A data directory (`data_dir`) holds one data set, whose metadata.json holds the `Settings`.
"""

import dataclasses
import functools
import json
import os
import pathlib

import tensorflow_datasets as tfds

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import data_dir as folders
from glscl_jax.input_pipeline.identity import identity
from glscl_jax.input_pipeline.records import Records

PREPARE = "python -m glscl_jax.input_pipeline.prepare"
SETTINGS_FILE = "metadata.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a data set was made from; equal settings and videos make equal files.

    Attributes:
      dataset: the annotations' format, a key of `annotations.READERS`.
      frame_rate: frames stored per second of video.
      image_size: height and width of the stored frames, in pixels.
      jpeg_quality: 1 to 100, as Pillow counts it.
      stored_pixels: whether pixels that are not square are left as they are stored.
      pictures_rate: pictures a second of videos that are folders of pictures; None if none may be.
      resize, interpolation: how pictures become squares, as `video.read_frames` takes them.
      annotations: `annotations_digest` of the clips.
      partial: how it came out short, "8,392 of 8,395 train"; "" if nothing is missing. What came
        of it is no setting: it is not compared.
    """

    dataset: str
    frame_rate: float
    image_size: int
    jpeg_quality: int
    annotations: str
    partial: str = dataclasses.field(default="", compare=False)
    stored_pixels: bool = False
    pictures_rate: float | None = None
    resize: str = "crop"
    interpolation: str = "bicubic"

    def metadata(self) -> dict:
        """What metadata.json holds: of what came later only what is not the default."""
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        return {k: v for k, v in dataclasses.asdict(self).items() if v != usual[k]}


@dataclasses.dataclass(frozen=True)
class PreparedData:
    """A prepared data set, open for reading.

    Attributes:
      settings: what it was made from.
      splits: split name -> number of clips.
      builder: the TFDS builder that reads it.
      captions: of each clip, of splits that were asked for (`captions.captions`).
    """

    settings: Settings
    splits: dict[str, int]
    builder: tfds.core.DatasetBuilder
    captions: dict[str, list[list[str]]] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def features(self) -> tfds.features.FeaturesDict:
        """A record's layout; `encoded_split.deserialize_example(record)` works in a TF graph."""
        return self.builder.info.features

    @property
    def partial(self) -> str:
        """How it came out short; "" if nothing is missing."""
        return self.settings.partial

    @functools.cached_property
    def identity(self) -> dict:
        """What tells it from other data, wherever it lies; see `identity.identity`."""
        return identity(self.settings, self.builder.info)

    def records(self, split: str) -> Records:
        """The split's records; raises a `UserError` where there is no such split."""
        if split not in self.splits:
            raise UserError(f"no split {split!r} in the prepared data, only {_names(self.splits)}")
        return Records(self.builder.info.splits[split].file_instructions)


def holds_data(data_dir: pathlib.Path) -> bool:
    """Whether a directory holds a finished data set, be it damaged."""
    return bool(folders.found(pathlib.Path(data_dir)))


def open_data(data_dir: str | os.PathLike) -> PreparedData:
    """Opens the prepared data set of a directory; one in a bucket is fetched first.

    Raises:
      UserError: if there is none, it is half written, parts of it are gone, or the disk has no
        room for what is in the bucket.
    """
    with folders.at_hand(data_dir) as folder:
        return _open(folder)


def _open(data_dir: pathlib.Path) -> PreparedData:
    found = folders.found(data_dir)
    if not found and (data_dir / folders.STAGING).exists():
        raise UserError(f"{data_dir}: preparing was cut short or is under way: run {PREPARE}")
    if not found:
        raise UserError(
            f"{data_dir}: no prepared data set in it: make one with"
            f" {PREPARE} --source VIDEOS --data_dir {data_dir}"
        )
    if len(found) > 1:
        raise UserError(f"{data_dir}: {len(found)} data sets in it: prepare with --overwrite")
    settings = _read_settings(found[0])
    reader = _reader(found[0])
    for split in reader.info.splits.values():
        for path in split.filepaths:
            if not path.exists():
                raise UserError(f"{path} is gone: prepare again with --overwrite")
    splits = {name: split.num_examples for name, split in reader.info.splits.items()}
    return PreparedData(settings, splits, reader)


def _reader(dataset_dir: pathlib.Path) -> tfds.core.DatasetBuilder:
    """What TFDS reads a data set with; what it says of a damaged file is of many kinds."""
    name = "features.json"
    try:
        tfds.features.FeaturesDict.from_config(dataset_dir)
        name = "dataset_info.json"
        reader = tfds.builder_from_directory(dataset_dir)
        for split in reader.info.splits.values():
            _ = split.filepaths
        return reader
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{dataset_dir / name} is damaged ({reason}): copy it anew, or prepare again with"
            " --overwrite"
        ) from error


def _read_settings(dataset_dir: pathlib.Path) -> Settings:
    path = dataset_dir / SETTINGS_FILE
    try:
        return Settings(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f"{path}: no settings of this version: prepare with --overwrite") from error


def _names(splits: dict[str, int]) -> str:
    return ", ".join(splits)
