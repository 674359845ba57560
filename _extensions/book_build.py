"""A Sphinx extension that knows what a built page depends on besides its own source.

Jupyter Book runs a notebook again when its cells change. The outputs also depend on `vae_utils`,
on the installed packages and on the digits that were found. Each state of these has a cache of
outputs of its own, so that a change in one of them runs the notebooks again, and going back to an
earlier state costs nothing.

A build that was interrupted, or that ended with a warning, leaves a mark: the next one starts from
the sources instead of trusting half-written pages, and sees the same warning again.
"""

import hashlib
import os
import shutil
from pathlib import Path

from vae_utils import data

MARK = "unfinished"
STATE = "state"


def setup(app):
    build = Path(app.outdir).parent
    build.mkdir(parents=True, exist_ok=True)
    state = _state(Path(app.srcdir))
    if (build / MARK).exists() or not _same(build / STATE, state):
        for stale in (app.outdir, app.doctreedir):
            shutil.rmtree(stale, ignore_errors=True)
    (build / MARK).touch()
    (build / STATE).write_text(state)
    os.environ["VAE_BOOK_BUILD"] = "1"  # the chapters' controls draw their frames for the page

    def use_cache_of_state(app, config):
        config.nb_execution_cache_path = str(build / ".jupyter_cache" / state)

    app.connect("config-inited", use_cache_of_state)
    app.connect("build-finished", _remove_mark)
    return {"parallel_read_safe": False, "parallel_write_safe": False}


def _state(root):
    """Return a digest of all that every notebook's outputs depend on."""
    digest = hashlib.sha256(data.load_digits().fingerprint.encode())
    shared = [root / "requirements.txt", root / "book" / "matplotlibrc"]
    for path in [*sorted((root / "vae_utils").glob("*.*")), *shared]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _same(path, state):
    return path.exists() and path.read_text() == state


def _remove_mark(app, error):
    if error is None and not app._warncount:
        (Path(app.outdir).parent / MARK).unlink(missing_ok=True)
