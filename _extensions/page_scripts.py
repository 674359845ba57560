"""A Sphinx extension that keeps every page self-contained, and free of scripts that it can spare.

MathJax is copied from an installed package instead of being fetched from a network. Three more
things go when a release of the theme or of Jupyter Book does without them:

- Thebe, which runs code on a remote server, is left out: no page uses it
  (https://github.com/jupyter-book/jupyter-book/issues/1603).
- So is the theme's Font Awesome script, 1.5 MB that draws icons again which its font has shown
  already (https://github.com/pydata/pydata-sphinx-theme/issues/2379).
- The theme would choose between light and dark after a page is seen first, and show both logos
  until then (https://github.com/pydata/pydata-sphinx-theme/issues/1857).
"""

from importlib.metadata import distribution
from pathlib import Path

from sphinx.util.fileutil import copy_asset

MATHJAX = "tex-chtml.js"
MATHJAX_FILES = (
    MATHJAX,
    "a11y",
    "input/tex/extensions",
    "output/chtml/fonts/woff-v2",
    "sre/mathmaps/base.json",
    "sre/mathmaps/en.json",
    "sre/mathmaps/nemeth.json",
)

CHOOSE_THEME = """(({ dataset }) => {
  if (dataset.theme === "auto")
    dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  let onScreen;
  addEventListener("beforeprint", () => {
    onScreen = dataset.theme;
    dataset.theme = "light"; // on white paper
  });
  addEventListener("afterprint", () => {
    dataset.theme = onScreen;
  });
})(document.documentElement);"""


def setup(app):
    app.add_js_file(None, body=CHOOSE_THEME)
    app.connect("config-inited", _use_local_mathjax)
    app.connect("html-page-context", _leave_out_thebe)
    app.connect("build-finished", _copy_mathjax)
    app.connect("build-finished", _empty_icon_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _use_local_mathjax(app, config):
    config.mathjax_path = f"mathjax/{MATHJAX}"


def _copy_mathjax(app, error):
    if error is not None or app.builder.format != "html":
        return
    package = distribution("sphinx-mathjax-offline")
    mathjax = Path(package.locate_file("sphinx-mathjax-offline/static/mathjax"))
    for name in MATHJAX_FILES:
        target = Path(app.outdir) / "_static" / "mathjax" / name
        copy_asset(mathjax / name, target if (mathjax / name).is_dir() else target.parent)


def _empty_icon_script(app, error):
    if error is None and app.builder.format == "html":
        script = Path(app.outdir) / "_static" / "scripts" / "fontawesome.js"
        script.write_text("/* The icons come from a font. */\n")


def _leave_out_thebe(app, page, template, context, doctree):
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context.get(kind, []) if not _is_thebe(file)]


def _is_thebe(file):
    body = getattr(file, "attributes", {}).get("body") or ""
    return "thebe" in str(getattr(file, "filename", file)) or "thebe" in body
