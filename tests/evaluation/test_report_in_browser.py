"""What a browser makes of the report."""

import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from glscl_jax.evaluation import plots
from tests.evaluation.reports import Page, decoded

BROWSER = shutil.which("chromium")


def browse(path, folder, *args) -> subprocess.CompletedProcess:
    """Opens the file in a browser without a window, a network or a profile."""
    if BROWSER is None:
        pytest.skip("chromium is not on the PATH: how a browser shows the report is not tested")
    quiet = "disable-gpu disable-quic no-first-run disable-background-networking"
    quiet += (
        " disable-component-update disable-sync disable-dev-shm-usage no-sandbox hide-scrollbars"
    )
    return subprocess.run(
        [
            BROWSER,
            "--headless",
            *(f"--{name}" for name in quiet.split()),
            "--enable-logging=stderr",
            f"--user-data-dir={folder / 'profile'}",
            *args,
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def screenshot(path, folder, width: int, *args) -> np.ndarray:
    """uint8 [7000, width, 3]"""
    target = folder / "shot.png"
    done = browse(path, folder, f"--window-size={width},7000", f"--screenshot={target}", *args)
    assert "CONSOLE" not in done.stderr, done.stderr
    return np.asarray(Image.open(target).convert("RGB"))


def colours(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different colours int [N,3], and how many pixels have them [N]."""
    packed = pixels.astype(np.int64) @ [1 << 16, 1 << 8, 1]
    found, counts = np.unique(packed, return_counts=True)
    return np.stack([found >> 16, found >> 8 & 255, found & 255], axis=-1), counts


def count(found: tuple[np.ndarray, np.ndarray], rgb: str | tuple[int, ...], tolerance=3) -> int:
    """How many pixels have that colour, nearly."""
    if isinstance(rgb, str):
        rgb = tuple(int(rgb[i : i + 2], 16) for i in (1, 3, 5))
    values, counts = found
    return int(counts[(np.abs(values - rgb) <= tolerance).all(axis=-1)].sum())


def test_a_browser_shows_text_and_runs_nothing(path, page, tmp_path):
    done = browse(path, tmp_path, "--dump-dom")
    # Chromium reports here what a policy forbids and what cannot be loaded.
    assert "CONSOLE" not in done.stderr, done.stderr
    dom = Page(done.stdout)
    assert len(dom.all("img")) == len(page.all("img"))
    assert dom.texts["h3"] == page.texts["h3"]
    assert "script" not in dom.texts


def test_a_browser_decodes_every_picture(split, tmp_path):
    path = split.write(tmp_path, examples=2)
    pixels = screenshot(path, tmp_path, 1280)
    assert (pixels[-1] == pixels[0, 0]).all(), "the page is longer than the screenshot"
    found = colours(pixels)
    for x in Page(path.read_text(encoding="utf-8")).all("img")[2:]:
        # Each about 130 by 100.
        rgb = decoded(x["src"]).getpixel((50, 50))
        assert count(found, rgb) > 5000
    # The two pictures stand side by side at the top.
    for half in (pixels[:1000, :640], pixels[:1000, 640:]):
        assert count(colours(half), plots.LIGHT.t2v) > 300
        assert count(colours(half), plots.LIGHT.v2t) > 300


def test_dark_on_a_phone(path, tmp_path):
    pixels = screenshot(path, tmp_path, 390, "--blink-settings=preferredColorScheme=0")
    paper, v2t = plots.DARK.paper, plots.DARK.v2t
    assert count(colours(pixels[:1200]), v2t) > 300
    # Nothing is wider than the screen: its edge is empty all the way down.
    edge = pixels[:, -4:]
    assert count(colours(edge), paper, 0) == edge.shape[0] * edge.shape[1]
    assert count(colours(pixels), plots.LIGHT.paper, 0) == 0
