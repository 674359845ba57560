"""Away from the site a page is plain Markdown, with the site's numbers and working links."""

import html
import re
import sys
from pathlib import Path

import nbformat
import plain_notebooks
import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import working_copies  # noqa: E402

PAGES = sorted(ROOT.glob("book/*/*.ipynb"))
ROLE = re.compile(r"\{[a-z:]+\}`")
CODE = re.compile(r"^```\w+$.*?^```$", re.M | re.S)  # plain Markdown, as it is
DIRECTIVE = re.compile(r"^\s*(?:`{3,}|:{3,})\{|^:\w+: |^\([\w-]+\)=$|^(?:`{3,}|:{3,})$", re.M)


@pytest.fixture(scope="module")
def book():
    return plain_notebooks.Book(ROOT, lambda page: f"https://example.org/{page}.html")


@pytest.fixture(scope="module", params=PAGES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def chapter(request):
    return nbformat.read(request.param, as_version=4)


def prose(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_nothing_of_myst_is_left(book, chapter):
    copy = book.plain(chapter, lambda name: "12.3")
    nbformat.validate(copy)
    text = prose(copy)
    assert ROLE.findall(text) == []
    assert DIRECTIVE.findall(CODE.sub("", text)) == []
    rendered = html.unescape(MarkdownIt("commonmark").render(text))
    assert not re.search(r"\]\(|\{(?:term|doc|cite)", rendered)
    assert rendered.count("<details>") == rendered.count("</details>")


def test_the_code_of_a_copy_is_the_chapter_s_own(book, chapter):
    copy = book.plain(chapter, str)
    code = [[c for c in n.cells if c.cell_type == "code"] for n in (chapter, copy)]
    assert code[0] == code[1]


def test_figures_and_equations_have_the_numbers_that_the_site_gives_them(book, site):
    seen = 0
    for path in site.glob("book/**/*.html"):
        page = path.read_text()
        for name, number in book.figures.items():
            if f'id="{name}"' in page:
                figure = page.split(f'id="{name}"', 1)[1]
                caption = re.search(r'caption-number">Fig\. ([\d.]+?) ?</span>', figure)
                assert caption[1] == number, name
                seen += 1
        for label, number in book.equations.items():
            if f'id="equation-{label}"' in page:
                equation = page.split(f'id="equation-{label}"', 1)[1]
                assert re.search(r'eqno">\(([\d.]+)\)', equation)[1] == number, label
                seen += 1
    assert seen == len(book.figures) + len(book.equations)


@pytest.mark.parametrize(
    ("myst", "plain"),
    [
        ("{glue:text}`toy-nats` nats", "143.3 nats"),
        ("{cite:t}`kingma2013`", "[Kingma and Welling (2013)](https://arxiv.org/abs/1312.6114)"),
        (
            "{cite:p}`burda2015,cremer2018`",
            "([Burda et al., 2015](https://arxiv.org/abs/1509.00519); [Cremer et al., 2018]"
            "(https://proceedings.mlr.press/v80/cremer18a.html))",
        ),
        (
            "{doc}`/book/05_latent_plot/index`",
            "[The latent plot](https://example.org/book/05_latent_plot/index.html)",
        ),
        ("{doc}`here </book/notation>`", "[here](https://example.org/book/notation.html)"),
        (
            ":::{dropdown} A. **Yes**\nRight.\n:::",
            "<details>\n<summary>A. **Yes**</summary>\n\nRight.\n\n</details>",
        ),
        (":::{admonition} Mind\n:class: warning\nTwo KLs.\n:::", "> **Mind.** Two KLs."),
    ],
)
def test_a_role_or_directive_becomes_what_a_reader_would_write(book, myst, plain):
    assert book.text(myst, {"toy-nats": "143.3"}.get).strip() == plain


def test_a_term_shows_its_meaning_and_leads_to_the_glossary(book):
    text = book.text("{term}`them <latent variable>`", str).strip()
    assert re.fullmatch(r'\[them\]\(https://example.org/book/glossary.html "[^"{}$]{20,}"\)', text)


def test_where_the_site_is_unknown_its_pages_are_named_not_linked():
    book = plain_notebooks.Book(ROOT, lambda page: None)
    assert book.text("{doc}`/book/05_latent_plot/index` and {term}`ELBO`", str).strip() == (
        "The latent plot and ELBO"
    )


def test_an_unknown_role_is_refused(book):
    with pytest.raises(ValueError, match=r"role \{sub\}`2`"):
        book.text("H{sub}`2`O", str)


def test_solutions_stay_folded_and_the_answers_are_the_editor_s_own_in_working_copies(tmp_path):
    assert working_copies.write(tmp_path) == []
    for path in PAGES:
        written = tmp_path / path.parent.name / path.name
        copy = nbformat.read(written, as_version=4)
        nbformat.validate(copy)
        folded = [c for c in copy.cells if c.metadata.get("jp-MarkdownHeadingCollapsed")]
        assert folded
        assert all(cell.source.startswith("### Solution of exercise") for cell in folded)
        assert set(ROLE.findall(prose(copy))) <= {"{eval}`", "{abbr}`"}
        assert ":::{dropdown} A. " in prose(copy)
        links = re.findall(r"\]\(([\w./]+\.ipynb)", prose(copy))
        assert links
        for target in links:
            assert (written.parent / target).exists(), target
    glossary = (tmp_path / "glossary.ipynb").read_text()
    assert "**ELBO" in glossary
    assert "{glossary}" not in glossary


def test_code_on_a_page_of_text_is_code_in_its_working_copy(tmp_path):
    working_copies.write(tmp_path)
    copy = nbformat.read(tmp_path / "lab.ipynb", as_version=4)
    code = "\n".join(cell.source for cell in copy.cells if cell.cell_type == "code")
    assert "lab.show(" in code
    compile(code, "lab", "exec")
    assert "code-cell" not in prose(copy)
    assert '{eval}`glue.values["lab-name"]`' in prose(copy)


def test_what_a_reader_changed_stays_and_what_was_only_run_follows_the_book(tmp_path):
    working_copies.write(tmp_path)
    ours, theirs = (tmp_path / path.parent.name / path.name for path in PAGES[:2])
    run = nbformat.read(ours, as_version=4)
    for cell in run.cells:
        if cell.cell_type == "code":
            cell.execution_count = 1
    nbformat.write(run, ours)
    changed = nbformat.read(theirs, as_version=4)
    changed.cells[0].source += "\n\nA note of mine."
    nbformat.write(changed, theirs)
    before = ours.read_bytes()
    assert working_copies.write(tmp_path) == []  # the book is the same: nothing to say
    assert ours.read_bytes() == before  # and the outputs of a run stay

    for path in (ours, theirs):  # as if the book had changed since
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata[working_copies.MADE] = "earlier"
        if path == ours:
            notebook.metadata[working_copies.MADE] = working_copies._digest(notebook)
            notebook.cells[1].source = "An older text."
            notebook.metadata[working_copies.MADE] = working_copies._digest(notebook)
        nbformat.write(notebook, path)
    assert working_copies.write(tmp_path) == [str(theirs.relative_to(tmp_path))]
    assert "An older text." not in ours.read_text()
    assert "A note of mine." in theirs.read_text()
