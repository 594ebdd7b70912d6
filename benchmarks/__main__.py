"""Lists the benchmarks: what each shows, and what it takes.

python -m benchmarks
"""

import ast
import dataclasses
import pathlib

HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A program that is run as `python -m MODULE`, by its own words.

    Attributes:
      module: its name.
      shows: the first line of its docstring.
      takes: the paragraph of it that begins with "Takes".
    """

    module: str
    shows: str
    takes: str


def benchmarks() -> list[Benchmark]:
    """All of them, by name: folders with a `__main__.py`, and files that are run by themselves."""
    folders = {path.parent.name: path for path in HERE.glob("*/__main__.py")}
    files = {path.stem: path for path in HERE.glob("[!_]*.py") if _is_run(path)}
    return [_read(name, path) for name, path in sorted((folders | files).items())]


def _is_run(path: pathlib.Path) -> bool:
    return 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")


def _read(name: str, path: pathlib.Path) -> Benchmark:
    # Read and not imported: that would take JAX's seconds, and whatever a benchmark compares with.
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    shows, *rest = text.split("\n\n")
    (takes,) = [part for part in rest if part.startswith("Takes ")]
    return Benchmark(f"benchmarks.{name}", shows, takes)


def main() -> None:
    for benchmark in benchmarks():
        print(f"python -m {benchmark.module}\n  {benchmark.shows}")
        print("".join(f"  {line}\n" for line in benchmark.takes.splitlines()))


if __name__ == "__main__":
    main()
