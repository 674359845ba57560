"""The page "With another seed?": what `make replicate` found, in tables, chapter by chapter.

The sentences come from the chapters as they are now, the results from the file that
`benchmarks/replicate.py` wrote. A row without results says so.
"""

import json
import re
from pathlib import Path

import nbformat

PAGE = "book/replication"
RESULTS = "benchmarks/replication.json"
HERE = "{replication-tables}"
SOURCES = ("MNIST", "bundled digits")
PARTS = re.compile(r"\n\n|\n(?=\s*(?:-|\d+\.) )|(?<=[.?!:]) ")
FEW_WORDS = 3  # with fewer around a number, the sentence before it is needed
GLUED = re.compile(r"\{glue:text\}`([^`]+)`")


def setup(app):
    app.connect("source-read", _fill_in)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _fill_in(app, docname, source):
    if docname == PAGE:
        root = Path(app.srcdir)
        app.env.note_dependency(root / RESULTS)
        chapters = [root / f"{name}.ipynb" for name in sorted(app.env.found_docs)]
        source[0] = source[0].replace(HERE, tables(root, filter(Path.exists, chapters)))


def tables(root, chapters):
    """Return Markdown: for each chapter its verdicts, then its numbers, folded."""
    results = json.loads((root / RESULTS).read_text())
    sections = [f"Measured on {results['made']}."]
    for path in chapters:
        notebook = nbformat.read(path, as_version=4)
        name = f"{path.parent.name}/{path.stem}"
        sections.append(_section(name, notebook, results["pages"].get(name, {})))
    return "\n\n".join(sections)


def _section(name, notebook, sources):
    title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
    verdicts = [
        [cell.metadata["verdict"], *(_held(sources.get(s, {}), cell.id) for s in SOURCES)]
        for cell in notebook.cells
        if "verdict" in cell.metadata
    ]
    numbers = [
        [sentence, *(_median_and_range(sources.get(s, {}), key) for s in SOURCES)]
        for key, sentence in _quoted(notebook).items()
    ]
    return "\n\n".join(
        [
            f"(replication-{name.replace('/', '-')})=\n## {title}",
            _table(["verdict", *SOURCES], verdicts) if verdicts else "No verdict is asserted here.",
            f":::{{dropdown}} The numbers that its text quotes ({len(numbers)})",
            _table(["number", *SOURCES], numbers),
            ":::",
        ]
    )


def _held(runs, verdict):
    held = [run["verdicts"][verdict] for run in runs.values() if verdict in run["verdicts"]]
    return f"{sum(held)} of {len(held)}" if held else "not yet run"


def _median_and_range(runs, key):
    """Return the texts of the middle run and of the ends; words are counted instead."""
    texts = [run["numbers"][key] for run in runs.values() if key in run["numbers"]]
    if not texts:
        return "not yet run"
    if any(_value(text) is None for text in texts):
        return ", ".join(
            f"{text} ({texts.count(text)} of {len(texts)})" for text in sorted(set(texts))
        )
    low, *_, high = ordered = sorted(texts, key=_value) if len(texts) > 1 else texts * 2
    middle = ordered[(len(ordered) - 1) // 2]
    return middle if low == high else f"{middle} ({low} to {high})"


def _value(text):
    found = re.search(r"[-−]?\d[\d,]*\.?\d*", text)
    return float(found[0].replace("−", "-").replace(",", "")) if found else None


def _quoted(notebook):
    """Return for each glued name the first sentence that quotes it, with the number as a blank."""
    sentences = {}
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        for key in GLUED.findall(cell.source):
            sentences.setdefault(key, _sentence(cell.source, key))
    return sentences


def _sentence(text, key):
    """Return what stands around a number: its sentence or item, without boxes and emphasis."""
    text = re.sub(r"^:::.*$", "", text, flags=re.M)
    text = re.sub(r"\*\*|(?<![\w^*])\*(?=[^\s*])|(?<=[^\s*^])\*(?![\w*])", "", text)
    parts = [part for part in PARTS.split(text) if part.strip()]
    place = next(i for i, part in enumerate(parts) if f"`{key}`" in part)
    alone = len(GLUED.sub("", parts[place]).split()) < FEW_WORDS
    around = " ".join(parts[max(place - alone, 0) : place + 1])
    blank = around.replace(f"{{glue:text}}`{key}`", "**[ ]**", 1)
    plain = re.sub(r"\{(?:doc|ref|numref|cite:t|cite:p|eq)\}`[^`]*`", "…", GLUED.sub("…", blank))
    plain = re.sub(r"\{term\}`([^`<]+?)\s*(?:<[^`]*>)?`", r"\1", plain)
    return re.sub(r"^(?:[-#]+|\d+\.) ", "", " ".join(plain.split()))


def _table(header, rows):
    cells = [[text.replace("|", r"\|") for text in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *cells])
