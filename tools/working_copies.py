"""Write the pages into a folder of the reader's own, as JupyterLab shows them best.

Usage: python tools/working_copies.py FOLDER

The prose shows the numbers of the reader's own run. A page that the reader has changed is left as
it is, and said so; one that only was run is written anew when the book's page changes.
"""

import hashlib
import os
import re
import sys
from pathlib import Path

import nbformat
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "_extensions"))

import plain_notebooks  # noqa: E402
import replication  # noqa: E402

FRONT = "book/index"  # of the site; the folder itself is the way in here
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
CODE = re.compile(r"^```\{code-cell\} python3\n(?::tags: [^\n]*\n\n)?(.*?)^```$", re.S | re.M)
MADE = "vae_book"  # in a copy's metadata: the digest of what was written


def write(folder, root=ROOT):
    """Write all pages of the book at `root` into `folder`; return those that a reader changed."""
    copies = {
        page: folder / f"{page.removeprefix('book/')}.ipynb"
        for page in parse_toc_yaml(root / "_toc.yml")
        if page != FRONT
    }
    book = plain_notebooks.Book(root, link=None, directives=True)
    changed = []
    for page, path in copies.items():

        def way(target, start=path.parent):
            return os.path.relpath(copies[target], start) if target in copies else None

        path.parent.mkdir(parents=True, exist_ok=True)
        if not _update(path, _copy(book.with_links(way), root / page)):
            changed.append(str(path.relative_to(folder)))
    return changed


def _copy(book, path):
    """Return the page as a notebook; one of text keeps its text and its code, if it has any."""
    if path.with_suffix(".ipynb").exists():
        notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
        return book.plain(notebook, _of_the_kernel)
    text = path.with_suffix(".md").read_text()
    if replication.HERE in text:
        pages = sorted(path.parent.glob("*/*.ipynb"))
        text = text.replace(replication.HERE, replication.tables(ROOT, pages))
    cells = []
    for number, part in enumerate(CODE.split(text)):
        if number % 2:
            cells.append(nbformat.v4.new_code_cell(part.strip(), id=f"code-{number}"))
        else:
            part = book.page(part, _of_the_kernel)
            cells.append(nbformat.v4.new_markdown_cell(part, id=f"text-{number}"))
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})


def _of_the_kernel(name):
    """Return what JupyterLab replaces by the number that the reader's kernel glued."""
    return f'{{eval}}`glue.values["{name}"]`'


def _update(path, notebook):
    """Write a copy unless the reader changed it; return whether it is the book's own now."""
    digest = _digest(notebook)
    if path.exists():
        present = nbformat.read(path, as_version=4)
        written = present.metadata.get(MADE)
        if written != _digest(present):
            return written == digest
        if written == digest:
            return True
    notebook.metadata[MADE] = digest
    nbformat.write(notebook, path)
    return True


def _digest(notebook):
    sources = [(cell.cell_type, cell.source) for cell in notebook.cells]
    return hashlib.sha256(repr(sources).encode()).hexdigest()[:16]


if __name__ == "__main__":
    changed = write(Path(sys.argv[1]))
    for page in changed:
        print(
            f"{page}: yours differs from the book's, which has changed. Rename yours to get both."
        )
