"""A Sphinx extension that makes pages light, still while they load, and clear to all.

Figures become WebP, half the size or less, and say their width and height, so that the text below
does not move when they arrive. Those whose labels would be too small on a phone get a box of their
own to scroll in, and tables of many words are stacked there row by row: `book.css` has their look.
Four mends can go when the tests of the site hold without them:

- References are items of their list: the role that docutils gives them, doc-biblioentry, is
  deprecated (https://github.com/w3c/dpub-aria/pull/22).
- The mark after an equation stays on its line, where browsers break between MathJax's element and
  text (https://github.com/jupyter-book/mystmd/issues/114).
- The folds of the table of contents in the sidebar say whose pages they hold. The theme gives them
  no name (since https://github.com/pydata/pydata-sphinx-theme/pull/1582).
- The link in the title of a solution begins with its first word, not with the space before it.
"""

import io
import re
from pathlib import Path

from docutils import nodes
from PIL import Image

EQUATION = re.compile(r'([(“]*)(<span class="math [^>]*>[^<]*</span>)([,.;:?!)”’]*)')
FOLD = re.compile(r"(<a\b[^>]*>(?P<title>[^<]*)</a><details[^>]*><summary)>")
FIGURE = re.compile(r'(<img\b[^>]*\bsrc="[^"]*_images/)([^"/]+)\.png"([^>]*>)')
SOLUTION = re.compile(r"(Solution to)(<a\b[^>]*>) ")
WIDE = 720  # pixels: of a wider figure, shrunk to a phone's screen, letters would be below seven
# The theme lets the keyboard scroll what has this class, where there is something to scroll.
BOX = '<div class="pst-scrollable-table-container wide-figure" style="--width: {}">{}</div>'
WORDY = 14  # characters in a cell, on average


def setup(app):
    app.connect("doctree-resolved", _let_wordy_tables_stack)
    app.connect("html-page-context", _mend_page)
    app.connect("html-page-context", _name_folds, priority=900)  # after the theme
    app.connect("build-finished", _shrink_figures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _let_wordy_tables_stack(app, doctree, page):
    """Name the columns in each cell, which a phone shows, of tables of four columns or more."""
    for table in doctree.findall(nodes.table):
        names, *rows = table.findall(nodes.row)
        cells = [cell for row in rows for cell in row[1:]]
        if len(names) < 4 or sum(len(cell.astext()) for cell in cells) < WORDY * len(cells):
            continue
        table["classes"].append("by-rows")
        for row in rows:
            for name, cell in zip(names[2:], row[2:], strict=True):
                if cell.astext():
                    words = f"{name.astext()}: "
                    cell[0].insert(0, nodes.inline("", words, classes=["column-name"]))


def _mend_page(app, page, template, context, doctree):
    sources = {
        Path(name).stem: Path(app.srcdir) / path for path, name in app.builder.images.items()
    }

    def sized(match):
        with Image.open(sources[match[2]]) as image:
            width, height = image.size
        sized = f'{match[1]}{match[2]}.webp" width="{width}" height="{height}"{match[3]}'
        return BOX.format(width, sized) if width > WIDE else sized

    body = FIGURE.sub(sized, context.get("body", ""))
    body = SOLUTION.sub(r"\1 \2", EQUATION.sub(_with_its_marks, body))
    context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')


def _name_folds(app, page, template, context, doctree):
    generate = context.get("generate_toctree_html")

    def named(*arguments, kind, **options):
        tree = generate(*arguments, kind=kind, **options)
        if kind != "sidebar":
            return tree
        return FOLD.sub(r'\1 aria-label="Pages of \g<title>">', str(tree))

    if generate:
        context["generate_toctree_html"] = named


def _with_its_marks(match):
    alone = not (match[1] or match[3])
    return match[0] if alone else f'<span class="on-one-line">{match[0]}</span>'


def _shrink_figures(app, error):
    if error is not None or app.builder.format != "html":
        return
    for path in Path(app.outdir, "_images").glob("*.png"):
        with Image.open(path) as image:
            path.with_suffix(".webp").write_bytes(_as_webp(image))
        path.unlink()


def _as_webp(image):
    """Return the smaller one of two files: lossless for lines, lossy for clouds of points."""
    files = []
    for options in ({"lossless": True}, {"quality": 90}):
        buffer = io.BytesIO()
        image.save(buffer, "webp", **options)
        files.append(buffer.getvalue())
    return min(files, key=len)
