"""Run notebooks and store the outputs that nbval compares, and no others.

Usage: python tools/store_outputs.py book/02_elbo.ipynb …
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

COMPARED = "nbval-check-output"


def store_outputs(path):
    """Run the notebook at `path`; keep the outputs of the compared cells, clear the rest."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": path.parent}}).execute()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.metadata.pop("execution", None)
        if COMPARED not in cell.metadata.get("tags", []):
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("widgets", None)  # pictures of what a slider last showed
    nbformat.write(notebook, path)


for name in sys.argv[1:]:
    store_outputs(Path(name))
