"""The replication counts what held, goes on where it stopped, and the book's page shows it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import replication

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import replicate  # noqa: E402

CELLS = [
    ("SEED = 0", {"tags": ["parameters"]}),
    ("from vae_utils.page import glue\nglue('toy-number', f'{SEED / 10:.1f}')", {}),
    ("assert SEED < 300", {"verdict": "The seed is small."}),
    ("glue('toy-word', 'yes' if SEED else 'no')", {}),
]
TEXT = (
    "# A toy\n\nOf {term}`seed` we quote {glue:text}`toy-number` here. And {glue:text}`toy-word`."
)


@pytest.fixture
def toy(tmp_path):
    def written(cells):
        notebook = nbformat.v4.new_notebook()
        notebook.cells = [nbformat.v4.new_markdown_cell(TEXT, id="title")] + [
            nbformat.v4.new_code_cell(source, id=f"cell-{number}", metadata=metadata)
            for number, (source, metadata) in enumerate(cells)
        ]
        path = tmp_path / "toys" / "toy.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(notebook, path)
        return path

    return written


@pytest.fixture
def replicated(own_folders, tmp_path, toy):
    """Return a function that replicates a toy chapter; it returns the table and what was said."""
    images, labels = np.zeros((50, 28, 28), "uint8"), np.zeros(50, int)
    parts = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(tmp_path / "mnist.npz", **parts)

    def replicate(cells, seeds):
        output = tmp_path / "table.json"
        program = [sys.executable, ROOT / "benchmarks" / "replicate.py", toy(cells)]
        done = subprocess.run(
            [*program, "--seeds", str(seeds), "--output", output],
            env=os.environ | {"MNIST_NPZ": str(tmp_path / "mnist.npz")},
            capture_output=True,
            text=True,
        )
        assert output.exists(), done.stderr
        return json.loads(output.read_text())["pages"]["toys/toy"], done

    return replicate


def test_a_table_has_every_number_and_verdict_of_every_seed(replicated):
    sources, done = replicated(CELLS, 3)
    assert done.returncode == 0
    for runs in sources.values():
        numbers = {seed: run["numbers"]["toy-number"] for seed, run in runs.items()}
        assert numbers == {"0": "0.0", "100": "10.0", "200": "20.0"}
        assert [run["verdicts"] for run in runs.values()] == [{"cell-2": True}] * 3


def test_a_second_call_runs_what_is_new_and_says_what_failed(replicated, own_folders):
    replicated(CELLS, 3)
    kept = {path: path.stat().st_mtime_ns for path in own_folders.glob("replication/toys/*.json")}
    assert len(kept) == 6
    sources, done = replicated(CELLS, 4)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert len(list(own_folders.glob("replication/toys/*.json"))) == 8
    assert done.returncode == 1
    assert "toys/toy, cell-2 failed in MNIST 300, bundled digits 300" in done.stderr
    for runs in sources.values():
        held = [run["verdicts"]["cell-2"] for run in runs.values()]
        assert held == [True, True, True, False]
        assert runs["300"]["numbers"]["toy-word"] == "yes"  # a failed verdict stops nothing


def test_a_chapter_that_stops_is_reported_and_run_again(replicated, own_folders):
    sources, done = replicated([*CELLS[:2], ("1 / 0", {}), CELLS[2]], 1)
    assert done.returncode == 1
    assert "toys/toy, MNIST, seed 0 stopped: ZeroDivisionError" in done.stderr
    assert sources["MNIST"]["0"]["verdicts"] == {"cell-3": False}
    assert not list(own_folders.rglob("toys/*"))


def test_a_kernel_sees_the_images_that_its_source_has(replicated):
    name = "from vae_utils import data\nprint(data.load_digits().name)"
    look = "glue('toy-name', data.load_digits().name)"
    sources, done = replicated([*CELLS[:2], (name, {}), (look, {}), CELLS[2]], 1)
    assert done.returncode == 0, done.stderr
    names = {source: runs["0"]["numbers"]["toy-name"] for source, runs in sources.items()}
    assert names == {"MNIST": "MNIST", "bundled digits": "bundled digits"}


def test_a_change_of_code_or_verdict_runs_anew_and_a_change_of_text_does_not(toy):
    def digest(cells, text=TEXT):
        notebook = replicate.read(toy(cells))
        notebook.cells[0].source = text
        return replicate.digest(notebook)

    assert digest(CELLS) == digest(CELLS, "# Another title")
    assert digest(CELLS) != digest([("print(SEED)", {}), *CELLS])
    assert digest(CELLS) == digest([*CELLS, ("print('a solution')", {})])
    assert digest(CELLS) != digest([*CELLS[:2], (CELLS[2][0], {"verdict": "Another claim."})])


def test_a_chapter_without_its_seed_cell_is_refused(toy):
    notebook = nbformat.read(toy([("SEED = 3", {"tags": ["parameters"]})]), as_version=4)
    with pytest.raises(ValueError, match=r"SEED = 0. Received: \['SEED = 3'\]"):
        replicate.with_seed(notebook, 1)


def test_the_page_shows_how_often_a_verdict_held_and_how_far_a_number_went(toy, tmp_path):
    def run(number, held):
        texts = {"toy-number": number, "toy-word": "yes" if held else "no"}
        return {"numbers": texts, "verdicts": {"cell-2": held}}

    runs = {"0": run("−1.5 ± 2", True), "100": run("10.5", False), "200": run("9.5", True)}
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / replication.RESULTS).write_text(
        json.dumps({"made": "today", "pages": {"toys/toy": {"MNIST": runs}}})
    )
    text = replication.tables(tmp_path, [toy(CELLS)])
    assert "(replication-toys-toy)=\n## A toy" in text
    assert "| The seed is small. | 2 of 3 | not yet run |" in text
    assert "| Of seed we quote **[ ]** here. | 9.5 (−1.5 ± 2 to 10.5) | not yet run |" in text
    row = "| Of seed we quote … here. And **[ ]**. | no (1 of 3), yes (2 of 3) | not yet run |"
    assert row in text


def test_every_verdict_and_number_has_been_replicated_and_verdicts_held_in_nine_runs_of_ten():
    table = json.loads((ROOT / replication.RESULTS).read_text())["pages"]
    assert set(table) == {replicate.name(path) for path in replicate.pages()}
    for path in replicate.pages():
        notebook = nbformat.read(path, as_version=4)
        asserted = {cell.id for cell in notebook.cells if "verdict" in cell.metadata}
        quoted = set(replication._quoted(notebook))
        for source in replicate.SOURCES:
            runs = table[replicate.name(path)][source].values()
            assert len(runs) >= 5
            assert all(set(run["verdicts"]) == asserted for run in runs), (path.stem, source)
            lacking = [quoted - set(run["numbers"]) for run in runs]
            assert not any(lacking), (path.stem, source, lacking)
    assert replicate.failures(table) == []


def test_pages_that_are_not_run_again_keep_their_rows_unless_they_left_the_book(tmp_path):
    page = replicate.name(replicate.pages()[0])
    replicate.write(tmp_path / "table.json", {page: {"MNIST": {"0": "old"}}, "gone/1_page": {}})
    replicate.write(tmp_path / "table.json", {"toys/toy": {}})
    rows = json.loads((tmp_path / "table.json").read_text())["pages"]
    assert rows == {page: {"MNIST": {"0": "old"}}, "toys/toy": {}}
