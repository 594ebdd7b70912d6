"""What the Makefile installs, by what make says it would do."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# A file of requirements, this package, uv, or a flag.
ALLOWED = re.compile(r"-r (\.venv/)?[\w.-]+\.(txt|lock)|--editable \.|\buv\b|(?<!\S)-{1,2}[\w-]+")


def dry_run(*arguments: str) -> str:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    # -B: whatever stands in .venv.
    command = ["make", "-n", "-B", f"PYTHON={shutil.which('python3')}", *arguments]
    # Not what the `make test` around this one was told.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return ended.stdout


@pytest.mark.parametrize(
    "arguments",
    [("test", f"TORCH={torch}") for torch in ("cpu", "pip", "no")]
    + [(target,) for target in ("demo", "aot", "search", "bench")],
    ids=" ".join,
)
def test_no_more_is_installed_than_files_name(arguments):
    said = dry_run(*arguments)
    asked = re.findall(r"pip install ([^|&;\n]*)", said)
    assert asked
    for line in asked:
        line = re.sub(r"2>\S+|--(python|retries|extra-index-url) \S+", "", line)
        rest = ALLOWED.sub("", line)
        assert not rest.strip(), line


@pytest.mark.parametrize(("torch", "files"), [("cpu", 1), ("pip", 1), ("no", 0)])
def test_the_torch_asked_for_is_installed(torch, files):
    said = dry_run("test", f"TORCH={torch}")
    assert said.count("-r requirements-torch.txt") == files
    assert ("whl/cpu" in said) == (torch == "cpu")
