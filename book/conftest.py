"""Notebooks under nbval: run as in a build, and kept for the pages.

So `make test` runs each notebook once, and looks at the site of these runs.
"""

import time
from pathlib import Path

import book_build
import filelock
import pytest
from nbval.kernel import RunningKernel

ROOT = Path(__file__).parent.parent
START = pytest.StashKey()
SECONDS = "seconds of the page"  # which a worker reports with the last cell


def pytest_configure(config):
    """Set what kernels find; workers inherit it, and find the cache."""
    book_build.share_processors(config.getoption("numprocesses", None) or 1)
    book_build.prepare_kernels(ROOT / "_build")
    config.outputs = book_build.outputs(ROOT)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(OneLineAPage(config))


class OneLineAPage:
    """The progress in pages, as a build shows it, instead of cells."""

    def __init__(self, config):
        self.config, self.done = config, 0
        paths = [Path(arg.split("::")[0]) for arg in config.args]
        single = [path for path in paths if path.is_file()]
        within = [page for path in paths for page in path.glob("*/*.ipynb")]
        left_out = config.getoption("ignore") or []
        self.count = len(single + within) - len(left_out)

    def pytest_report_teststatus(self, report):
        """Write nothing for a cell that has passed."""
        if report.when == "call" and report.passed:
            return "passed", "", ""

    def pytest_runtest_logreport(self, report):
        """Write a line when the last cell of a page has run."""
        for name, seconds in report.user_properties:
            if name == SECONDS and report.when == "teardown":
                self.done += 1
                page = report.nodeid.split(".ipynb")[0]
                line = f"{self.done} of {self.count}: {page}"
                terminal = self.config.get_terminal_writer()
                terminal.line(f"{line}, {seconds:.0f} s")


def execute(kernel, source, allow_stdin=None):
    """Execute a cell as nbval does, but as part of the history.

    Without one, a semicolon at the end of a cell hides nothing.
    """
    options = {"allow_stdin": allow_stdin, "stop_on_error": False}
    return kernel.kc.execute(source, **options)


RunningKernel.execute_cell_input = execute
start = RunningKernel.__init__


def start_alone(self, *arguments, **options):
    """Start a kernel as nbval does, one at a time.

    Two that start at once could be given the same free port.
    """
    with filelock.FileLock(ROOT / "_build" / "kernel.lock"):
        start(self, *arguments, **options)


RunningKernel.__init__ = start_alone


def pytest_collection_modifyitems(items):
    """Put pages that share a trained model apart, as a build does."""
    cells = {}
    for item in items:
        cells.setdefault(item.path, []).append(item)
    pages = book_build.far_apart(list(cells))
    items[:] = [cell for path in pages for cell in cells[path]]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Note what a cell has shown, unless it has failed."""
    item.parent.stash.setdefault(START, time.monotonic())
    yield
    count = item.cell_num + 1
    item.cell.update(outputs=item.test_outputs, execution_count=count)


def pytest_runtest_teardown(item, nextitem):
    """Report a notebook's seconds; keep it, if all cells have run.

    Not one that should run alone but had company: its seconds are to be
    those of an idle machine.
    """
    if nextitem is not None and nextitem.parent is item.parent:
        return
    notebook, now = item.parent.nb, time.monotonic()
    seconds = now - item.parent.stash.get(START, now)
    item.user_properties.append((SECONDS, seconds))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    ran = all(cell.execution_count for cell in code)
    workers = getattr(item.config, "workerinput", {}).get("workercount", 1)
    if ran and (workers == 1 or not notebook.metadata.get("runs_alone")):
        book_build.keep(item.config.outputs, item.path, notebook, seconds)
