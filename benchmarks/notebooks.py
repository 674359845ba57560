"""How long each chapter runs, and how much memory its kernel holds at the peak.

Usage: python benchmarks/notebooks.py [book/02_elbo.ipynb …]

Every notebook runs from start to finish in a kernel of its own, with an empty cache of models,
on the digits that `data.load_digits` finds. Peak memory is the kernel's largest resident set as
Linux counts it (VmHWM). Exits with an error if a cell fails.
"""

import re
import sys
import tempfile
import time
from pathlib import Path

import machine
import nbformat
from nbclient import NotebookClient

BOOK = Path(__file__).parent.parent / "book"


def measure(path):
    """Run the notebook at `path`; return its seconds and its kernel's peak memory in MiB."""
    notebook = nbformat.read(path, as_version=4)
    folder = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, timeout=600, resources=folder)
    start = time.perf_counter()
    with client.setup_kernel(), tempfile.TemporaryDirectory() as cache:
        client.kc.execute(f"import os; os.environ['VAE_UTILS_CACHE'] = {cache!r}")
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        seconds = time.perf_counter() - start
        status = Path(f"/proc/{client.km.provisioner.pid}/status").read_text()
    return seconds, int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def main(paths):
    print(machine.description(), "\n")
    figures = {path.stem: measure(path) for path in paths}
    rows = [[name, f"{seconds:.0f}", f"{peak:.0f}"] for name, (seconds, peak) in figures.items()]
    print(machine.table(["notebook", "seconds", "peak memory, MiB"], rows))


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or sorted(BOOK.glob("*.ipynb")))
