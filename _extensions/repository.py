"""A Sphinx extension that takes the repository's address from one place, and all that needs it.

GitHub names its repository to a workflow; elsewhere the checkout's remote `origin` does. With it
come the buttons to edit a page, to open an issue and to run a chapter on Binder or Colab, the
preview for those who share a link, and the site map. Without it none of these is there.

Colab opens single notebooks, and `vae_utils` is not on it. So each notebook that is offered for
download (`plain_notebooks` writes them) starts with a cell that installs the module; the workflow
publishes these copies as the branch `colab`, to which Colab's button leads.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import nbformat

REMOTE = re.compile(
    r"(?:https://(?:[^@/]+@)?|ssh://git@|git@)"
    r"(?P<host>github\.com|gitlab\.com)[:/](?P<path>[\w.-]+/[\w.-]+?)(?:\.git)?/?"
)
BRANCH, COLAB_BRANCH = "main", "colab"
INSTALL = """\
# Installs the book's module where it is missing. What the module needs, Colab has.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("vae_utils") is None:
    alone = ["--no-deps"] if "google.colab" in sys.modules else []
    command = [sys.executable, "-m", "pip", "install", "--quiet", *alone]
    subprocess.check_call([*command, "git+{address}"])
"""


def setup(app):
    address = public_address(os.environ, app.srcdir)
    if address:
        app.setup_extension("sphinxext.opengraph")
        app.connect("config-inited", lambda app, config: configure(config, address))
        app.connect("html-page-context", _settle_launch_buttons, priority=900)
        after = {"priority": 900}  # when the copies are written
        app.connect("build-finished", lambda app, e: _install_in_copies(app, e, address), **after)
        app.connect("build-finished", _write_site_map)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def public_address(environ, checkout):
    """Return the repository's address on GitHub or GitLab, `https://host/owner/name`, or None."""
    if "GITHUB_REPOSITORY" in environ:
        remote = f"{environ['GITHUB_SERVER_URL']}/{environ['GITHUB_REPOSITORY']}"
    elif shutil.which("git"):
        command = ["git", "-C", checkout, "remote", "get-url", "origin"]
        remote = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    else:
        return None
    match = REMOTE.fullmatch(remote)
    return f"https://{match['host']}/{match['path']}" if match else None


def site_address(address):
    """Return where GitHub publishes the site of the repository at `address`; elsewhere, None."""
    host, (_, owner, name) = urlsplit(address).netloc, urlsplit(address).path.split("/")
    if host != "github.com":
        return None
    root = f"https://{owner.lower()}.github.io/"
    return root if urlsplit(root).netloc == name.lower() else f"{root}{name}/"


def configure(config, address):
    """Add what needs the address to the theme's options and to Sphinx's."""
    launch = {"notebook_interface": "jupyterlab", "binderhub_url": "https://mybinder.org"}
    if site := site_address(address):
        launch["colab_url"] = "https://colab.research.google.com"
        config.html_baseurl = config.ogp_site_url = site
        config.html_context["site"] = site
    config.ogp_image = "_static/map.png"
    config.ogp_social_cards = {"enable": False}
    config.html_theme_options |= {
        "repository_url": address,
        "repository_branch": BRANCH,
        "use_repository_button": True,
        "use_edit_page_button": True,
        "use_issues_button": True,
        "launch_buttons": launch,
    }


def with_install_cell(notebook, address):
    """Return the notebook with a first code cell that installs `vae_utils` from `address`."""
    source, tags = INSTALL.format(address=address), {"tags": ["install"]}
    cell = nbformat.v4.new_code_cell(source, id="install-vae-utils", metadata=tags)
    notebook.cells.insert(1, cell)
    return notebook


def _settle_launch_buttons(app, page, template, context, doctree):
    groups = context.get("header_buttons", [])
    if not app.env.doc2path(page).endswith(".ipynb"):  # Binder and Colab open notebooks only
        groups[:] = [group for group in groups if group.get("label") != "launch-buttons"]
    for group in groups:
        for button in group.get("buttons", []):
            if button["text"] == "Colab":
                button["url"] = button["url"].replace(f"/blob/{BRANCH}/", f"/blob/{COLAB_BRANCH}/")
            if button["text"] == "Binder":  # opens the working copies, which `postBuild` writes
                button["url"] = button["url"].replace("=lab/tree/book/", "=lab/tree/my_copies/")


def _install_in_copies(app, error, address):
    if error is not None or app.builder.format != "html":
        return
    for page in app.env.found_docs:
        copy = Path(app.outdir, "_sources", f"{page}.ipynb")
        if copy.exists():
            notebook = with_install_cell(nbformat.read(copy, as_version=4), address)
            nbformat.write(notebook, copy)


def _write_site_map(app, error):
    if error is not None or app.builder.format != "html" or not app.config.html_baseurl:
        return
    urls = (urljoin(app.config.html_baseurl, f"{page}.html") for page in app.env.found_docs)
    entries = "".join(f"<url><loc>{url}</loc></url>\n" for url in sorted(urls))
    Path(app.outdir, "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{entries}</urlset>\n'
    )
