"""What a build runs: what is missing or stale, two notebooks at a time, and no more."""

import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import book_build
import jupyter_cache
import nbformat
import numpy as np
import pytest

REPOSITORY = Path(__file__).parent.parent
CONFIGURATION = f"""
import sys
sys.path.insert(0, {str(REPOSITORY / "_extensions")!r})
extensions = ["myst_nb", "book_build"]
nb_execution_mode = "cache"
nb_execution_show_tb = True
root_doc = "one"
exclude_patterns = ["_build"]
"""
NOTE_THE_RUN = "from pathlib import Path; Path('runs').open('a').write('{name} ')"
MEET = """
import os
import time
Path('{name}').write_text(os.environ.get("TF_NUM_INTRAOP_THREADS", "all"))
end = time.monotonic() + 60
while not Path('{other}').exists():
    assert time.monotonic() < end, "the other did not come"
    time.sleep(0.05)
"""

NBVAL = ["-p", "conftest", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]


@pytest.fixture
def root(tmp_path):
    """Return a book of two notebooks that wait for each other, and of all that a build reads."""
    (tmp_path / "conf.py").write_text(CONFIGURATION)
    for name in ("requirements.txt", "vae_utils/models.py", "vae_utils/page/slider.html"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    images, labels = np.zeros((2, 28, 28), np.uint8), np.zeros(2, np.uint8)
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(tmp_path / "mnist.npz", **arrays)
    for name, other in (("one", "two"), ("two", "one")):
        write(tmp_path, name, MEET.format(name=name, other=other))
    return tmp_path


def write(root, name, code, text=""):
    toctree = "```{toctree}\ntwo\n```" if name == "one" else ""
    cells = [
        nbformat.v4.new_markdown_cell(f"# {name}\n\n{text}\n\n{toctree}"),
        nbformat.v4.new_code_cell(NOTE_THE_RUN.format(name=name)),
        nbformat.v4.new_code_cell(code),
    ]
    kernel = {"name": "python3", "display_name": "Python 3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), root / f"{name}.ipynb")


def build(root):
    """Build the book; return the process and the names of the notebooks that have run so far."""
    return run(root, "sphinx", "-W", "--keep-going", root, root / "_build/html")


def run(root, module, *arguments):
    """Run a module as a program on the book; return as `build` does."""
    paths = os.pathsep.join([str(root / "book"), str(REPOSITORY / "_extensions"), *sys.path])
    environment = os.environ | {"MNIST_NPZ": str(root / "mnist.npz"), "PYTHONPATH": paths}
    environment = {name: environment[name] for name in environment.keys() - {*book_build.THREADS}}
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root)
    return process, sorted((root / "runs").read_text().split())


def test_two_notebooks_run_at_once_and_only_when_something_changed(root):
    process, runs = build(root)
    assert (process.returncode, runs) == (0, ["one", "two"]), process.stderr
    assert (root / "one").read_text() == str(max(1, os.cpu_count() // 2))
    assert not (root / "_build" / book_build.MARK).exists()
    assert build(root)[1] == ["one", "two"]

    write(root, "two", MEET.format(name="two", other="one"), text="Another word.")
    assert build(root)[1] == ["one", "two"]
    write(root, "two", "print('another cell')")
    assert build(root)[1] == ["one", "two", "two"]

    (root / "vae_utils" / "models.py").write_text("another network")
    process, runs = build(root)
    assert (process.returncode, runs) == (0, ["one", "one", "two", "two", "two"]), process.stderr


def test_notebooks_that_end_at_once_are_all_kept(root, monkeypatch):
    for i in range(24):
        write(root, f"page_{i}", f"print({i})")
    done = types.SimpleNamespace(err=None, time=0.0)
    monkeypatch.setattr(book_build, "single_nb_execution", lambda *_, **__: done)
    monkeypatch.setattr(book_build, "AT_A_TIME", 6)
    cache = jupyter_cache.get_cache(root / "cache")
    uris = [book_build._in_project(cache, path).uri for path in root.glob("page_*.ipynb")]
    book_build._run(cache, {uri: cache.get_project_notebook(uri).nb for uri in uris}, 30)
    assert cache.list_unexecuted(filter_uris=uris) == []


def test_pages_that_share_a_model_do_not_run_side_by_side():
    assert book_build.far_apart(list("abcde")) == list("adbec")
    assert book_build.far_apart(["a"]) == ["a"]
    assert book_build.far_apart([]) == []


def test_a_page_of_text_with_code_runs_beside_the_notebooks(root):
    front = "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n"
    code = NOTE_THE_RUN.format(name="two") + MEET.format(name="two", other="one")
    (root / "two.ipynb").unlink()
    (root / "two.md").write_text(f"{front}\n# two\n\n```{{code-cell}} python3\n{code}```\n")
    process, runs = build(root)
    assert (process.returncode, runs) == (0, ["one", "two"]), process.stderr
    assert build(root)[1] == ["one", "two"]


def test_what_nbval_has_run_is_on_the_page_and_does_not_run_again(root):
    (root / "book").mkdir()
    shutil.copy(REPOSITORY / "book" / "conftest.py", root / "book")
    code = "for i in range(3):\n    print('\\rstep', i, end='')\n6 * 7"
    write(root, "one", MEET.format(name="one", other="two") + code)
    write(root, "two", MEET.format(name="two", other="one") + "'not ' + 'shown';")
    side_by_side = ["-n", "2", "--dist", "loadfile"]
    process, runs = run(root, "pytest", *NBVAL, *side_by_side, "one.ipynb", "two.ipynb")
    assert (process.returncode, runs) == (0, ["one", "two"]), process.stdout
    lines = re.findall(r"^(\d of 2): (?:one|two), \d+ s$", process.stdout, re.MULTILINE)
    assert lines == ["1 of 2", "2 of 2"]
    process, runs = build(root)
    assert (process.returncode, runs) == (0, ["one", "two"]), process.stderr
    page = (root / "_build" / "html" / "one.html").read_text()
    assert ">42\n" in page
    assert "step 2" in page
    assert "step 1" not in page
    assert "not shown" not in (root / "_build" / "html" / "two.html").read_text()


@pytest.mark.parametrize("why", ["a cell failed", "it should have run alone"])
def test_what_nbval_cannot_vouch_for_runs_in_the_build(root, why):
    (root / "book").mkdir()
    shutil.copy(REPOSITORY / "book" / "conftest.py", root / "book")
    write(root, "one", "from pathlib import Path; assert len(Path('runs').read_text()) > 4")
    write(root, "two", "")
    notebook = nbformat.read(root / "two.ipynb", as_version=4)
    notebook.metadata["runs_alone"] = why == "it should have run alone"
    nbformat.write(notebook, root / "two.ipynb")
    name = "one.ipynb" if why == "a cell failed" else "two.ipynb"
    company = ["-n", "2"] if why == "it should have run alone" else []
    process, runs = run(root, "pytest", *NBVAL, *company, name)
    assert process.returncode == (why == "a cell failed"), process.stdout
    assert len(runs) == 1
    process, runs = build(root)
    assert (process.returncode, len(runs)) == (0, 3), process.stderr


def test_what_nbval_has_run_alone_does_not_run_again(root):
    (root / "book").mkdir()
    shutil.copy(REPOSITORY / "book" / "conftest.py", root / "book")
    for name in ("one", "two"):
        write(root, name, "")
        notebook = nbformat.read(root / f"{name}.ipynb", as_version=4)
        notebook.metadata["runs_alone"] = True
        nbformat.write(notebook, root / f"{name}.ipynb")
    process, runs = run(root, "pytest", *NBVAL, "-n", "1", "one.ipynb", "two.ipynb")
    assert (process.returncode, runs) == (0, ["one", "two"]), process.stdout
    process, runs = build(root)
    assert (process.returncode, runs) == (0, ["one", "two"]), process.stderr


def test_a_change_of_a_control_runs_the_pages_that_have_it(root):
    write(root, "one", "# slider(draw, values)")
    write(root, "two", "")
    assert build(root)[1] == ["one", "two"]
    compiled = root / "vae_utils" / "page" / "__pycache__" / "sliders.cpython-311.pyc"
    compiled.parent.mkdir()
    compiled.write_text("what an import left")
    assert build(root)[1] == ["one", "two"]
    (root / "vae_utils" / "page" / "slider.html").write_text("another control")
    process, runs = build(root)
    assert (process.returncode, runs) == (0, ["one", "one", "two"]), process.stderr


def test_a_notebook_that_fails_is_named_and_the_next_build_starts_anew(root):
    write(root, "two", "raise RuntimeError('the well is dry')")
    write(root, "one", "")
    for _ in range(2):
        process, _ = build(root)
        assert process.returncode != 0
        assert "two.ipynb" in process.stderr
        assert "the well is dry" in process.stderr
        assert (root / "_build" / book_build.MARK).exists()


def test_kernels_share_the_processors_only_while_they_run_together(monkeypatch):
    ours, users = book_build.THREADS
    monkeypatch.delenv(ours, raising=False)
    monkeypatch.setenv(users, "7")
    with book_build._shared_processors(2):
        assert int(os.environ[ours]) == max(1, os.cpu_count() // 2)
        assert os.environ[users] == "7"
    assert ours not in os.environ
    assert os.environ[users] == "7"


def test_the_workers_of_these_tests_share_the_processors():
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    for name in book_build.THREADS:
        assert workers * int(os.environ[name]) <= max(os.cpu_count(), workers)


def test_a_build_says_how_long_it_will_take_and_how_far_it_is(root):
    write(root, "one", "", text="**Time**: 3 minutes to read, 40 seconds to run on two cores.")
    write(root, "two", "", text="**Time**: 3 minutes to read, 20 seconds to run on two cores.")
    said = build(root)[0].stdout
    assert "2 notebooks to run, about 30 s" in said
    assert re.search(r"1 of 2: \S*(one|two), \d+ s\n2 of 2: \S*(one|two), \d+ s\n", said)


def test_kernels_say_nothing_and_run_no_start_up_file_of_the_user(root, monkeypatch):
    startup = root / "users" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "first.py").write_text("mine = 1")
    monkeypatch.setenv("IPYTHONDIR", str(root / "users"))
    for name in ("one", "two"):
        write(root, name, "assert 'mine' not in globals()")
    process, _ = build(root)
    assert (process.returncode, process.stderr) == (0, "")


def test_a_progress_bar_leaves_one_line_on_the_page(root):
    bar = "import sys, tqdm\nfor _ in tqdm.tqdm(range(9), file=sys.stdout, mininterval=0):"
    write(root, "one", bar + "\n    sys.stdout.flush()\nprint('the end')")
    write(root, "two", "")
    assert build(root)[0].returncode == 0
    page = (root / "_build" / "html" / "one.html").read_text()
    assert re.search(r"100%.* 9/9 .*\s+the end", page)
    assert "8/9" not in page


def test_what_compares_seconds_runs_alone(root):
    when = "import time; from pathlib import Path; start = time.time(); time.sleep(2); "
    when += "Path('{name}-time').write_text(f'{{start}} {{time.time()}}')"
    for name in ("one", "two"):
        write(root, name, when.format(name=name))
    notebook = nbformat.read(root / "one.ipynb", as_version=4)
    notebook.metadata["runs_alone"] = True
    nbformat.write(notebook, root / "one.ipynb")
    assert build(root)[0].returncode == 0
    times = {name: (root / f"{name}-time").read_text().split() for name in ("one", "two")}
    assert float(times["two"][1]) < float(times["one"][0])
