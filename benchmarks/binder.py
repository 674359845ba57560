"""Run pages where Binder would run them, in at most 2 GiB of memory.

Usage, with an environment that holds what `binder/` says and no more:

    python3.11 -m venv /tmp/binder
    /tmp/binder/bin/pip install -r binder/requirements.txt
    PATH=/tmp/binder/bin:$PATH binder/postBuild
    /tmp/binder/bin/python benchmarks/binder.py [book/02_elbo/1_bound.ipynb …]

JupyterLab runs beside each notebook, as on Binder; nothing is in the cache. What counts is the
resident memory of all these processes together, looked at ten times a second. A run beyond the
limit is ended. Prints a Markdown table; exits with 1 if a notebook failed.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

LIMIT = 2048  # MiB
BOOK = Path(__file__).parent.parent / "book"


def memory():
    """Return the resident memory of all that this process has started, in MiB."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


def run(notebook, folder):
    """Run one notebook; return its seconds, the peak memory in MiB, and what came of it."""
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", notebook]
    command += ["--ExecutePreprocessor.timeout=900", "--output-dir", folder]
    environment = os.environ | {"VAE_UTILS_CACHE": str(folder / notebook.stem)}
    with (folder / "log").open("w+") as log:
        start, peak = time.perf_counter(), 0
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        while process.poll() is None and peak <= LIMIT:
            time.sleep(0.1)
            peak = max(peak, memory())
        for child in psutil.Process().children(recursive=True) if peak > LIMIT else []:
            child.kill()
        seconds = time.perf_counter() - start
        log.seek(0)
        lines = log.read().strip().splitlines()
    if peak > LIMIT:
        return seconds, peak, "too much memory"
    return seconds, peak, "runs" if process.returncode == 0 else lines[-1]


def main():
    notebooks = [Path(name) for name in sys.argv[1:]] or sorted(BOOK.glob("*/*.ipynb"))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    failed = False
    print("| notebook | seconds | peak memory, MiB | |\n| --- | --- | --- | --- |")
    for notebook in notebooks:
        lab = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with tempfile.TemporaryDirectory() as folder:
            seconds, peak, result = run(notebook, Path(folder))
        lab.terminate()
        lab.wait()
        failed = failed or result != "runs"
        print(
            f"| {notebook.parent.name}/{notebook.stem} | {seconds:.0f} | {peak:,.0f} | {result} |",
            flush=True,
        )
    sys.exit(failed)


if __name__ == "__main__":
    main()
