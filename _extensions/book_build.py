"""A Sphinx extension that knows what a built page depends on besides its own source.

Jupyter Book runs a notebook again when its cells change. The outputs also depend on `vae_utils`,
on the installed packages and on the digits that were found. Each state of these has a cache of
outputs of its own, so that a change in one of them runs the notebooks again, and going back to an
earlier state costs nothing. A change of a control (`vae_utils.page`) runs the pages that have it.

Notebooks without outputs in the cache run two at a time: much of their time goes to importing,
tracing and drawing, which keep one processor busy. Those that compare seconds run alone: they say
so in their metadata, `"runs_alone": true`. One line tells how long it will take, and then one line
a notebook how far it is.

A build that was interrupted, or that ended with a warning, leaves a mark: the next one starts from
the sources instead of trusting half-written pages, and sees the same warning again.
"""

import contextlib
import hashlib
import json
import logging as standard_logging
import os
import re
import shutil
from itertools import zip_longest
from multiprocessing.pool import ThreadPool
from pathlib import Path

import filelock
from jupyter_cache import get_cache
from jupyter_cache.executors.utils import create_cache_bundle, single_nb_execution
from jupyter_cache.readers import NbReadError
from myst_nb.core.read import is_myst_markdown_notebook
from sphinx.util import logging

from vae_utils import data

AT_A_TIME = 2  # each kernel holds TensorFlow
THREADS = ("TF_NUM_INTRAOP_THREADS", "OPENBLAS_NUM_THREADS")  # of each kernel
MARKDOWN = {"name": "myst_nb_md", "type": "plugin"}  # a page with code cells among its text
MARK = "unfinished"
STATE = "state"
CONTROLS = "controls.json"  # in a cache: the digest of each control that its outputs were made with
STATED_SECONDS = re.compile(r"(\d+) seconds to run")


def setup(app):
    build = Path(app.outdir).parent
    build.mkdir(parents=True, exist_ok=True)
    root = Path(app.srcdir)
    state = _state(root)
    everything = f"{state} {json.dumps(_controls(root))}"
    if (build / MARK).exists() or not _same(build / STATE, everything):
        for stale in (app.outdir, app.doctreedir):
            shutil.rmtree(stale, ignore_errors=True)
    (build / MARK).touch()
    (build / STATE).write_text(everything)
    prepare_kernels(build)
    for handler in standard_logging.getLogger(logging.NAMESPACE).handlers:
        handler.addFilter(_is_news)

    def use_cache_of_state(app, config):
        config.nb_execution_cache_path = str(_path_of_outputs(build, state))

    app.connect("config-inited", use_cache_of_state)
    app.connect("env-before-read-docs", _run_side_by_side)
    app.connect("build-finished", _remove_mark)
    return {"parallel_read_safe": False, "parallel_write_safe": False}


def _is_news(record):
    """Whether a message is worth a line: not that a page's outputs come from the cache."""
    return "Using cached notebook" not in record.getMessage()


def prepare_kernels(build):
    """Set what the kernels find in their environment that run notebooks for a page."""
    os.environ["VAE_BOOK_BUILD"] = "1"  # the chapters' controls draw their frames for the page
    os.environ["IPYTHONDIR"] = str(_kernels_of_the_build(build))
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # what goes wrong in a notebook is an exception


def outputs(root):
    """Return the cache of outputs that a build of the book at `root` would read now."""
    cache = get_cache(_path_of_outputs(root / "_build", _state(root)))
    with _one_at_a_time(cache):
        _forget_old_controls(cache, _controls(root))
    return cache


def keep(cache, path, executed, seconds):
    """Put a notebook that was executed elsewhere into the cache, as if a build had run it."""
    with _one_at_a_time(cache):
        page = cache.get_project_notebook(_in_project(cache, path).uri)
        page.nb.cells = executed.cells
        _keep(cache, page, seconds)


def _one_at_a_time(cache):
    """Return a lock: of two that write into the cache at once, the second may lose its outputs.

    Jupyter Cache asks which records to keep, then removes all others: also one made in between.
    """
    Path(cache.path).mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(Path(cache.path) / "lock")


def _keep(cache, page, seconds):
    bundle = create_cache_bundle(page, None, None, seconds, None)
    cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def _path_of_outputs(build, state):
    return build / ".jupyter_cache" / state


def _kernels_of_the_build(build):
    """Return a folder for IPython: no start-up file of a user's, and only errors are logged."""
    folder = build / "ipython"
    profile = folder / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 'ERROR'\n")
    return folder


def _run_side_by_side(app, env, docnames):
    """Fill the cache. A notebook that fails here is run again, alone, by MyST-NB, which reports."""
    if app.config.nb_execution_mode != "cache":
        return
    cache = get_cache(app.config.nb_execution_cache_path)
    paths = [Path(env.doc2path(name)) for name in sorted(docnames)]
    uris = [_in_project(cache, path).uri for path in paths if _runs(path)]
    _forget_old_controls(cache, _controls(Path(app.srcdir)))
    with contextlib.suppress(NbReadError):  # Sphinx will name the file
        unexecuted = cache.list_unexecuted(filter_uris=uris)
        missing = {record.uri: cache.get_project_notebook(record.uri).nb for record in unexecuted}
        if uris and missing:
            _run(cache, missing, app.config.nb_execution_timeout)


def _runs(path):
    return path.suffix == ".ipynb" or is_myst_markdown_notebook(path.read_text())


def _in_project(cache, path):
    reader = {} if path.suffix == ".ipynb" else {"read_data": MARKDOWN}
    return cache.add_nb_to_project(str(path), **reader)


def _run(cache, notebooks, timeout):
    """Run notebooks (by path), first those that bear company, and say how far it is."""
    alone = [uri for uri, notebook in notebooks.items() if notebook.metadata.get("runs_alone")]
    together = [uri for uri in notebooks if uri not in alone]
    logger, done = logging.getLogger(__name__), 0
    logger.info("%d notebooks to run, about %d s", len(notebooks), _expected(notebooks, alone))

    def run(uri):
        page, path = cache.get_project_notebook(uri), Path(uri)
        coalesced = {"coalesce_streams": True}  # of a progress bar the last line stays
        result = single_nb_execution(page.nb, str(path.parent), timeout, False, **coalesced)
        if not result.err:
            with _one_at_a_time(cache):
                _keep(cache, page, result.time)
        return "/".join(path.with_suffix("").parts[-2:]), result.time

    for kernels, uris in ((AT_A_TIME, far_apart(together)), (1, alone)):
        # A pool of daemons: Ctrl-C ends them, and so their kernels.
        with _shared_processors(kernels), ThreadPool(kernels) as pool:
            for name, seconds in pool.imap_unordered(run, uris):
                done += 1
                logger.info("%d of %d: %s, %.0f s", done, len(notebooks), name, seconds)


def far_apart(pages):
    """Return pages of the book's first half and of its second in turn, each half in its order.

    Neighbours share trained models: side by side, the second would wait while the first trains.
    """
    half = (len(pages) + 1) // 2
    both = zip_longest(pages[:half], pages[half:])
    return [page for pair in both for page in pair if page is not None]


def _expected(notebooks, alone):
    """Return how many seconds the notebooks will take together, by what they state themselves."""
    stated = {
        uri: sum(
            int(found) for cell in notebook.cells for found in STATED_SECONDS.findall(cell.source)
        )
        for uri, notebook in notebooks.items()
    }
    return sum(seconds / (1 if uri in alone else AT_A_TIME) for uri, seconds in stated.items())


@contextlib.contextmanager
def _shared_processors(kernels):
    """Share out the processors while kernels run, and take it back afterwards."""
    ours = share_processors(kernels)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


def share_processors(kernels):
    """Give each kernel its part of the processors: more threads than these wait for each other.

    Returns:
        The environment variables that were set: those that the user has not set.
    """
    ours = [name for name in THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(ours, str(max(1, os.cpu_count() // kernels))))
    return ours


def _state(root):
    """Return a digest of all that every notebook's outputs depend on."""
    controls = {path for paths in _files_of_controls(root).values() for path in paths}
    module = (path for path in (root / "vae_utils").rglob("*.*") if path.suffix != ".pyc")
    paths = [*sorted(set(module) - controls), root / "requirements.txt"]
    return _digest(paths, data.load_digits().fingerprint)


def _controls(root):
    return {name: _digest(paths) for name, paths in _files_of_controls(root).items()}


def _files_of_controls(root):
    """Return the files of each control by the word with which a notebook calls it."""
    pages = root / "vae_utils" / "page"
    shared = {*pages.glob("*.js"), *pages.glob("control*.*"), *pages.glob("drawing.*")}
    return {
        "slider(": sorted(pages.glob("slider*.*")),
        "explorer": sorted({*pages.glob("explorer.*"), *shared}),
        "grid.show(": sorted({*pages.glob("grid.*"), *pages.glob("explorer.py"), *shared}),
        "lab.show(": sorted({*pages.glob("lab.*"), *shared}),
    }


def _digest(paths, *texts):
    digest = hashlib.sha256("".join(texts).encode())
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _forget_old_controls(cache, controls):
    """Take the notebooks out of the cache whose controls have changed since they ran."""
    made_with = Path(cache.path, CONTROLS)
    before = json.loads(made_with.read_text()) if made_with.exists() else controls
    changed = [name for name, digest in controls.items() if before.get(name) != digest]
    for record in cache.list_cache_records() if changed else []:
        notebook = cache.get_cache_bundle(record.pk).nb
        if any(name in cell.source for cell in notebook.cells for name in changed):
            cache.remove_cache(record.pk)
    made_with.write_text(json.dumps(controls))


def _same(path, state):
    return path.exists() and path.read_text() == state


def _remove_mark(app, error):
    if error is None and not app._warncount:
        (Path(app.outdir).parent / MARK).unlink(missing_ok=True)
