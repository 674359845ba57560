"""The chapters keep the rules that CONTRIBUTING.md gives them."""

import ast
import re
from pathlib import Path
from statistics import median

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parent.parent
COMPARED = "nbval-check-output"
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


def is_compared(cell):
    return COMPARED in cell.metadata.get("tags", [])


def test_every_notebook_stands_in_the_table_of_contents():
    assert set(ROOT.glob("book/*.ipynb")) == set(chapter_paths())


def test_a_chapter_has_the_frame(chapter):
    headings = re.findall(r"^## (.+)$", prose(chapter), flags=re.M)
    assert chapter.cells[0].source.startswith("# ")
    assert [heading for heading in headings if heading in FRAME] == list(FRAME)
    assert headings[:2] == list(FRAME[:2])
    assert headings[-4:] == list(FRAME[-4:])


def test_a_chapter_says_what_is_learnt_and_how_long_it_takes(chapter):
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
    lengths = [len(cell.source.splitlines()) for cell in code_cells(chapter)]
    assert max(lengths) <= 20
    assert median(lengths) <= 6
    assert max(len(line) for cell in code_cells(chapter) for line in cell.source.splitlines()) <= 88


def test_code_cells_are_plain_python_with_its_imports_in_one_cell(chapter):
    importing = []
    for cell in code_cells(chapter):
        tree = ast.parse(cell.source)  # a magic or a shell command is no Python
        if any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(tree)):
            importing.append(cell.id)
    assert len(importing) == 1


def test_a_chapter_sets_its_seed(chapter):
    assert any("keras.utils.set_random_seed(" in cell.source for cell in code_cells(chapter))


def test_the_data_are_loaded_once_in_a_cell_that_says_so(chapter):
    assert sum("load_digits()" in cell.source for cell in code_cells(chapter)) == 1


def test_only_compared_cells_store_outputs(chapter):
    for cell in code_cells(chapter):
        if is_compared(cell):
            assert cell.outputs, cell.id
            assert cell.execution_count is not None, cell.id
        else:
            assert not cell.outputs, cell.id
            assert cell.execution_count is None, cell.id


def test_a_chapter_keeps_no_state_of_its_controls(chapter):
    assert "widgets" not in chapter.metadata  # which would hold pictures


def test_a_chapter_has_compared_cells(chapter):
    assert any(is_compared(cell) for cell in code_cells(chapter))


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


def test_check_yourself_asks_four_questions_that_answer_back(chapter):
    questions = re.split(r"^\*\*\d+\. ", section(chapter, "Check yourself"), flags=re.M)[1:]
    assert len(questions) >= 4
    for question in questions:
        answers = re.findall(r"\{dropdown\} .+\n(.+)", question)
        assert len(answers) >= 2, question[:60]


def test_cell_ids_say_what_a_cell_is_about(chapter):
    ids = [cell.id for cell in chapter.cells]
    assert len(set(ids)) == len(ids)
    assert not any(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", cell_id) for cell_id in ids)
