"""What the tests share: digits, folders of their own, and processes of their own."""

import dataclasses
import os
import subprocess
import sys
import textwrap

import pytest

from vae_utils import data


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
        ended = [process.communicate() for process in started]
        for process, (_, errors) in zip(started, ended):
            assert process.returncode == 0, errors.decode()
        return [output.decode() for output, _ in ended]  # carriage returns and all

    return run
