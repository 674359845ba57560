"""A Sphinx extension that serves MathJax from the site itself, so that pages need no network."""

from importlib.metadata import distribution
from pathlib import Path

from sphinx.util.fileutil import copy_asset

SCRIPT = "tex-chtml.js"
NEEDED = (
    SCRIPT,
    "a11y",
    "input/tex/extensions",
    "output/chtml/fonts/woff-v2",
    "sre/mathmaps/base.json",
    "sre/mathmaps/en.json",
    "sre/mathmaps/nemeth.json",
)


def setup(app):
    app.connect("config-inited", _point_to_local_copy)
    app.connect("build-finished", _copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _point_to_local_copy(app, config):
    config.mathjax_path = f"mathjax/{SCRIPT}"


def _copy_mathjax(app, error):
    if error is not None or app.builder.format != "html":
        return
    package = distribution("sphinx-mathjax-offline")
    mathjax = Path(package.locate_file("sphinx-mathjax-offline/static/mathjax"))
    for name in NEEDED:
        target = Path(app.outdir) / "_static" / "mathjax" / name
        copy_asset(mathjax / name, target if (mathjax / name).is_dir() else target.parent)
