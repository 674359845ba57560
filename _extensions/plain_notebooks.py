"""The notebooks as they read away from the site: plain Markdown for MyST's roles and directives.

Colab, VS Code and GitHub know none of these, JupyterLab some. Here figures and equations get the
numbers that the site gives them, citations their authors and year, chapters and references links,
terms their meaning (as the link's title), answers a fold. Where the numbers of the prose come from
is the caller's choice: from the build, or from the kernel of the reader.

As a Sphinx extension it makes the notebooks that the site offers for download such copies.
"""

import copy
import re
import textwrap
from itertools import pairwise
from pathlib import Path

import nbformat
from pybtex.database import parse_file
from sphinx_external_toc.parsing import parse_toc_yaml

from vae_utils.page import glued_in

FORMULA_SIGNS = {"mid": "|", "log": "log ", "Vert": "‖", "sim": "∼ ", "ge": "≥ ", "le": "≤ "}
FORMULA_SIGNS |= {"mu": "μ", "sigma": "σ", "theta": "θ", "phi": "φ", "varepsilon": "ε", "beta": "β"}
GLOSSARY = r"```\{glossary\}\n(.+?)\n```"
LABELLED = r"^\(([\w-]+)\)=\n"
EQUATION = re.compile(r"\$\$(?P<body>(?:(?!\$\$).)+?)\$\$ *\((?P<label>[\w-]+)\)", re.S)
EXERCISE = re.compile(r"```\{exercise-start\} *(?P<title>.*)\n:label: (?P<label>\S+)\n```\n")
SOLUTION = re.compile(r"```\{solution-start\} (?P<label>\S+)\n(?::.*\n)*```\n?")
END = re.compile(r"```\{(?:exercise|solution)-end\}\n```\n?")
FENCED = re.compile(
    r"^(?P<fence>:{3,}|`{3,})\{(?P<kind>\w+)\} *(?P<title>.*)\n(?P<body>(?:.*\n)*?)(?P=fence) *$",
    re.M,
)
ROLE = re.compile(r"\{(?P<role>[a-z:]+)\}`(?P<content>[^`]+)`")
TARGET = re.compile(r"(?P<text>.*?)\s*<(?P<target>[^<>]+)>", re.S)


def setup(app):
    app.connect("build-finished", _write_downloads)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _write_downloads(app, error):
    from jupyter_cache import get_cache  # here, since Binder writes working copies without it

    if error is not None or app.builder.format != "html":
        return
    site = app.config.html_context.get("site")
    book = Book(Path(app.srcdir), lambda page: f"{site}{page}.html" if site else None)
    cache = get_cache(app.config.nb_execution_cache_path)
    for page in app.env.found_docs:
        source = app.env.doc2path(page)
        if source.endswith(".ipynb"):
            written = nbformat.read(source, as_version=4)
            try:
                _, executed = cache.merge_match_into_notebook(written)
            except KeyError:  # it failed, which the build has said
                continue
            plain = book.plain(written, glued_in(executed).__getitem__)
            nbformat.write(plain, Path(app.outdir, "_sources", f"{page}.ipynb"))


class Book:
    """What the pages refer to: titles, numbers of figures, equations and exercises, terms, works.

    Args:
        root: `Path` of the checkout.
        link: function of a page ("book/05_latent_plot/2_decoded_plane"), returns where it can be
            opened, or None.
        directives: whether the reader's editor knows MyST's boxes and folds, as JupyterLab with
            `jupyterlab-myst` does; they stay as they are then.
    """

    def __init__(self, root, link, directives=False):
        self.link, self.directives = link, directives
        self.titles, self.figures, self.equations = {}, {}, {}
        self.exercises, self.exercise_titles, self.sections = {}, {}, {}
        toc = parse_toc_yaml(root / "_toc.yml")
        chapter, without_number = 0, [toc.root.docname]
        for part in toc.root.subtrees:
            for first in part.items:
                pages = [first, *(page for tree in toc[first].subtrees for page in tree.items)]
                if part.numbered:
                    chapter += 1
                    self._index(root, f"{chapter}.", pages)
                else:
                    without_number += pages
        self._index(root, "", without_number)
        self.terms = _terms((root / "book" / "glossary.md").read_text())
        self.works = parse_file(root / "book" / "references.bib").entries

    def _index(self, root, chapter, pages):
        """Note what pages hold; figures, equations and exercises are counted, after "5." or ""."""
        texts = {page: _read(root / page) for page in pages}
        self.titles |= {page: re.search(r"^# (.+)", texts[page][0], re.M)[1] for page in pages}
        whole = "\n\n".join(text for text, _ in texts.values())
        exercises = [(match["label"], match["title"]) for match in EXERCISE.finditer(whole)]
        for found, labels in (
            (self.figures, [name for _, figures in texts.values() for name in figures]),
            (self.equations, [match["label"] for match in EQUATION.finditer(whole)]),
            (self.exercises, [label for label, _ in exercises]),
        ):
            found |= {label: f"{chapter}{number}" for number, label in enumerate(labels, 1)}
        self.exercise_titles |= dict(exercises)
        for page, (text, _) in texts.items():
            for label, heading in re.findall(LABELLED + r"#+ (.+)", text, flags=re.M):
                self.sections[label] = (page, heading)

    def with_links(self, link):
        """Return the same book with other links."""
        other = copy.copy(self)
        other.link = link
        return other

    def plain(self, chapter, number):
        """Return a copy of the notebook in plain Markdown.

        Args:
            chapter: a notebook, as nbformat reads it.
            number: function of a name that `glue` was given, returns the text to show.
        """
        cells = []
        for cell in copy.deepcopy(chapter).cells:
            if cell.cell_type == "markdown":
                cells += self._markdown_cells(cell, number)
            else:
                cells.append(cell)
                if figure := _figure(cell):
                    caption = self.text(figure["caption"], number).strip()
                    text = f"**Figure {self.figures[figure['name']]}.** {caption}"
                    cells.append(nbformat.v4.new_markdown_cell(text, id=f"{cell.id}-caption"))
        return nbformat.v4.new_notebook(cells=cells, metadata=chapter.metadata)

    def page(self, text, number=str):
        """Return a page that is no notebook as plain Markdown; `number` is as in `plain`."""
        text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S)
        text = re.sub(r"```\{raw\} html\n(?:.*\n)*?```\n", "", text)
        text = re.sub(r"```\{bibliography\}\n(?:.*\n)*?```", lambda _: self._bibliography(), text)
        if re.search(GLOSSARY, text, re.S):
            entries = [f"**{', '.join(names)}**: {meaning}" for names, meaning in _glossary(text)]
            text = re.sub(GLOSSARY, lambda _: "\n\n".join(entries), text, flags=re.S)
        return self.text(text, number).strip()

    def _markdown_cells(self, cell, number):
        """Return the cell in plain Markdown, cut so that each solution's heading opens a cell."""
        cuts = [0, *(match.start() for match in SOLUTION.finditer(cell.source)), len(cell.source)]
        cells = []
        for place, (start, end) in enumerate(pairwise(cuts)):
            source = cell.source[start:end]
            text = self.text(source, number).strip()
            if not text:
                continue
            part = nbformat.v4.new_markdown_cell(text, id=cell.id + (f"-{place}" if place else ""))
            if SOLUTION.match(source):  # what JupyterLab keeps folded, also when all cells are run
                part.metadata["jp-MarkdownHeadingCollapsed"] = True
            cells.append(part)
        return cells

    def text(self, text, number):
        """Return MyST text as plain Markdown."""
        text = re.sub(LABELLED, "", text, flags=re.M)
        text = EQUATION.sub(self._equation, text)
        text = EXERCISE.sub(self._exercise, text)
        text = SOLUTION.sub(self._solution, text)
        text = END.sub("", text + "\n")
        if not self.directives:
            text = FENCED.sub(_block, text)
        return ROLE.sub(lambda match: self._role(match, number), text)

    def _equation(self, match):
        # JupyterLab's MyST would add a number of its own to a tag.
        number = self.equations[match["label"]]
        tag = rf"\qquad \text{{({number})}}" if self.directives else rf"\tag{{{number}}}"
        return f"$${match['body'].rstrip()} {tag}\n$$"

    def _exercise(self, match):
        label = match["label"]
        return f"### Exercise {self.exercises[label]}: {self.exercise_titles[label]}\n\n"

    def _solution(self, match):
        return f"### Solution of exercise {self.exercises[match['label']]}\n\n"

    def _role(self, match, number):
        role, content = match["role"], match["content"]
        with_target = TARGET.fullmatch(content)
        text, target = (
            (with_target["text"], with_target["target"]) if with_target else (None, content)
        )
        if role == "glue:text":
            return number(content)
        if role == "numref":
            return f"Figure {self.figures[target]}"
        if role == "eq":
            return f"({self.equations[target]})"
        if role == "term":
            return self._linked(text or target, "book/glossary", self.terms[target.lower()])
        if role == "doc":
            return self._linked(text or self.titles[target[1:]], target[1:])
        if role == "ref":
            return self._reference(target, text)
        if role in ("cite:t", "cite:p"):
            return self._citations([key.strip() for key in content.split(",")], role)
        raise ValueError(f"No plain text is known for the role {match[0]}")

    def _linked(self, text, page, title=None):
        """Return a link to a page of the book; where the page cannot be opened, the text alone."""
        if not (target := self.link(page)):
            return text
        if not title:
            return f"[{text}]({target})"
        if self.directives:  # JupyterLab's MyST drops the title of a link
            meaning = title.translate(str.maketrans("()", "[]"))
            return f"[{{abbr}}`{text} ({meaning})`]({target})"
        return '[{}]({} "{}")'.format(text, target, title.replace('"', "'"))

    def _reference(self, label, text):
        if label in self.exercises:
            return text or f"exercise {self.exercises[label]}"
        if label in self.sections:
            page, heading = self.sections[label]
            return self._linked(text or heading, page)
        return self._linked(text or self.titles["book/replication"], "book/replication")

    def _citations(self, keys, role):
        form, between = ("{} ({})", ", ") if role == "cite:t" else ("{}, {}", "; ")
        works = [self.works[key] for key in keys]
        links = between.join(
            f"[{form.format(_authors(work), work.fields['year'])}]({_address(work)})"
            for work in works
        )
        return links if role == "cite:t" else f"({links})"

    def _bibliography(self):
        """Return all works as a Markdown list, in the order of their authors."""
        works = sorted(self.works.values(), key=lambda w: (_authors(w).lower(), w.fields["year"]))
        return "\n".join(
            f"- {_authors(work)} ({work.fields['year']}). [{_title(work)}]({_address(work)})"
            for work in works
        )


def _read(path):
    """Return a page's text and the names of its figures."""
    if path.with_suffix(".md").exists():
        text = path.with_suffix(".md").read_text()
        return text, re.findall(r"^ +name: (fig-\S+)$", text, re.M)
    notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return text, [figure["name"] for cell in notebook.cells if (figure := _figure(cell))]


def _figure(cell):
    return cell.metadata.get("mystnb", {}).get("figure")


def _block(match):
    """Return a directive as Markdown: an answer that folds, or a quoted box."""
    title, body = match["title"], re.sub(r"^:.*\n", "", match["body"], flags=re.M).strip()
    if match["kind"] == "dropdown":
        return f"<details>\n<summary>{title}</summary>\n\n{body}\n\n</details>"
    heading = title or match["kind"].capitalize()
    return textwrap.indent(f"**{heading}.** {body}", "> ", lambda line: True)


def _glossary(page):
    """Return the glossary's entries: the names of a term, and its meaning in MyST."""
    block = re.search(GLOSSARY, page, re.S)[1]
    entries = [entry.splitlines() for entry in re.split(r"\n\n(?=\S)", block)]
    return [
        (
            [line for line in entry if line and not line.startswith(" ")],
            " ".join(line.strip() for line in entry if line.startswith(" ")),
        )
        for entry in entries
    ]


def _terms(page):
    """Return for each term the first sentence of its meaning that a link's title can hold."""
    meanings = {}
    for names, text in _glossary(page):
        text = ROLE.sub(lambda m: "" if "cite" in m[1] else m[2].split("<")[0].strip(), text)
        text = re.sub(r"\$([^$]+)\$", lambda formula: _in_words(formula[1]), text)
        parts = [part for part in re.split(r"(?<=[.:;]) ", text) if len(part.split()) > 3]
        sentences = [part for part in parts if not re.search(r"[\\`{_^]", part)]
        meaning = re.sub(r"\s+([.,:;])", r"\1", sentences[0].rstrip(":;")) if sentences else None
        meanings |= dict.fromkeys((name.lower() for name in names), meaning)
    return meanings


def _in_words(formula):
    """Return a short formula as text; what is not known keeps its backslash."""
    for name, sign in FORMULA_SIGNS.items():
        formula = re.sub(rf"\\{name}(?![a-zA-Z])\s*", sign, formula)
    return re.sub(r"\\(?:operatorname|mathcal)\s*\{?(\w+)\}?", r"\1", formula)


def _authors(work):
    names = [
        " ".join(person.prelast_names + person.last_names) for person in work.persons["author"]
    ]
    names = [re.sub(r"[{}]", "", name) for name in names]
    if len(names) > 2:
        return f"{names[0]} et al."
    return " and ".join(names)


def _title(work):
    return re.sub(r"[{}]", "", work.fields["title"])


def _address(work):
    fields = work.fields
    return fields["url"] if "url" in fields else f"https://doi.org/{fields['doi']}"
