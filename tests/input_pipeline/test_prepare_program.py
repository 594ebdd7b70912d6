"""`prepare` as a program: what it prints, beside a progress bar too, and wrong flags."""

import contextlib
import os
import pty
import subprocess
import sys
from concurrent import futures

import pytest

from tests.input_pipeline.preparing import files_of
from tests.server import REPO

PROGRAM = "glscl_jax.input_pipeline.prepare"


def test_the_program(faulty, tmp_path, forks):
    source, data_dir = faulty[0], tmp_path / "data"

    def call(*more):
        paths = f"--source={source}", f"--data_dir={data_dir}"
        done = forks(PROGRAM, *paths, "--max_failed_share=0.3", *more, check=False)
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    summary = (
        f"8 of 11 clips (train 8); 3 failed, listed in {data_dir / 'failed.csv'};"
        " partial: 8 of 11 train"
    )
    status, out, err = call("--image_size=32")
    assert (status, out.splitlines()[-1]) == (0, f"prepared {summary}")
    # Before that, what the doctor found.
    assert "gone.mp4" in out
    assert [line.split(", ")[0] for line in err.splitlines()] == [
        "checking: 11 of 11",
        "preparing: 11 of 11",
        "reading captions: 8 of 8",
    ]
    before = files_of(data_dir)
    assert call("--image_size=32") == (0, f"{data_dir} is prepared already: {summary}", "")
    status, out, err = call("--image_size=48")
    assert (status, out) == (2, "")
    assert err == (
        f"error: {data_dir} was made with --image_size 32, not 48:"
        " give another --data_dir, or --overwrite to replace it"
    )
    assert files_of(data_dir) == before


@pytest.mark.slow
def test_the_closing_line_comes_through_beside_a_progress_bar(videos, tmp_path):
    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", PROGRAM, f"--source={videos}", f"--data_dir={tmp_path / 'data'}"],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    )
    os.close(terminal)
    # A full terminal would block the program, so it is read while it runs.
    with futures.ThreadPoolExecutor(1) as pool:
        shown = pool.submit(read_terminal, ours)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert out == "prepared 9 of 9 clips (train 5, val 2, test 2)\n"
    assert "9/9" in shown.result()


def read_terminal(descriptor):
    data = b""
    # Linux reports the end of a terminal as an error.
    with contextlib.suppress(OSError):
        while chunk := os.read(descriptor, 4096):
            data += chunk
    os.close(descriptor)
    return data.decode()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--data_dir=d", "--source=nowhere"], "nowhere: no such folder"),
        (["--data_dir=d", "--source=README.md"], "README.md: a file, and no folder"),
        (["--check", "--source=tests", "--for=nowhere"], "nowhere is no checkpoint directory"),
        (["--data_dir=d", "--source=.", "--videos=nowhere"], "nowhere: no such folder"),
        (["--source=."], "--data_dir is missing"),
        (["--source=.", "--check"], "no captions.csv or captions.jsonl in it"),
        (
            ["--source=.", "--check", "--dataset=msvd"],
            "no train_list.txt or youtube_mapping.txt in it",
        ),
        (["--source=.", "--check", "--dataset=tvr"], "tvr"),
    ],
)
def test_wrong_arguments(refusal, flags, told):
    assert told in refusal(PROGRAM, *flags)
