"""What the tests share: digits, folders and processes of their own, the built book, a browser."""

import contextlib
import dataclasses
import os
import random
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import book_build
import nbformat
import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from vae_utils import data

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "_build"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def pytest_configure(config):
    """Let workers, and the processes that tests start, share the processors."""
    book_build.share_processors(config.getoption("numprocesses", None) or 1)


def pytest_collection_modifyitems(items):
    """Put the site first, which is the longest and all on one worker."""
    items.sort(key=lambda item: item.path.name != "test_site.py")


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory):
    """Return the cache folder in which the bundled digits are enlarged once for all tests."""
    return tmp_path_factory.mktemp("session_cache")


@pytest.fixture(scope="session")
def bundled(session_cache):
    """Return the bundled digits, all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAE_UTILS_CACHE", str(session_cache))
        return data.load_digits("bundled")


@pytest.fixture(scope="session")
def digits(bundled):
    """Return 320 training and 64 test images of the bundled digits."""
    few, fewer = slice(320), slice(64)
    return dataclasses.replace(
        bundled,
        train_levels=bundled.train_levels[few],
        y_train=bundled.y_train[few],
        test_levels=bundled.test_levels[fewer],
        y_test=bundled.y_test[fewer],
    )


@pytest.fixture
def own_folders(monkeypatch, tmp_path):
    """Keep a test away from the caches and the MNIST of whoever runs it; return its cache folder.

    Not used for every test by itself: notebooks that run in the same session want the real ones.
    """
    monkeypatch.delenv("MNIST_NPZ", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("VAE_UTILS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def run_python(own_folders, tmp_path):
    """Return a function that runs code in fresh processes and returns what each has printed.

    With more than one process, the call `meet()` in the code waits until all have come so far.
    """
    meet = """
        import os, time, pathlib
        def meet():
            folder = pathlib.Path(os.environ["MEETING"])
            folder.mkdir(exist_ok=True)
            (folder / str(os.getpid())).touch()
            while len(list(folder.iterdir())) < int(os.environ["PROCESSES"]):
                time.sleep(0.005)
    """

    def run(code, processes=1):
        command = [sys.executable, "-c", textwrap.dedent(meet) + textwrap.dedent(code)]
        meeting = {"MEETING": str(tmp_path / "meeting"), "PROCESSES": str(processes)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started = [
            subprocess.Popen(command, env=os.environ | meeting, **pipes) for _ in range(processes)
        ]
        try:
            ended = [process.communicate(timeout=300) for process in started]
        finally:
            for process in started:  # those that wait for one that has died
                process.kill()
        for process, (_, errors) in zip(started, ended):
            assert process.returncode == 0, errors.decode()
        return [output.decode() for output, _ in ended]  # carriage returns and all

    return run


@pytest.fixture(scope="session")
def chapter_code():
    """Return a function that executes some cells of a chapter and returns what they defined.

    A cell that several of its pages have, its imports for one, is executed for each of them.
    """

    def execute(chapter, *ids):
        cells = [
            cell
            for path in sorted((ROOT / "book" / chapter).glob("*.ipynb"))
            for cell in nbformat.read(path, as_version=4).cells
        ]
        missing = set(ids) - {cell.id for cell in cells}
        assert not missing, f"chapter {chapter} has no cell {missing}"
        namespace = {}
        for cell_id in ids:
            for cell in cells:
                if cell.id == cell_id:
                    exec(compile(cell.source, cell_id, "exec"), namespace)
        return namespace

    return execute


@pytest.fixture(scope="session")
def site():
    """Return the folder of the built book."""
    if not (BUILD / "html" / "index.html").exists():
        skip_unless_required("the book is not built: run `make book` first")
    if (BUILD / "unfinished").exists():
        skip_unless_required("the last `make book` did not finish")
    return BUILD / "html"


@pytest.fixture(scope="module")  # not longer: its event loop would disturb the notebooks' kernels
def browser():
    """Return a Chromium without a window."""
    command = next(filter(None, map(shutil.which, BROWSERS)), None)
    if command is None:
        skip_unless_required("no Chromium on this machine: install the package chromium")
    arguments = ["--disable-gpu", "--disable-background-networking"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--no-sandbox")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=command, args=arguments)
        yield browser
        browser.close()


ON_JAX = os.environ.get("KERAS_BACKEND") == "jax"

# For tests in which NumPy copies Keras's own variables.
variables_are_copied = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword"
)


def only_with_tensorflow(reason):
    """Return the mark of a test that Keras's other backends cannot pass, for a reason."""
    return pytest.mark.skipif(ON_JAX, reason=reason)


def gradients(function, *arrays):
    """Return the gradients of the sum of a function's values, by Keras's backend, as arrays."""
    if ON_JAX:
        import jax

        gradient = jax.grad(lambda *inputs: function(*inputs).sum(), tuple(range(len(arrays))))
        return [np.asarray(part) for part in gradient(*map(jax.numpy.asarray, arrays))]
    import tensorflow as tf

    tensors = [tf.constant(array) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = tf.reduce_sum(function(*tensors))
    return [part.numpy() for part in tape.gradient(total, tensors)]


def wait_until_forgotten(page, selector):
    """Take a control out of the document, as a notebook does, and wait until nothing holds it."""
    page.evaluate("selector => { window.root = document.querySelector(selector); }", selector)
    page.evaluate("window.gone = new WeakRef(root); root.remove(); delete window.root")
    memory, deadline = page.context.new_cdp_session(page), time.monotonic() + 20
    while page.evaluate("gone.deref() !== undefined"):
        assert time.monotonic() < deadline, f"the document holds {selector}"
        memory.send("HeapProfiler.collectGarbage")


def free_port():
    """Return a port below those that a system hands out by itself, so that it stays free."""
    while True:
        port = random.randrange(20_000, 32_768)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def skip_unless_required(reason):
    """Skip a test that lacks a browser or the built book; fail if REQUIRE_BROWSER is set."""
    (pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip)(reason)
