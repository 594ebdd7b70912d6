"""The page in a real browser: typed, found, played, filtered, gone back to, on a narrow screen."""

import pathlib
import shutil
import time

import pytest

import glscl_jax.search
from glscl_jax.search import server
from tests.search.conftest import index_two
from tests.search.serving import serve

pytestmark = pytest.mark.slow
sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def address(checkpoint, tmp_path_factory, lance):
    folder = tmp_path_factory.mktemp("page")
    index_two(folder, checkpoint, "<img src=x>.mp4")
    port, stop = serve(server.application(glscl_jax.search.open(folder / "index")))
    yield f"http://127.0.0.1:{port}/"
    stop()


@pytest.fixture
def page(address):
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with sync_api.sync_playwright() as playwright:
        # Of a container nobody is root outside of.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.elsewhere, page.wrong = [], []
        page.on("request", lambda asked: page.elsewhere.append(asked.url))
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.goto(address)
        yield page
        assert not page.wrong
        assert not [url for url in page.elsewhere if not url.startswith(address)]
        browser.close()


def until(page, told):
    """Waits for what JavaScript tells: in the page itself nobody may evaluate strings."""
    deadline = time.monotonic() + 120
    while not page.evaluate(told):
        assert time.monotonic() < deadline, told
        page.wait_for_timeout(50)


def ask(page, sentence, where=""):
    page.fill("#q", sentence)
    page.fill("#where", where)
    page.press("#q", "Enter")
    until(page, "!document.getElementById('state').textContent.includes('searching')")
    return page.inner_text("#state")


def test_a_sentence_is_asked_and_a_window_played(page, tmp_path):
    assert "the best of 5 windows" in ask(page, "a red circle")
    assert page.locator("#hits > li").count() == 5
    # Other people's names are text.
    assert page.locator("#hits strong img").count() == 0
    page.press("#q", "ArrowDown")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('video')?.readyState >= 1")
    assert page.evaluate("document.querySelector('video').error") is None
    page.keyboard.press("Escape")
    assert page.locator("video").count() == 0
    loaded = (
        "[...document.querySelectorAll('#hits img')].every((x) => x.complete && x.naturalWidth)"
    )
    until(page, loaded)
    shot = pathlib.Path(tmp_path / "page.png")
    page.screenshot(path=shot)
    assert shot.stat().st_size > 1000


def test_filters_errors_and_the_way_back(page):
    assert "the best of 4 windows" in ask(page, "green", "year = 2024")
    page.locator("#hits .plain").first.click()
    until(page, "document.getElementById('state').textContent.includes('a.mp4')")
    page.go_back()
    until(page, "document.getElementById('state').textContent.includes('green')")
    assert page.input_value("#where") == "year = 2024"
    assert "is no filter" in ask(page, "green", "yeer > 3")
    assert page.locator("#hits > li").count() == 0
    assert "leaves no window" in ask(page, "green", "year = 7")
    assert "write a sentence first" in ask(page, " ")


def test_a_narrow_screen_in_the_dark(page):
    page.set_viewport_size({"width": 340, "height": 700})
    page.emulate_media(color_scheme="dark")
    ask(page, "green")
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_mend(page, scheme):
    """Accessibility, by axe-core, of all that the page can show."""
    why = "pip install axe-playwright-python"
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason=why).Axe()

    def check(what):
        wrong = axe.run(page).response["violations"]
        assert not [(one["id"], one["nodes"][0]["html"]) for one in wrong], what

    page.emulate_media(color_scheme=scheme)
    check("at first")
    ask(page, "a red circle")
    page.click("summary")
    check("with results, and the columns")
    page.locator("#hits .see").first.click()
    until(page, "document.querySelector('video')?.readyState >= 1")
    check("while a video plays")
    page.keyboard.press("Escape")
    # As of a prepared data set.
    page.evaluate("document.querySelector('#hits .see').textContent = 'no picture'")
    check("without a picture")
    ask(page, "green", "yeer > 3")
    check("with an error")
