"""Fixtures that several files of this folder share."""

import pathlib
import shutil

import pytest

from tests import benchmark_files


@pytest.fixture(scope="session")
def benchmarks(tmp_path_factory) -> pathlib.Path:
    """A folder with every benchmark in its own, small; nobody writes into it."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for dataset in benchmark_files.DATASETS:
        benchmark_files.write(dataset, folder / dataset)
    return folder


@pytest.fixture
def copied(benchmarks, tmp_path):
    """A benchmark's annotation files, to be spoilt; its videos are not there."""

    def copy(dataset: str) -> pathlib.Path:
        folder = tmp_path / dataset
        folder.mkdir()
        for path in (benchmarks / dataset).iterdir():
            if path.is_file():
                shutil.copy(path, folder)
        return folder

    return copy
