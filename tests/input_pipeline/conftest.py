"""Fixtures that several files of this folder share."""

import pathlib
import shutil

import pytest

from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from tests import benchmark_files
from tests.bpe_oracle import OPENAI_MERGES


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


@pytest.fixture(scope="module")
def clip():
    """CLIP's tokenizer, of OpenAI's merges."""
    if not OPENAI_MERGES.exists():
        pytest.skip("OpenAI's merges file is not beside the repository")
    return CLIPTokenizer.from_merges(OPENAI_MERGES)


@pytest.fixture(scope="module")
def saved(clip, tmp_path_factory):
    """A directory to which that was saved."""
    directory = tmp_path_factory.mktemp("clip_tokenizer")
    clip.save(directory)
    return directory


@pytest.fixture(scope="module")
def hugging_face(saved):
    """The same as transformers has it."""
    import transformers

    return transformers.CLIPTokenizer.from_pretrained(saved, local_files_only=True)


@pytest.fixture(scope="module")
def demo():
    """The tokenizer of the demo's merges."""
    return CLIPTokenizer.from_merges(DEMO_MERGES)
