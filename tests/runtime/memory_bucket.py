"""A bucket in memory, and folders that are mirrored in it."""

import hashlib
import pathlib

from fsspec.implementations.memory import MemoryFileSystem

from glscl_jax.runtime import bucket_copy, mirror

STEPS = bucket_copy.Marked(r"checkpoints/\d+/", "whole")
SETS = bucket_copy.Marked(r"clips/[^/]+/", "info.json")


class Service:
    """A bucket in memory, which tells tags, counts what it is asked, and may fail."""

    def __init__(self):
        self.files, self.asked, self.fails = MemoryFileSystem(), [], None

    def find(self, root: str, detail: bool) -> dict:
        found = self.files.find(root, detail=detail)
        return {
            name: told | {"ETag": hashlib.md5(self.files.cat_file(name)).hexdigest()}
            for name, told in found.items()
        }

    def __getattr__(self, name: str):
        def asked(*arguments, **options):
            self.asked.append((name, *arguments))
            if self.fails:
                self.fails(len(self.asked))
            return getattr(self.files, name)(*arguments, **options)

        return asked

    def count(self, name: str) -> int:
        return sum(called == name for called, *_ in self.asked)


def write(folder: pathlib.Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def read(folder: pathlib.Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def step(number: int) -> dict[str, str]:
    return {f"checkpoints/{number}/{name}": f"{name} {number}" for name in ("a", "b/c", "whole")}


def mirrored(bucket, folder, **options) -> mirror.Mirror:
    found = mirror.Mirror(bucket_copy.Copy(bucket, folder, [STEPS, SETS]))
    found.begin(watch=False, **options)
    return found
