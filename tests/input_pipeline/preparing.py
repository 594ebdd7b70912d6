"""Runs of prepare on small folders, and what they leave."""

import csv
import dataclasses

from glscl_jax.input_pipeline import annotations
from glscl_jax.input_pipeline.prepared_data import Settings
from glscl_jax.input_pipeline.preparing import builder, data_set


def settings_of(clips, **changes):
    made = Settings("folder", 2.0, 48, 95, builder.annotations_digest(clips))
    return dataclasses.replace(made, **changes)


def run(source, data_dir, *, clips=None, allow_partial=False, max_failed_share=0.0, **changes):
    clips = annotations.read_folder(source) if clips is None else clips
    workers = changes.pop("workers", 2)
    return data_set.prepare(
        clips,
        source,
        data_dir,
        settings_of(clips, **changes),
        workers=workers,
        max_failed_share=max_failed_share,
        allow_partial=allow_partial,
    )


def files_of(data_dir):
    return {
        path.relative_to(data_dir): path.read_bytes()
        for path in data_dir.rglob("*")
        if path.is_file()
    }


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def failed_rows(data_dir):
    with (data_dir / "failed.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
