"""What docs/architecture.md and the README's map name is there, and as large as they say."""

import pathlib
import re
from collections.abc import Iterator

import pytest

REPO = pathlib.Path(__file__).parents[1]
PACKAGES = ("glscl_jax", "convert", "configs", "benchmarks")
FOLDERS = (*PACKAGES, "docs", "examples", "tests", "yardsticks")
FILES = [
    path.relative_to(REPO).as_posix()
    for folder in FOLDERS
    for path in (REPO / folder).rglob("*.*")
    if path.is_file() and "__pycache__" not in path.parts
]
PLACES = {*FILES, *(f"{folder}/" for path in FILES for folder in pathlib.PurePath(path).parents)}


def named(text: str) -> list[str]:
    """What stands in backquotes, without calls' arguments; files of a directory on disk apart."""
    disk = text.index("## What lies on disk")
    text = text[:disk] + text[text.index("\n## ", disk) :]
    return [name.partition("(")[0] for name in re.findall(r"`([^`\n]+)`", text)]


def is_there(path: str) -> bool:
    """Whether files or folders end in it."""
    return any(place == path or place.endswith(f"/{path}") for place in PLACES)


def is_defined(name: str) -> bool:
    """Whether a dotted name is a module's, or of something that a module's text defines."""
    *module, last = name.split(".")
    for folder in ("", "glscl_jax/"):
        if f"{folder}{name.replace('.', '/')}.py" in PLACES:
            return True
        for path in (f"{folder}{'/'.join(module)}.py", f"{folder}{'/'.join(module)}/__init__.py"):
            if path in PLACES:
                text = (REPO / path).read_text(encoding="utf-8")
                return bool(re.search(rf"(def|class|import) {last}\b|^{last} =", text, re.M))
    return False


def architecture() -> str:
    return (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_files_that_the_architecture_names_are_there():
    paths = [x for x in named(architecture()) if re.fullmatch(r"[\w./-]*(\.py|/)", x)]
    assert len(paths) > 40
    assert [path for path in paths if not is_there(path)] == []
    assert not is_there("decoder.py")


def test_the_functions_that_the_architecture_names_are_there():
    homes = {*PACKAGES, *(x.name for x in (REPO / "glscl_jax").iterdir() if x.is_dir())}
    dotted = [x for x in named(architecture()) if re.fullmatch(r"[a-z_]+(\.\w+)+", x)]
    dotted = [name for name in dotted if name.split(".")[0] in homes and not name.endswith(".py")]
    assert len(dotted) > 10
    assert [name for name in dotted if not is_defined(name)] == []
    assert not is_defined("runtime.launch.joined")


def test_the_links_of_the_architecture_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", architecture())
    assert links
    assert [link for link in links if not (REPO / "docs" / link).is_file()] == []


def mapped(text: str) -> Iterator[str]:
    """The paths of the map: an indented name lies in the last folder that is indented less."""
    block = text.split("## Where things are\n```\n")[1].split("```")[0]
    folders: list[tuple[int, str]] = []
    for line in block.splitlines():
        indent = len(line) - len(line.lstrip())
        folders = [(deep, folder) for deep, folder in folders if deep < indent]
        inside = folders[-1][1] if folders else ""
        names = [f"{inside}{name}" for name in re.split(r"\s{2,}", line.strip())[0].split()]
        yield from names
        folders.append((indent, names[-1]))


def test_the_map_of_the_readme_is_true():
    paths = list(mapped((REPO / "README.md").read_text(encoding="utf-8")))
    assert "glscl_jax/models/heads/" in paths
    assert [path for path in paths if path not in PLACES] == []


@pytest.mark.parametrize("name", ["glscl_jax.load", "glscl_jax.training.steps", "convert.clip"])
def test_what_is_defined_is_found(name):
    assert is_defined(name)


def rows_of(table: str) -> list[list[str]]:
    """The cells of a table of the architecture, which begins with `table`."""
    text = architecture().split(table)[1].split("\n\n")[0]
    cells = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
    return [[cell.strip("`") for cell in row] for row in cells]


def test_the_sizes_are_nearly_those_of_today():
    rows = rows_of("| package | files | lines |")
    assert {name for name, *_ in rows} >= {"convert/", "tests/", "glscl_jax/models/"}
    for folder, files, lines in rows:
        found = list((REPO / folder).rglob("*.py"))
        count = sum(len(path.read_bytes().splitlines()) for path in found)
        old = f"{folder} has {len(found)} files and {count:,} lines: run the table's command again"
        assert int(files) == pytest.approx(len(found), rel=0.2, abs=3), old
        assert int(lines.replace(",", "")) == pytest.approx(count, rel=0.2, abs=200), old


def test_what_has_a_home_is_named_in_no_more_files():
    texts = [
        path.read_text(encoding="utf-8")
        for folder in (*PACKAGES, "docs")
        for path in (REPO / folder).rglob("*.py")
    ]
    for name, _, now, _ in rows_of("| name | before | now | its home |"):
        assert sum(name in text for text in texts) <= int(now), name
