"""The library's modules and what each imports, read from the source."""

import ast
import pathlib

from tests.server import REPO


def modules() -> dict[str, pathlib.Path]:
    """Every module of the library, of conversion and of the recipes, by name."""
    files = [file for part in ("glscl_jax", "convert", "configs") for file in _files(part)]
    names = (file.relative_to(REPO).with_suffix("").parts for file in files)
    return {
        ".".join(name).removesuffix(".__init__"): file
        for name, file in zip(names, files, strict=True)
    }


def _files(part: str):
    return sorted((REPO / part).rglob("*.py"))


def imports(file: pathlib.Path) -> set[str]:
    """What a file imports, wherever it does; of `from A import b` both A and A.b."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: imports are written whole"
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def imported(file: pathlib.Path, known) -> set[str]:
    """The modules that a file imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: imports are written whole"
            whole = {f"{node.module}.{name.name}" for name in node.names}
            found |= {name if name in known else node.module for name in whole}
    return found
