"""With another seed, and other images: do the book's numbers and verdicts hold?

Usage: python benchmarks/replicate.py [--seeds 5] [--output FILE] [NOTEBOOK …]

Runs every page with several seeds, on MNIST and on the bundled digits, two kernels at a time.
From each run come the numbers that the prose quotes (`glue`) and, for each cell with a
sentence `verdict` in its metadata, whether its asserts held. A run ends with the last of these
cells: what follows are solutions of exercises, which every test run executes. It is kept in the
cache until its code or that of `vae_utils` changes, so Ctrl-C or a crash costs at most the runs
that were under way. The table is the book's page "With another seed?".

Exits with an error if a run stopped, or if a verdict failed in more than one run of ten.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path

import machine
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from sphinx_external_toc.parsing import parse_toc_yaml
from tqdm import tqdm

from vae_utils import cache, data
from vae_utils.page import glued_in

ROOT = Path(__file__).parent.parent
SOURCES = ("MNIST", "bundled digits")
SEED_STEP = 100  # a page's further seeds are SEED + 1, SEED + 2 …
AT_A_TIME = 2  # each kernel holds TensorFlow
TIMEOUT_SECONDS = 900  # of a cell
FAILURES_ALLOWED = 0.1
THREADS = ("TF_NUM_INTRAOP_THREADS", "OPENBLAS_NUM_THREADS")


def pages():
    """Return the notebooks of the table of contents, in the order of reading."""
    paths = (ROOT / f"{page}.ipynb" for page in parse_toc_yaml(ROOT / "_toc.yml"))
    return [path for path in paths if path.exists()]


def name(path):
    """Return a page's name: its chapter's folder and its own."""
    return f"{path.parent.name}/{path.stem}"


def read(path):
    """Return the notebook up to the last cell that quotes a number or asserts a verdict."""
    notebook = nbformat.read(path, as_version=4)
    counts = ["verdict" in cell.metadata or "glue(" in cell.source for cell in notebook.cells]
    notebook.cells = notebook.cells[: len(counts) - counts[::-1].index(True)]
    return notebook


def digest(notebook):
    """Return a digest of all code that the numbers of the notebook depend on."""
    code = [(cell.source, cell.metadata.get("verdict")) for cell in code_cells(notebook)]
    result = hashlib.sha256(repr(code).encode())
    for folder in ("vae_utils", "vae_utils/beyond"):
        for path in sorted((ROOT / folder).glob("*.py")):
            result.update(path.read_bytes())
    return result.hexdigest()[:16]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def with_seed(notebook, seed):
    """Set the seed in the cell tagged `parameters`; let a failed verdict not stop the run."""
    parameters = [c for c in code_cells(notebook) if "parameters" in c.metadata.get("tags", [])]
    if [cell.source for cell in parameters] != ["SEED = 0"]:
        raise ValueError(
            "A page needs one cell tagged `parameters`, which says SEED = 0. "
            f"Received: {[cell.source for cell in parameters]}"
        )
    parameters[0].source = f"SEED = {seed}"
    for cell in code_cells(notebook):
        if "verdict" in cell.metadata:
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "raises-exception"]
    return notebook


def environment(source, nowhere):
    """Return the environment of a kernel that finds MNIST, or only the bundled digits."""
    threads = str(max(1, (os.cpu_count() or 1) // AT_A_TIME))
    settings = os.environ | dict.fromkeys(THREADS, threads)
    if source == "bundled digits":
        settings |= {"KERAS_HOME": nowhere, "https_proxy": "http://127.0.0.1:9"}
        settings.pop("MNIST_NPZ", None)
    return settings


def run(path, source, seed):
    """Run a chapter; return its seconds, the numbers quoted, the verdicts, and what stopped it."""
    notebook = with_seed(read(path), seed)
    folder = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, timeout=TIMEOUT_SECONDS, resources=folder)
    start, stopped = time.perf_counter(), None
    with tempfile.TemporaryDirectory() as nowhere:
        try:
            client.execute(env=environment(source, nowhere), stderr=subprocess.DEVNULL)
        except CellExecutionError as error:
            stopped = f"{error.ename}: {error.evalue}"
        except (CellTimeoutError, DeadKernelError) as error:
            stopped = str(error)
    return {
        "seconds": round(time.perf_counter() - start),
        "numbers": glued_in(notebook),
        "verdicts": verdicts(notebook),
        "stopped": stopped,
    }


def verdicts(notebook):
    """Return for each verdict cell whether its asserts held; one that was not reached did not."""
    return {
        cell.id: cell.execution_count is not None
        and all(output.output_type != "error" for output in cell.outputs)
        for cell in code_cells(notebook)
        if "verdict" in cell.metadata
    }


def kept_run(job):
    """Return the job and its run: from the cache, else run now, and kept unless it stopped."""
    path, source, seed = job
    key = digest(read(path))
    kept = cache.directory() / "replication" / f"{name(path)}-{source.split()[0]}-{seed}-{key}.json"
    if kept.exists():
        return job, json.loads(kept.read_text())
    result = run(path, source, seed)
    if not result["stopped"]:
        cache.write_atomically(kept, lambda path: path.write_text(json.dumps(result)))
    return job, result


def failures(table):
    """Return a line for each run that stopped and each verdict that failed too often."""
    lines = []
    for page, sources in table.items():
        runs = [(source, seed, run) for source in sources for seed, run in sources[source].items()]
        for source, seed, result in runs:
            if result["stopped"]:
                lines.append(f"{page}, {source}, seed {seed} stopped: {result['stopped']}")
        for verdict in runs[0][2]["verdicts"]:
            failed = [f"{s} {n}" for s, n, result in runs if not result["verdicts"].get(verdict)]
            if len(failed) > FAILURES_ALLOWED * len(runs):
                lines.append(f"{page}, {verdict} failed in {', '.join(failed)}")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: every page")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "replication.json")
    arguments = parser.parse_args()
    data.load_digits("mnist")  # an error where it cannot be had, before an hour is spent
    paths = [path.resolve() for path in arguments.notebooks] or pages()
    seeds = range(0, SEED_STEP * arguments.seeds, SEED_STEP)
    jobs = [(path, source, seed) for seed in seeds for source in SOURCES for path in paths]
    table = {name(path): {source: {} for source in SOURCES} for path in paths}
    with ThreadPool(AT_A_TIME) as pool:  # of daemons: Ctrl-C ends them, and so their kernels
        runs = pool.imap(kept_run, jobs)
        for (path, source, seed), result in tqdm(runs, "replication", len(jobs), unit="run"):
            table[name(path)][source][str(seed)] = result
    write(arguments.output, table)
    if failed := failures(table):
        sys.exit("\n".join(failed))


def write(path, table):
    """Write the table; pages of the book that were not run now keep what it says of them."""
    kept = json.loads(path.read_text())["pages"] if path.exists() else {}
    known = {name(page) for page in pages()} | table.keys()
    rows = {page: runs for page, runs in sorted((kept | table).items()) if page in known}
    content = {"made": machine.description(), "pages": rows}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
