"""The chapters keep the rules that CONTRIBUTING.md gives them."""

import ast
import re
from pathlib import Path
from statistics import median

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parent.parent
FRAME = (
    "What you will learn",
    "Before you start",
    "Summary",
    "Exercises",
    "Check yourself",
    "Further reading",
)


def chapter_paths():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    pages = [page["file"] for part in toc["parts"] for page in part["chapters"]]
    return [path for page in pages if (path := ROOT / f"{page}.ipynb").exists()]


@pytest.fixture(params=chapter_paths(), ids=lambda path: path.stem)
def chapter(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(chapter):
    return [cell for cell in chapter.cells if cell.cell_type == "code"]


def prose(chapter):
    return "\n\n".join(cell.source for cell in chapter.cells if cell.cell_type == "markdown")


def section(chapter, title):
    return re.split(r"^## ", prose(chapter).split(f"## {title}", 1)[1], flags=re.M)[0]


def test_every_notebook_stands_in_the_table_of_contents():
    assert set(ROOT.glob("book/*.ipynb")) == set(chapter_paths())


def test_a_chapter_has_the_frame(chapter):
    headings = re.findall(r"^## (.+)$", prose(chapter), flags=re.M)
    assert chapter.cells[0].source.startswith("# ")
    assert [heading for heading in headings if heading in FRAME] == list(FRAME)
    assert headings[:2] == list(FRAME[:2])
    assert headings[-4:] == list(FRAME[-4:])


def test_a_chapter_says_what_is_learned_and_how_long_it_takes(chapter):
    opening = section(chapter, "What you will learn")
    assert 3 <= len(re.findall(r"^[-*] ", opening, flags=re.M)) <= 5
    assert re.search(r"\*\*Time\*\*: \d+ minutes to read, \d+ seconds to run on two cores", opening)


def test_the_front_page_says_the_same_times():
    front = (ROOT / "book" / "index.md").read_text()
    for path in chapter_paths():
        opening = section(nbformat.read(path, as_version=4), "What you will learn")
        read, run = re.search(r"Time\*\*: (\d+) minutes to read, (\d+) seconds", opening).groups()
        row = next(
            line for line in front.splitlines() if line.startswith(f"| {{doc}}`{path.stem}`")
        )
        assert f"| {read}&nbsp;min | {run}&nbsp;s |" in row, path.stem


def test_cells_are_short(chapter):
    cells = [cell.source.splitlines() for cell in code_cells(chapter) if cell.id != "imports"]
    lengths = [len(lines) for lines in cells]
    assert max(lengths) <= 20
    assert median(lengths) <= 6
    assert max(len(line) for lines in cells for line in lines) <= 76


def test_code_cells_are_plain_python_with_its_imports_in_one_cell(chapter):
    importing = []
    for cell in code_cells(chapter):
        tree = ast.parse(cell.source)  # a magic or a shell command is no Python
        if any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(tree)):
            importing.append(cell.id)
    assert len(importing) == 1


def test_every_seed_of_a_chapter_comes_from_one_place(chapter):
    seed = [cell for cell in code_cells(chapter) if "parameters" in cell.metadata.get("tags", [])]
    assert [cell.source for cell in seed] == ["SEED = 0"]
    code = "\n".join(cell.source for cell in code_cells(chapter))
    assert "keras.utils.set_random_seed(SEED)" in code
    generators = "set_random_seed|default_rng|RandomState|SeedGenerator"
    assert re.findall(rf"(?:{generators})\(\s*\d+|(?:seed|random_state)=\d+", code) == []


def test_the_data_are_loaded_once_in_a_cell_that_says_so(chapter):
    assert sum("load_digits()" in cell.source for cell in code_cells(chapter)) == 1


def test_a_chapter_stores_no_outputs(chapter):
    for cell in code_cells(chapter):
        assert not cell.outputs, cell.id
        assert cell.execution_count is None, cell.id


def test_a_verdict_is_a_sentence_and_a_cell_of_asserts(chapter):
    verdicts = [cell for cell in code_cells(chapter) if "verdict" in cell.metadata]
    sentences = [cell.metadata["verdict"] for cell in verdicts]
    assert len(set(sentences)) == len(sentences)
    for cell, sentence in zip(verdicts, sentences):
        assert re.fullmatch(r"[^a-z].*\.", sentence), cell.id
        assert len(sentence.split()) >= 4, cell.id
        assert set(map(type, ast.parse(cell.source).body)) <= {ast.Assert, ast.If, ast.For}, cell.id
        assert "assert " in cell.source, cell.id


def test_a_chapter_keeps_no_state_of_its_controls(chapter):
    assert "widgets" not in chapter.metadata  # which would hold pictures


def figure_cells(chapter):
    return [cell for cell in code_cells(chapter) if "figure" in cell.metadata.get("mystnb", {})]


def test_a_chapter_has_four_figures_and_each_is_named_captioned_described_and_cited(chapter):
    assert len(figure_cells(chapter)) >= 4
    text = prose(chapter)
    for cell in figure_cells(chapter):
        figure = cell.metadata["mystnb"]["figure"]
        assert figure["name"].startswith("fig-")
        assert len(figure["caption"].split()) >= 5, figure["name"]
        assert len(cell.metadata["mystnb"]["image"]["alt"].split()) >= 15, figure["name"]
        assert f"{{numref}}`{figure['name']}`" in text, figure["name"]


def test_every_cell_that_ends_with_a_figure_describes_it(chapter):
    for cell in code_cells(chapter):
        last = cell.source.splitlines()[-1]
        if re.fullmatch(r"fig(ure)?;?|plots\.\w+\(.*\);?", last):
            assert "alt" in cell.metadata.get("mystnb", {}).get("image", {}), cell.id


def test_chapters_write_alike(chapter):
    unlike = r"\w+n't\b|\\mathrm\{KL\}|\]\(\d\d_\w+\.ipynb\)"
    assert re.findall(unlike, prose(chapter)) == []


def test_every_quoted_number_is_glued(chapter):
    code = "\n".join(cell.source for cell in code_cells(chapter))
    names = re.findall(r'glue\(\s*f?"([^"]+)"', code)
    glued = re.compile("|".join(re.sub(r"\{[^}]*\}", r"[\\w-]+", name) for name in names))
    for quoted in re.findall(r"\{glue:text\}`([^`]+)`", prose(chapter)):
        assert glued.fullmatch(quoted), quoted


def test_every_exercise_has_a_hidden_solution_that_prints(chapter):
    exercises, solutions, inside = [], {}, None
    for cell in chapter.cells:
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
    assert len(exercises) >= 3
    assert set(solutions) == set(exercises)
    for label, source in solutions.items():
        assert "print(" in source or "plots." in source, label
    assert prose(chapter).count(":class: dropdown") >= len(exercises)


def answers(chapter):
    """Return for each question its answers: letter, what is offered, and whether it is right."""
    questions = re.split(r"^\*\*\d+\. ", section(chapter, "Check yourself"), flags=re.M)[1:]
    form = r"\{dropdown\} ([A-D])\. (.+)\n(.+)"
    return [
        [(letter, offered, reply.startswith("Right")) for letter, offered, reply in found]
        for found in (re.findall(form, question) for question in questions)
    ]


def test_check_yourself_asks_four_questions_that_answer_back(chapter):
    assert len(answers(chapter)) >= 4
    for question in answers(chapter):
        assert len(question) >= 3, question
        assert [letter for letter, _, _ in question] == list("ABCD"[: len(question)])
        assert sum(right for _, _, right in question) == 1, question


def right_answers(chapter):
    return [(letter, offered) for q in answers(chapter) for letter, offered, right in q if right]


def test_the_right_answers_of_a_chapter_stand_at_different_places(chapter):
    letters = [letter for letter, _ in right_answers(chapter)]
    assert max(map(letters.count, letters)) <= 0.6 * len(letters)


def test_neither_place_nor_length_gives_the_right_answers_of_the_book_away():
    asked = [q for path in chapter_paths() for q in answers(nbformat.read(path, as_version=4))]
    at_place = [sum(q[place][2] for q in asked if len(q) > place) for place in range(3)]
    assert max(at_place) <= 0.45 * len(asked)
    assert min(at_place) >= 0.2 * len(asked)
    longest = [max(q, key=lambda answer: len(answer[1]))[2] for q in asked]
    assert sum(longest) <= 0.5 * len(asked)


def test_cell_ids_say_what_a_cell_is_about(chapter):
    ids = [cell.id for cell in chapter.cells]
    assert len(set(ids)) == len(ids)
    assert not any(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", cell_id) for cell_id in ids)
