"""How long each page runs, and how much memory its kernel holds at the peak.

Usage: python benchmarks/notebooks.py [book/02_elbo/1_bound.ipynb …]

Every notebook runs from start to finish in a kernel of its own, with an empty cache of models,
on the digits that `data.load_digits` finds. Peak memory is the kernel's largest resident set as
Linux counts it (VmHWM). A part of that are pages of TensorFlow's own files, which Linux can drop
and read again; the rest (RssAnon, looked at ten times a second) it must keep. Exits with an error
if a cell fails.
"""

import re
import sys
import tempfile
import threading
import time
from pathlib import Path

import machine
import nbformat
from nbclient import NotebookClient

BOOK = Path(__file__).parent.parent / "book"


def memory(process, kind):
    """Return a line of the process's status, in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(rf"{kind}:\s+(\d+)", status)[1]) / 1024


def measure(path):
    """Run a notebook; return its seconds, its kernel's peak memory and the part kept, in MiB."""
    notebook = nbformat.read(path, as_version=4)
    folder = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, timeout=900, resources=folder)
    kept, done = [], threading.Event()

    def watch(process):
        while not done.wait(0.1):
            kept.append(memory(process, "RssAnon"))

    start = time.perf_counter()
    with client.setup_kernel(), tempfile.TemporaryDirectory() as cache:
        process = client.km.provisioner.pid
        watcher = threading.Thread(target=watch, args=[process])
        watcher.start()
        client.kc.execute(f"import os; os.environ['VAE_UTILS_CACHE'] = {cache!r}")
        try:
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index)
        finally:
            done.set()
            watcher.join()
        return time.perf_counter() - start, memory(process, "VmHWM"), max(kept)


def main(paths):
    print(machine.description(), "\n")
    figures = {f"{path.parent.name}/{path.stem}": measure(path) for path in paths}
    rows = [[name, *(f"{figure:.0f}" for figure in row)] for name, row in figures.items()]
    print(machine.table(["notebook", "seconds", "peak memory, MiB", "of it kept, MiB"], rows))


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or sorted(BOOK.glob("*/*.ipynb")))
