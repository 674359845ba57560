"""The pages keep the rules that CONTRIBUTING.md gives them."""

import ast
import math
import re
from itertools import groupby
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import nbformat
import pytest
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).parent.parent
FRAME = (
    "What you will learn",
    "Before you start",
    "Summary",
    "Exercises",
    "Check yourself",
    "Further reading",
)


WORDS, MINUTES, SECONDS, CELLS = 3000, 25, 60, 105  # one sitting
WORDS_A_MINUTE, SECONDS_A_CELL = 200, 10
CODE_IN_A_ROW = 9


def page_paths():
    pages = parse_toc_yaml(ROOT / "_toc.yml")
    return [path for page in pages if (path := ROOT / f"{page}.ipynb").exists()]


def name(path):
    return f"{path.parent.name}/{path.stem}"


def chapters():
    """Return for each chapter its folder and its pages, read."""
    groups = groupby(page_paths(), key=lambda path: path.parent)
    return [(folder, [nbformat.read(p, as_version=4) for p in paths]) for folder, paths in groups]


@pytest.fixture(params=page_paths(), ids=name)
def page_path(request):
    return request.param


@pytest.fixture
def page(page_path):
    return nbformat.read(page_path, as_version=4)


@pytest.fixture(params=chapters(), ids=lambda chapter: chapter[0].name)
def chapter(request):
    """All cells of a chapter's pages, in one."""
    _, pages = request.param
    return SimpleNamespace(cells=[cell for page in pages for cell in page.cells])


def code_cells(page):
    return [cell for cell in page.cells if cell.cell_type == "code"]


def prose(page):
    return "\n\n".join(cell.source for cell in page.cells if cell.cell_type == "markdown")


def section(page, title):
    return re.split(r"^## ", prose(page).split(f"## {title}", 1)[1], flags=re.M)[0]


def test_every_notebook_stands_in_the_table_of_contents():
    assert set(ROOT.glob("book/**/*.ipynb")) == set(page_paths())


def test_a_page_has_the_frame(page):
    headings = re.findall(r"^## (.+)$", prose(page), flags=re.M)
    assert page.cells[0].source.startswith("# ")
    assert [heading for heading in headings if heading in FRAME] == list(FRAME)
    assert headings[:2] == list(FRAME[:2])
    assert headings[-4:] == list(FRAME[-4:])


def test_a_page_says_what_is_learned(page):
    opening = section(page, "What you will learn")
    assert 2 <= len(re.findall(r"^[-*] ", opening, flags=re.M)) <= 5


def times(page):
    """Return the minutes to read and the seconds to run that a page states."""
    form = r"\*\*Time\*\*: (\d+) minutes to read, (\d+) seconds to run on two cores\b"
    return tuple(map(int, re.search(form, section(page, "What you will learn")).groups()))


def open_code_cells(page):
    """Return the code cells that stand open on the site: not folded, and in no solution."""
    cells, in_solution = [], False
    for cell in page.cells:
        if cell.cell_type == "markdown":
            for edge in re.findall(r"\{solution-(start|end)\}", cell.source):
                in_solution = edge == "start"
        elif not in_solution and "hide-input" not in cell.metadata.get("tags", []):
            cells.append(cell)
    return cells


def test_a_page_is_one_sitting(page):
    words = len(re.findall(r"\w+(?:['’-]\w+)*", prose(page)))
    assert words <= WORDS
    assert len(page.cells) <= CELLS
    minutes = words / WORDS_A_MINUTE + len(open_code_cells(page)) * SECONDS_A_CELL / 60
    to_read, to_run = times(page)
    assert to_read in (math.ceil(minutes), math.ceil(minutes) + 1)
    assert to_read <= MINUTES
    assert to_run <= SECONDS


def test_code_is_not_left_alone_for_long(page):
    """What a reader sees as cells of code one after the other, with nothing said in between."""
    shown = {id(cell) for cell in open_code_cells(page)}
    in_a_row = 0
    for cell in page.cells:
        if cell.cell_type == "markdown":
            in_a_row = 0
        elif id(cell) in shown and "remove-cell" not in cell.metadata.get("tags", []):
            in_a_row += 1
        assert in_a_row <= CODE_IN_A_ROW, cell.id


@pytest.mark.parametrize("chapter", chapters(), ids=lambda chapter: chapter[0].name)
def test_a_chapter_and_the_front_page_say_the_same_times(chapter):
    folder, pages = chapter
    overview = (folder / "index.md").read_text()
    stated = [times(page) for page in pages]
    rows = re.findall(
        r"^\| \{doc\}`/book/(\S+)` .* (\d+)&nbsp;min \| (\d+)&nbsp;s \|$", overview, re.M
    )
    names = [name(path) for path in page_paths() if path.parent == folder]
    assert rows == [(page, str(read), str(run)) for page, (read, run) in zip(names, stated)]
    front = (ROOT / "book" / "index.md").read_text()
    row = next(line for line in front.splitlines() if f"`/book/{folder.name}/index`" in line)
    read, run = map(sum, zip(*stated))
    assert f"| {len(pages)} | {read}&nbsp;min | {run}&nbsp;s |" in row


def test_cells_are_short(page):
    cells = [cell.source.splitlines() for cell in code_cells(page) if cell.id != "imports"]
    lengths = [len(lines) for lines in cells]
    assert max(lengths) <= 20
    assert median(lengths) <= 6
    assert max(len(line) for lines in cells for line in lines) <= 76


def test_code_cells_are_plain_python_with_its_imports_in_one_cell(page):
    importing = []
    for cell in code_cells(page):
        tree = ast.parse(cell.source)  # a magic or a shell command is no Python
        if any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(tree)):
            importing.append(cell.id)
    assert len(importing) == 1


def test_keras_is_loaded_without_a_greeting(page):
    """By a module that imports `quiet`, before the page imports Keras itself."""
    (imports,) = [cell.source for cell in code_cells(page) if cell.id == "imports"]
    quiet = [p.stem for p in ROOT.glob("vae_utils/*.py") if "import quiet" in p.read_text()]
    before, keras, _ = re.sub(r"vae_utils\.page", "", imports).partition("keras")
    assert not keras or re.search(rf"\b({'|'.join(quiet)})\b", before)


def test_a_page_runs_where_only_the_module_is(page):
    """As on Colab: a file of the repository may be missing."""
    for cell in code_cells(page):
        if "../" in cell.source:
            assert ".exists()" in cell.source, cell.id


def test_every_seed_of_a_page_comes_from_one_place(page):
    seed = [cell for cell in code_cells(page) if "parameters" in cell.metadata.get("tags", [])]
    assert [cell.source for cell in seed] == ["SEED = 0"]
    code = "\n".join(cell.source for cell in code_cells(page))
    general = "keras.utils.set_random_seed" if "import keras" in code else "np.random.default_rng"
    assert f"{general}(SEED)" in code
    generators = "set_random_seed|default_rng|RandomState|SeedGenerator"
    assert re.findall(rf"(?:{generators})\(\s*\d+|(?:seed|random_state)=\d+", code) == []


def test_the_data_are_loaded_once_in_a_cell_that_says_so(page):
    assert sum("load_digits()" in cell.source for cell in code_cells(page)) == 1


def test_a_page_stores_no_outputs(page):
    for cell in code_cells(page):
        assert not cell.outputs, cell.id
        assert cell.execution_count is None, cell.id


def test_a_verdict_is_a_sentence_and_a_cell_of_asserts(page):
    verdicts = [cell for cell in code_cells(page) if "verdict" in cell.metadata]
    sentences = [cell.metadata["verdict"] for cell in verdicts]
    assert len(set(sentences)) == len(sentences)
    for cell, sentence in zip(verdicts, sentences):
        assert re.fullmatch(r"[^a-z].*\.", sentence), cell.id
        assert len(sentence.split()) >= 4, cell.id
        assert set(map(type, ast.parse(cell.source).body)) <= {ast.Assert, ast.If, ast.For}, cell.id
        assert "assert " in cell.source, cell.id


def test_a_page_keeps_no_state_of_its_controls(page):
    assert "widgets" not in page.metadata  # which would hold pictures


def figure_cells(page):
    return [cell for cell in code_cells(page) if "figure" in cell.metadata.get("mystnb", {})]


def test_a_chapter_has_four_figures(chapter):
    assert len(figure_cells(chapter)) >= 4


def test_a_page_has_figures_and_each_is_named_captioned_described_and_cited(page):
    assert figure_cells(page)
    text = prose(page)
    for cell in figure_cells(page):
        figure = cell.metadata["mystnb"]["figure"]
        assert figure["name"].startswith("fig-")
        assert len(figure["caption"].split()) >= 5, figure["name"]
        assert len(cell.metadata["mystnb"]["image"]["alt"].split()) >= 15, figure["name"]
        assert f"{{numref}}`{figure['name']}`" in text, figure["name"]


def test_every_cell_that_ends_with_a_figure_describes_it(page):
    for cell in code_cells(page):
        last = cell.source.splitlines()[-1]
        if re.fullmatch(r"fig(ure)?;?|plots\.\w+\(.*\);?", last):
            assert "alt" in cell.metadata.get("mystnb", {}).get("image", {}), cell.id


def test_pages_write_alike(page):
    unlike = r"\w+n't\b|\\mathrm\{KL\}|\]\(\d\d_\w+\.ipynb\)"
    assert re.findall(unlike, prose(page)) == []


def test_every_quoted_number_is_glued(page):
    code = "\n".join(cell.source for cell in code_cells(page))
    names = re.findall(r'glue\(\s*f?"([^"]+)"', code)
    glued = re.compile("|".join(re.sub(r"\{[^}]*\}", r"[\\w-]+", name) for name in names))
    for quoted in re.findall(r"\{glue:text\}`([^`]+)`", prose(page)):
        assert glued.fullmatch(quoted), quoted


def test_every_exercise_has_a_hidden_solution_that_prints(page):
    exercises, solutions, inside = [], {}, None
    for cell in page.cells:
        if cell.cell_type == "code":
            if inside:
                solutions[inside] += cell.source
            continue
        for start, label in re.findall(
            r"```\{(?:exercise-start\}.*\n:label: (\S+)|solution-start\} (\S+)|solution-end\})",
            cell.source,
        ):
            if start:
                exercises.append(start)
            inside = label or None
            if inside:
                solutions[inside] = ""
    assert exercises
    assert set(solutions) == set(exercises)
    for label, source in solutions.items():
        assert "print(" in source or "plots." in source, label
    assert prose(page).count(":class: dropdown") >= len(exercises)


def test_a_chapter_has_three_exercises_and_four_questions(chapter):
    assert prose(chapter).count("{exercise-start}") >= 3
    assert len(answers(chapter)) >= 4


def answers(page):
    """Return for each question its answers: letter, what is offered, and whether it is right."""
    questions = re.split(r"^\*\*\d+\. ", prose(page), flags=re.M)[1:]
    form = r"\{dropdown\} ([A-D])\. (.+)\n(.+)"
    return [
        [(letter, offered, reply.startswith("Right")) for letter, offered, reply in found]
        for found in (re.findall(form, question) for question in questions)
    ]


def test_check_yourself_asks_questions_that_answer_back(page):
    assert len(answers(page)) >= 2
    for question in answers(page):
        assert len(question) >= 3, question
        assert [letter for letter, _, _ in question] == list("ABCD"[: len(question)])
        assert sum(right for _, _, right in question) == 1, question


def right_answers(page):
    return [(letter, offered) for q in answers(page) for letter, offered, right in q if right]


def test_the_right_answers_of_a_chapter_stand_at_different_places(chapter):
    letters = [letter for letter, _ in right_answers(chapter)]
    assert max(map(letters.count, letters)) <= 0.6 * len(letters)


def test_neither_place_nor_length_gives_the_right_answers_of_the_book_away():
    asked = [q for path in page_paths() for q in answers(nbformat.read(path, as_version=4))]
    at_place = [sum(q[place][2] for q in asked if len(q) > place) for place in range(3)]
    assert max(at_place) <= 0.45 * len(asked)
    assert min(at_place) >= 0.2 * len(asked)
    longest = [max(q, key=lambda answer: len(answer[1]))[2] for q in asked]
    assert sum(longest) <= 0.5 * len(asked)


def test_cell_ids_say_what_a_cell_is_about(page):
    ids = [cell.id for cell in page.cells]
    assert len(set(ids)) == len(ids)
    assert not any(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", cell_id) for cell_id in ids)
