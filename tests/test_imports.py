"""Who imports whom: higher floors from lower ones alone; TensorFlow within the pipeline alone."""

import collections
import pathlib

import pytest

from tests.server import REPO
from tests.source_tree import imported, modules

# From the ground up: what stands on a floor imports from floors below it and from nothing beside
# it. A package's name stands for the files that lie in it itself; its subpackages have their own.
FLOORS = (
    ("errors", "figures", "ranges", "spreadsheet", "target", "trees", "version"),
    ("files", "paths", "models.encoders"),
    ("models.heads",),
    ("models",),
    ("runtime",),
    ("profiling", "retrieval", "input_pipeline.annotations", "convert.naming"),
    ("input_pipeline.decoding",),
    ("input_pipeline",),
    ("input_pipeline.preparing", "checkpoints", "convert.readers"),
    ("training", "retriever", "convert.verification"),
    ("evaluation", "glscl_jax", "search"),
    ("compare", "convert", "input_pipeline.prepare", "input_pipeline.rendered"),
    ("train", "evaluate"),
)
# Programs lie where users know them, and stand above their neighbours.
ALONE = ("input_pipeline.prepare", "input_pipeline.rendered")
# The one recipe that says what there is to choose; it imports nothing of the library.
FREE = ("configs",)


def room(module: str, file: pathlib.Path) -> str:
    """Where a module stands: a name of `FLOORS`."""
    inner = module.removeprefix("glscl_jax.")
    if inner in ALONE or file.name == "__init__.py" or "." not in inner:
        return inner
    return inner.rpartition(".")[0]


@pytest.fixture(scope="module")
def edges() -> dict[tuple[str, str], list[str]]:
    """(room, room that it imports from) -> the imports."""
    known, found = modules(), collections.defaultdict(list)
    for module, file in known.items():
        for other in imported(file, known) & known.keys():
            one, two = room(module, file), room(other, known[other])
            if one != two:
                found[one, two].append(f"{module} imports {other}")
    return found


def test_imports_run_downwards(edges):
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    wrong = []
    for (one, two), imports in edges.items():
        if one in FREE:
            wrong += imports
        elif two not in FREE and floor[two] >= floor[one]:
            # The library's own start, whose first line settles the order of what it leans on.
            wrong += [line for line in imports if not line.endswith("imports glscl_jax")]
    assert not wrong, "\n".join(wrong)


def test_every_room_is_on_a_floor():
    rooms = {room(module, file) for module, file in modules().items()}
    assert rooms - set(FREE) == {name for names in FLOORS for name in names}


def test_tensorflow_is_the_pipeline_s_alone():
    for module, file in modules().items():
        found = {name.partition(".")[0] for name in imported(file, ())}
        if found & {"tensorflow", "tensorflow_datasets"}:
            assert module.startswith("glscl_jax.input_pipeline."), module


def test_no_test_imports_from_another():
    """What two of them need is in a file without tests, like tests/builders.py."""
    for file in (REPO / "tests").rglob("test_*.py"):
        names = {part for name in imported(file, ()) for part in name.split(".")}
        assert not [name for name in names if name.startswith("test_")], file
