"""The built book, opened from the file system in a real browser without a network.

These tests need `make book` first, and a Chromium; where either is missing they say so and skip.
"""

import functools
import os
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import sync_playwright

SITE = Path(__file__).parent.parent / "_build" / "html"
PAGES = sorted((SITE / "book").glob("*.html"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
PHONE = {"width": 390, "height": 844}

pytestmark = [
    pytest.mark.skipif(not PAGES, reason="the book is not built: run `make book` first"),
    pytest.mark.skipif(
        (SITE.parent / "unfinished").exists(), reason="the last `make book` did not finish"
    ),
]


class Links(HTMLParser):
    """Collects the links and the anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.targets, self.anchors = [], {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.update(filter(None, (attributes.get("id"), attributes.get("name"))))
        if tag == "a" and attributes.get("href"):
            self.targets.append(attributes["href"])


links_of = functools.cache(Links)


@pytest.fixture(params=PAGES, ids=lambda path: path.stem)
def path(request):
    return request.param


def test_every_internal_link_leads_somewhere(path):
    for target in links_of(path).targets:
        url = urlsplit(target)
        if url.scheme:
            continue
        page = (path.parent / unquote(url.path)).resolve() if url.path else path
        assert page.exists(), target
        if page.suffix == ".html":
            assert unquote(url.fragment) in links_of(page).anchors, target


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium on this machine: install the package chromium")
    arguments = ["--disable-gpu", "--disable-background-networking"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--no-sandbox")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, path):
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.complaints = []
    page.on("request", lambda request: _note_if_it_leaves(request, page.complaints))
    page.on("requestfailed", lambda request: page.complaints.append(f"failed: {request.url[:99]}"))
    page.on("pageerror", lambda error: page.complaints.append(f"error: {error}"))
    page.on(
        "console",
        lambda message: message.type == "error" and page.complaints.append(message.text),
    )
    page.goto(path.as_uri())
    page.wait_for_load_state("networkidle")
    yield page
    context.close()


def _note_if_it_leaves(request, complaints):
    if urlsplit(request.url).scheme not in ("file", "data", "blob"):
        complaints.append(f"left the site: {request.url}")


def test_a_page_needs_no_network_and_has_no_errors(page):
    assert page.complaints == []


def test_every_image_is_shown_and_described(page):
    images = page.locator("main img").evaluate_all(
        "images => images.map(image => [image.alt, image.naturalWidth])"
    )
    for alt, width in images:
        assert width > 0, alt
        assert len(alt.split()) >= 10, alt


def test_every_equation_is_typeset(page):
    page.wait_for_function("() => !window.MathJax || MathJax.startup.promise.then(() => true)")
    wanted = page.locator("main .math").count()
    typeset = page.locator("main .math mjx-container").count()
    assert typeset >= wanted
    assert page.locator("main mjx-merror").count() == 0


def test_a_phone_need_not_scroll_sideways(page):
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_every_slider_changes_its_picture_and_its_description(page):
    for frames in page.locator(".frames").all():
        image, slider = frames.locator("img"), frames.locator("input")
        before = image.get_attribute("src"), image.get_attribute("alt")
        slider.focus()
        page.keyboard.press("End")
        after = image.get_attribute("src"), image.get_attribute("alt")
        assert before[0] != after[0]
        assert before[1] != after[1]
        assert slider.get_attribute("aria-valuetext") == frames.locator("output").inner_text()
