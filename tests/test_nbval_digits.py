"""A notebook in a test run sees the bundled digits, whatever MNIST is at hand."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

HERE = Path(__file__).parent
EXTENSIONS = HERE.parent / "_extensions"
OTHER = """
import os

def test_others_keep_what_is_set():
    assert os.environ["MNIST_NPZ"] == "no_file.npz"
"""


def test_notebooks_run_on_the_bundled_digits(tmp_path):
    shutil.copy(HERE / "conftest.py", tmp_path)
    code = "from vae_utils import data\nassert data.load_digits().name == 'bundled digits'"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbformat.write(notebook, tmp_path / "page.ipynb")
    (tmp_path / "test_other.py").write_text(OTHER)
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", str(tmp_path)]
    done = subprocess.run(
        command,
        env=os.environ | {"MNIST_NPZ": "no_file.npz", "PYTHONPATH": str(EXTENSIONS)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
