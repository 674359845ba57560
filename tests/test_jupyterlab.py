"""A working copy in JupyterLab, in a real browser: run whole, it reads like the page of the site.

The quickest page of each chapter, if it runs in 20 s, or, with EVERY_CHAPTER=1, as once a week,
however long it takes; and a notebook with the explorer and the grid. `test_plain_notebooks.py`
reads the copies of all pages, and nbval runs them. Needs a Chromium, as the tests of the site do.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from conftest import free_port

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import working_copies  # noqa: E402

EXPRESSION = re.compile(r"\{eval\}`glue\.values\[\"([^\"]+)\"\]`")
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight are there too
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
QUICK = 20  # seconds to run, as the page states them
MINUTE = 60_000  # in milliseconds
CURRENT = "jupyterapp.shell.currentWidget"
RUN_ALL = f"""async () => {{
    const panel = {CURRENT};
    await panel.context.ready;
    await panel.sessionContext.ready;
    return jupyterapp.commands.execute("notebook:run-all-cells");
}}"""
ASK_KERNEL = f"""async (code) => {{
    const asked = {CURRENT}.sessionContext.session.kernel.requestExecute({{ code }});
    let answer = "";
    asked.onIOPub = (message) => {{
        if (message.header.msg_type === "stream") answer += message.content.text;
    }};
    await asked.done;
    return answer;
}}"""


def seconds(path):
    return int(re.search(r"(\d+) seconds to run", path.read_text())[1])


def quickest_of_each_chapter():
    pages = sorted(ROOT.glob("book/*/*.ipynb"), key=seconds, reverse=True)
    quickest = {page.parent.name: page for page in pages}.values()
    most = float("inf") if os.environ.get("EVERY_CHAPTER") else QUICK
    return sorted(f"{page.parent.name}/{page.name}" for page in quickest if seconds(page) <= most)


@pytest.fixture(scope="module", params=quickest_of_each_chapter())
def name(request):
    return request.param


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Write the working copies; their pages find `benchmarks/` two folders up, as in the clone."""
    clone = tmp_path_factory.mktemp("clone")
    (clone / "benchmarks").symlink_to(ROOT / "benchmarks")
    working_copies.write(clone / "copies")
    return clone / "copies"


@pytest.fixture(scope="module")
def lab(copies, tmp_path_factory):
    """Start a JupyterLab of its own on the working copies; return its address."""
    own = tmp_path_factory.mktemp("lab")
    for name, values in SETTINGS.items():
        path = own / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
    port = free_port()
    options = {
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": copies,
        "ServerApp.allow_root": True,
        "IdentityProvider.token": "",
        "LabApp.expose_app_in_browser": True,
    }
    folders = {
        f"JUPYTERLAB_{kind}_DIR": str(own / kind.lower()) for kind in ("SETTINGS", "WORKSPACES")
    }
    with (own / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser"]
            + [f"--{name}={value}" for name, value in options.items()],
            env=os.environ | folders,
            stdout=log,
            stderr=log,
        )
        try:
            _wait_until_it_answers(f"http://127.0.0.1:{port}/api", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _wait_until_it_answers(address, process):
    for _ in range(120):
        assert process.poll() is None, "JupyterLab has ended"
        try:
            return urllib.request.urlopen(address)
        except OSError:
            time.sleep(0.5)
    pytest.fail("JupyterLab does not answer")


@pytest.fixture(scope="module")
def page(browser, lab, name):
    yield from opened_and_run(browser, lab, name)


def opened_and_run(browser, lab, name):
    """Open a notebook in JupyterLab and run all its cells; yield the page, then close it."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(5 * MINUTE)
    workspace = Path(name).parent  # one of its own, or the tabs of the last page would come back
    page.goto(f"{lab}/lab/workspaces/{workspace}/tree/{name}")
    page.wait_for_function(f"() => window.jupyterapp && {CURRENT}?.sessionContext?.session?.kernel")
    page.all_ran = page.evaluate(RUN_ALL)
    yield page
    page.evaluate("() => jupyterapp.serviceManager.sessions.shutdownAll()")
    page.close()


@pytest.fixture(scope="module")
def notebook(copies, name):
    return nbformat.read(copies / name, as_version=4)


def shown(page):
    """Return the text of each Markdown cell as it is shown, in order."""
    return page.locator(".jp-MarkdownCell .myst").evaluate_all(
        "cells => cells.map(cell => cell.textContent)"
    )


def test_every_cell_runs(page):
    assert page.all_ran
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0


def test_every_number_of_the_prose_is_the_kernel_s(page, notebook):
    values = json.loads(page.evaluate(ASK_KERNEL, "import json; print(json.dumps(glue.values))"))
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    page.wait_for_function("() => !document.body.innerText.includes('glue.values')")
    texts = shown(page)
    assert len(texts) == len(sources)
    quoted = 0
    for source, text in zip(sources, texts):
        for key in EXPRESSION.findall(source):
            assert values[key] in text, (key, values[key], text)
            quoted += 1
    assert quoted


def test_nothing_shows_a_key_a_role_or_a_warning(page):
    text = "\n".join(shown(page))
    assert re.findall(r"\{\w+(?::\w+)?\}`|glue\.|⚠|:::|fig-\w+-", text) == []
    signs = page.locator(".myst [class*=error], .myst [class*=warn]:not(.myst-admonition)")
    assert signs.count() == 0


def test_figures_have_their_captions(page, notebook):
    figures = [c for c in notebook.cells if "figure" in c.metadata.get("mystnb", {})]
    captions = [text for text in shown(page) if re.match(r"Figure (?:\d+\.)+ ", text)]
    assert len(captions) == len(figures) > 0


def test_solutions_stay_folded_when_all_cells_have_run(page):
    headings = page.locator(".jp-MarkdownCell:has-text('Solution of exercise')")
    assert headings.count() >= 1
    for heading in headings.all():
        following = heading.locator(
            "xpath=following-sibling::*[contains(@class, 'jp-CodeCell')][1]"
        )
        assert not following.is_visible()


def test_terms_show_their_meaning(page):
    meanings = page.locator(".myst a abbr").evaluate_all(
        "terms => terms.map(term => term.ariaLabel)"
    )
    assert meanings
    assert all(len(meaning.split()) >= 3 for meaning in meanings)


def test_each_slider_answers_to_the_keyboard(page, notebook):
    handles = page.locator(".widget-hslider [role=slider], .widget-hslider .noUi-handle").all()
    assert len(handles) == sum(
        "slider(" in cell.source for cell in notebook.cells if cell.cell_type == "code"
    )
    for handle in handles:
        box = handle.locator("xpath=ancestor::*[contains(@class, 'widget-vbox')]").element_handle()
        assert changes(page, box, "box => box.querySelector('img').src", handle, "ArrowRight")


def changes(page, element, look, control, key):
    """Press a key on a control; return whether what one sees changes within a minute."""
    before = element.evaluate(look)
    control.focus()
    page.keyboard.press(key)
    changed = f"([element, before]) => ({look})(element) !== before"
    return page.wait_for_function(changed, arg=[element, before], timeout=MINUTE)


def test_a_link_opens_the_page_that_it_names(page):
    """The last test of a page, since it leaves it."""
    link = page.locator(".myst a[href*='.ipynb']").first
    target = link.get_attribute("href").split("/files/")[-1].split("?")[0]
    link.click()
    page.wait_for_function(
        f"(name) => {CURRENT}?.context?.path?.endsWith(name)", arg=target.split("/")[-1]
    )


LIVING = """
from vae_utils import data, models
from vae_utils.beyond import codes
from vae_utils.page import explorer, grid

digits = data.load_digits("bundled")
vqvae = codes.build(codes=9, width=16, seed=0)
vqvae.start_from(digits.x_test[:100], 0)
"""


@pytest.fixture(scope="module")
def living(browser, lab, copies):
    cells = LIVING, "explorer.show(models.build_vae('linear'), digits)", "grid.show(vqvae, digits)"
    kernel = {"name": "python3", "display_name": "Python 3"}
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata={"kernelspec": kernel}
    )
    (copies / "controls").mkdir()
    nbformat.write(notebook, copies / "controls" / "living.ipynb")
    yield from opened_and_run(browser, lab, "controls/living.ipynb")


@pytest.mark.parametrize(
    ("control", "part", "seen", "key"),
    [
        ("explorer", "[data-part=plane]", "root.explorer?.state?.z?.join()", "ArrowRight"),
        ("grid", "[data-part=cells] button", "root.grid?.state?.codes?.join()", "ArrowUp"),
    ],
    ids=["explorer", "grid"],
)
def test_a_living_control_answers_to_the_keyboard(living, control, part, seen, key):
    assert living.all_ran
    root = living.locator(f".latent-{control}")
    element = root.element_handle()
    living.wait_for_function(f"root => {seen}", arg=element)
    assert changes(living, element, f"root => {seen}", root.locator(part).first, key)
