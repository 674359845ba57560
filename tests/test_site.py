"""The built book, opened from the file system in a real browser without a network.

These tests need `make book` first, and a Chromium; where either is missing they say so and skip,
or fail if the environment variable REQUIRE_BROWSER is set. Each page is loaded once, and all that
is said about it is seen in that visit.
"""

import functools
import gzip
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).parent.parent
READING_ORDER = list(parse_toc_yaml(ROOT / "_toc.yml"))
NOTEBOOKS = [page for page in READING_ORDER if (ROOT / f"{page}.ipynb").exists()]
PAGES = [*READING_ORDER, "genindex", "search", "404"]
TEXT_FILES = (".html", ".css", ".js", ".json", ".svg")
COLOURS = ["color-contrast", "link-in-text-block"]  # the rules of axe that look at them
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


# Adds up how far what is seen moves by itself while a page loads: the cumulative layout shift.
NOTE_JUMPS = """
    window.jumped = 0;
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) window.jumped += entry.value;
    }).observe({ type: "layout-shift", buffered: true });
"""
# Of thousands of equations, words of code, paragraphs and rows, all but one of each kind are taken
# away, for speed. The kind of an element is that of all around it and of all in it: tags, classes,
# attributes, and which of it is empty.
KEEP_ONE_OF_EACH_KIND = """() => {
    const alike = "mjx-container, .highlight span, .copybtn, tbody tr, section > p, li";
    const seen = new Set();
    const kindOf = (element) => [element.tagName, element.className,
        ...element.getAttributeNames(), !element.textContent.trim()].join();
    const placeOf = (element) =>
        element ? placeOf(element.parentElement) + element.tagName + element.className : "";
    for (const element of document.querySelectorAll(alike)) {
        if (!element.isConnected) continue;
        const parts = element.matches("tr, p, li") ? element.querySelectorAll("*") : [];
        const kind = [placeOf(element.parentElement), ...[element, ...parts].map(kindOf)].join();
        if (seen.has(kind)) element.remove();
        seen.add(kind);
    }
}"""
FIT_EQUATIONS = """() => {
    if (window.MathJax) MathJax.startup.document.rerender(MathJax._.core.MathItem.STATE.METRICS);
}"""
OPEN_ALL = """() => {
    for (const answer of document.querySelectorAll("details")) answer.open = true;
    for (const solution of document.querySelectorAll(".toggle-hidden"))
        solution.classList.remove("toggle-hidden");
}"""
USE_THEME = """theme => {
    document.documentElement.dataset.theme = theme;
    for (const animation of document.getAnimations()) animation.finish();
}"""


class Page(HTMLParser):
    """Collects the links and the anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.targets, self.anchors, self.neighbours = [], {""}, {}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.update(filter(None, (attributes.get("id"), attributes.get("name"))))
        if tag == "a" and attributes.get("href"):
            self.targets.append(attributes["href"])
            if attributes.get("class") in ("left-prev", "right-next"):
                self.neighbours[attributes["class"]] = attributes["href"]


parse = functools.cache(Page)


@pytest.fixture(scope="module", params=PAGES)
def path(request, site):
    return site / f"{request.param}.html"


def test_every_internal_link_leads_somewhere(path):
    for target in parse(path).targets:
        url = urlsplit(target)
        if url.scheme:
            continue
        page = (path.parent / unquote(url.path)).resolve() if url.path else path
        assert page.exists(), target
        if page.suffix == ".html":
            assert unquote(url.fragment) in parse(page).anchors, target


@pytest.mark.parametrize(
    ("link", "order"), [("right-next", READING_ORDER), ("left-prev", READING_ORDER[::-1])]
)
def test_one_reads_from_page_to_page(site, link, order):
    walked, page = [], site / f"{order[0]}.html"
    while page:
        walked.append(page.relative_to(site).with_suffix("").as_posix())
        target = parse(page).neighbours.get(link)
        page = (page.parent / target).resolve() if target else None
    assert walked == order


def test_the_page_for_what_is_not_there_leads_back(site):
    assert {"book/index.html", "search.html"} <= set(parse(site / "404.html").targets)


@pytest.fixture(scope="module")
def page(browser, path):
    """Visit a page, and note all that it asks for and all that it complains about."""
    context = browser.new_context(offline=True, viewport=WIDE)
    page = context.new_page()
    page.add_init_script(NOTE_JUMPS)
    page.asked, page.complaints = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("requestfailed", lambda request: page.complaints.append(f"failed: {request.url[:99]}"))
    page.on("pageerror", lambda error: page.complaints.append(f"error: {error}"))
    page.on("console", lambda message: _note_errors(message, page.complaints))
    page.goto(path.as_uri(), wait_until="load")
    page.evaluate("window.MathJax?.startup.promise.then(() => true)")
    yield page
    context.close()


def resize(page, size):
    """Give a page its size, if it has another: a long page takes a second to lay out anew."""
    if page.viewport_size != size:
        page.set_viewport_size(size)


def _note_errors(message, complaints):
    if message.type == "error":
        complaints.append(message.text)


def test_a_notebook_s_page_holds_what_the_tests_below_look_at(page, path, site):
    if path.relative_to(site).with_suffix("").as_posix() not in NOTEBOOKS:
        pytest.skip("not a notebook")
    least = {
        "article img": 1,
        "main .math mjx-container": 1,
        "main details": 6,
        "main .solution.dropdown": 1,
    }
    found = {selector: page.locator(selector).count() for selector in least}
    assert all(found[selector] >= least[selector] for selector in least), found


def test_there_are_sliders_in_the_book(site):
    with_sliders = [
        name for name in PAGES if 'class="frames"' in (site / f"{name}.html").read_text()
    ]
    assert len(with_sliders) >= 3


def test_the_first_view_hardly_moves(page):
    """What is left, 0.04 at most, are lines that move while equations are typeset."""
    assert page.evaluate("window.jumped") < 0.1


def test_every_equation_is_typeset(page):
    wanted = page.locator("main .math").count()
    assert page.locator("main .math mjx-container").count() >= wanted
    assert page.locator("main mjx-merror").count() == 0


def test_no_table_is_left_as_text(page):
    paragraphs = page.locator("main p").all_inner_texts()
    assert not [text for text in paragraphs if text.lstrip().startswith("|")]


def test_every_image_is_shown_and_described(page):
    images = page.locator("article img").evaluate_all(
        """images => Promise.all(images.map(async image => {
            image.loading = "eager";
            await image.decode().catch(() => {});
            return [image.alt, image.naturalWidth];
        }))"""
    )
    for alt, width in images:
        assert width > 0, alt
        assert len(alt.split()) >= 10, alt


def test_no_cell_shows_what_it_returns_as_text(page):
    assert page.locator(".cell_output .text_plain").all_inner_texts() == []


def test_every_slider_changes_its_picture_and_its_description(page):
    for frames in page.locator(".frames").all():
        image, slider = frames.locator("> img"), frames.locator("input")
        before = image.get_attribute("src"), image.get_attribute("alt")
        slider.focus()
        page.keyboard.press("End")
        after = image.get_attribute("src"), image.get_attribute("alt")
        assert before[0] != after[0]
        assert before[1] != after[1]
        assert slider.get_attribute("aria-valuetext") == frames.locator("output").inner_text()


def test_paper_shows_three_positions_of_a_slider(page):
    page.emulate_media(media="print")
    for frames in page.locator(".frames").all():
        shown = frames.locator("img:visible")
        assert len({image.get_attribute("src") for image in shown.all()}) == shown.count() == 3
        assert "slider" in frames.locator(".printed p").inner_text()
        assert not frames.locator("input").is_visible()
    page.emulate_media(media="screen")


def test_paper_numbers_the_title_as_the_screen_does(page):
    number = page.locator("article h1 > .section-number")
    page.emulate_media(media="print")
    titles = page.locator("h1:visible")
    assert titles.count() == 1
    assert number.count() == titles.locator(".section-number").count()
    page.emulate_media(media="screen")


def test_every_answer_opens_by_keyboard(page):
    for answer in page.locator("main details.sd-dropdown").all():
        answer.locator("summary").focus()
        page.keyboard.press("Enter")
        assert answer.get_attribute("open") is not None
        assert answer.locator(".sd-summary-content").is_visible()


def test_code_that_only_draws_is_folded_and_opens_by_keyboard(page):
    for code in page.locator("main .cell > details").all():
        assert not code.locator(".cell_input").is_visible()
        code.locator("summary").focus()
        page.keyboard.press("Enter")
        assert code.locator(".cell_input").is_visible()


def test_every_solution_opens_by_keyboard(page):
    for solution in page.locator("main .solution.dropdown").all():
        button, content = solution.locator(".toggle-button"), solution.locator("section")
        assert not content.is_visible()
        button.focus()
        page.keyboard.press("Enter")
        assert content.is_visible()
        assert button.get_attribute("aria-expanded") == "true"


@pytest.mark.parametrize(
    "size", [WIDE, {"width": 1920, "height": 900}, PHONE], ids=["wide", "very-wide", "phone"]
)
def test_code_and_what_it_prints_fit_their_column(page, size):
    page.evaluate(OPEN_ALL)
    resize(page, size)
    cut = page.locator("main .cell_input pre, main .cell_output pre").evaluate_all(
        """cells => cells
            .filter(cell => cell.clientWidth && cell.scrollWidth > cell.clientWidth + 1)
            .map(cell => cell.innerText)"""
    )
    assert cut == []


def test_a_phone_need_not_scroll_sideways(page):
    resize(page, PHONE)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_a_phone_shows_figures_at_a_size_that_can_be_read(page):
    """Letters of ten points are eight pixels or larger in wide figures, seven in all others."""
    resize(page, PHONE)
    sizes = page.locator("article .cell_output > figure img").evaluate_all(
        """images => images
            .filter(image => image.clientWidth && !image.closest(".solution, .still"))
            .map(image => {
                const { paddingLeft, paddingRight } = getComputedStyle(image);
                const frame = parseFloat(paddingLeft) + parseFloat(paddingRight);
                const scale = (image.clientWidth - frame) / image.naturalWidth;
                return [image.alt, scale * 1000 / 72, image.closest(".wide-figure") ? 8 : 7];
            })"""
    )
    assert [(alt, size) for alt, size, least in sizes if size < least] == []


def test_a_phone_shows_equations_on_lines_of_their_own_whole(page):
    """Typeset anew, as on a page loaded there: MathJax fits its letters to the text around."""
    resize(page, PHONE)
    page.evaluate(OPEN_ALL)
    page.evaluate(FIT_EQUATIONS)
    cut = page.locator("article mjx-container[display]").evaluate_all(
        """equations => equations
            .filter(equation => equation.scrollWidth > equation.clientWidth + 1)
            .map(equation => equation.textContent)"""
    )
    assert cut == []


def test_a_phone_shows_lines_to_their_end(page):
    """Equations and code within a line cannot scroll; what is too wide belongs on its own line."""
    resize(page, PHONE)
    cut = page.locator("article mjx-container:not([display]), article :not(pre) > code")
    wide = cut.evaluate_all(
        """elements => elements
            .filter(element => !element.closest("table, pre, .cell_output"))
            .filter(element => element.getBoundingClientRect().right > innerWidth)
            .map(element => element.parentElement.textContent)"""
    )
    assert wide == []


def test_no_line_begins_with_the_mark_after_an_equation(page):
    resize(page, PHONE)
    apart = page.locator("article span.math").evaluate_all(
        """equations => equations
            .filter(equation => /^[,.;:?!)]/.test(equation.nextSibling?.data ?? ""))
            .filter(equation => {
                const mark = document.createRange();
                mark.setStart(equation.nextSibling, 0);
                mark.setEnd(equation.nextSibling, 1);
                const bottom = equation.getBoundingClientRect().bottom;
                return mark.getBoundingClientRect().top >= bottom;
            })
            .map(equation => equation.parentElement.textContent)"""
    )
    assert apart == []


def test_a_page_needs_no_network_and_has_no_errors(page):
    assert [url for url in page.asked if urlsplit(url).scheme not in ("file", "data", "blob")] == []
    assert page.complaints == []


def test_a_page_weighs_at_most_1500_kB(page):
    """As a web server sends it: text compressed. Every image was asked for above.

    The explorer's model comes on top, where it comes into view.
    """
    weight = 0
    for url in set(page.asked):
        if urlsplit(url).scheme == "file" and "_static/explorer-" not in url:
            path = Path(unquote(urlsplit(url).path))
            content = path.read_bytes()
            weight += len(gzip.compress(content) if path.suffix in TEXT_FILES else content)
    assert weight <= 1_500_000


# The last test of a page, since it takes things away from it. The dark theme differs in colours, a
# phone in everything else.
@pytest.mark.parametrize(
    ("theme", "size", "rules"),
    [
        ("light", PHONE, {"rules": {rule: {"enabled": False} for rule in COLOURS}}),
        ("light", WIDE, {}),
        ("dark", WIDE, {"runOnly": COLOURS}),
    ],
    ids=["light-phone", "light-wide", "dark-wide"],
)
def test_axe_finds_nothing_that_would_keep_someone_out(page, theme, size, rules):
    page.evaluate(KEEP_ONE_OF_EACH_KIND)
    page.evaluate(OPEN_ALL)
    resize(page, size)
    if theme == "light":
        page.wait_for_timeout(500)  # till the theme has made what now scrolls focusable
    page.evaluate(USE_THEME, theme)
    found = Axe().run(page, options={"resultTypes": ["violations"], **rules})
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("term", ["ELBO", "reparameterization"])
def test_the_search_finds_terms(browser, site, term):
    page = browser.new_page(offline=True)
    page.goto(f"{(site / 'search.html').as_uri()}?q={term}")
    page.locator("#search-results .search li a").first.wait_for()
    targets = page.locator("#search-results .search li a").evaluate_all(
        "links => links.map(link => new URL(link.href).pathname)"
    )
    assert any(term in Path(unquote(target)).read_text() for target in targets)
    page.close()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_page_can_be_downloaded_as_a_notebook(site, name):
    page = site / f"{name}.html"
    links = {link for link in parse(page).targets if not urlsplit(link).scheme}
    (target,) = {link for link in links if link.endswith(".ipynb")}
    notebook = nbformat.read((page.parent / target).resolve(), as_version=4)
    nbformat.validate(notebook)
    own = nbformat.read(ROOT / f"{name}.ipynb", as_version=4)
    code = [
        [
            cell.source
            for cell in cells
            if cell.cell_type == "code" and cell.id != "install-vae-utils"
        ]
        for cells in (own.cells, notebook.cells)
    ]
    assert code[0] == code[1]
