"""The repository's address is read from one place, and nothing leads nowhere without it."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import repository

ROOT = Path(__file__).parent.parent
EXTENSIONS = str(ROOT / "_extensions")
CONFIGURATION = f"""
import sys
sys.path.insert(0, {EXTENSIONS!r})
extensions = ["myst_nb", "repository"]
html_theme = "sphinx_book_theme"
nb_execution_mode = "off"
"""


def pins(path):
    lines = (ROOT / path).read_text().splitlines()
    return {line.split(";")[0].strip() for line in lines if "==" in line and line[0] not in " #"}


def test_binder_runs_what_the_book_was_tested_with():
    assert len(pins("binder/requirements.txt")) > 50
    assert pins("binder/requirements.txt") <= pins("requirements.txt")


@pytest.fixture
def checkout(tmp_path):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)

    def with_remote(remote):
        subprocess.run(["git", "-C", tmp_path, "remote", "add", "origin", remote], check=True)
        return tmp_path

    return with_remote


@pytest.mark.parametrize(
    "remote",
    [
        "https://github.com/someone/a-book",
        "https://github.com/someone/a-book.git",
        "https://user:secret@github.com/someone/a-book.git",
        "git@github.com:someone/a-book.git",
        "ssh://git@github.com/someone/a-book.git",
    ],
)
def test_the_remote_of_the_checkout_names_the_repository(checkout, remote):
    address = repository.public_address({}, checkout(remote))
    assert address == "https://github.com/someone/a-book"


@pytest.mark.parametrize(
    "remote", ["/srv/git/a-book", "file:///srv/git/a-book", "../a-book", "https://localhost/a/b"]
)
def test_a_remote_that_readers_cannot_reach_is_none(checkout, remote):
    assert repository.public_address({}, checkout(remote)) is None


def test_no_remote_is_none(tmp_path):
    assert repository.public_address({}, tmp_path) is None


def test_in_a_workflow_github_names_the_repository(checkout):
    environ = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "fork/a-book"}
    address = repository.public_address(environ, checkout("git@github.com:someone/a-book.git"))
    assert address == "https://github.com/fork/a-book"


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("https://github.com/Someone/a-book", "https://someone.github.io/a-book/"),
        ("https://github.com/Someone/someone.github.io", "https://someone.github.io/"),
        ("https://gitlab.com/someone/a-book", None),
    ],
)
def test_github_publishes_the_site_under_its_owner(address, site):
    assert repository.site_address(address) == site


def test_what_the_theme_was_told_before_is_kept():
    config = SimpleNamespace(html_theme_options={"logo": {"text": "A book"}}, html_context={})
    repository.configure(config, "https://gitlab.com/someone/a-book")
    assert config.html_theme_options["logo"] == {"text": "A book"}
    assert config.html_theme_options["repository_url"] == "https://gitlab.com/someone/a-book"
    assert "colab_url" not in config.html_theme_options["launch_buttons"]  # opens GitHub's only


@pytest.fixture
def built(tmp_path):
    """Build a book of one notebook; return its page, and the folder of the site."""

    def build(**environ):
        (tmp_path / "conf.py").write_text(CONFIGURATION)
        cells = [nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell("1")]
        kernel = {"name": "python3", "display_name": "Python 3"}
        metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
        nbformat.write(notebook, tmp_path / "index.ipynb")
        command = [sys.executable, "-m", "sphinx", "-q", "-W", tmp_path, tmp_path / "site"]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("GITHUB_")}
        subprocess.run(command, check=True, env=clean | environ)
        return (tmp_path / "site" / "index.html").read_text(), tmp_path / "site"

    return build


def test_with_an_address_each_page_can_be_run_edited_and_shared(built):
    page, site = built(GITHUB_SERVER_URL="https://github.com", GITHUB_REPOSITORY="someone/a-book")
    assert "https://mybinder.org/v2/gh/someone/a-book/main?urlpath=lab/tree/index.ipynb" in page
    colab = "https://colab.research.google.com/github/someone/a-book/blob/colab/index.ipynb"
    assert colab in page
    assert "https://github.com/someone/a-book/edit/main/index.ipynb" in page
    assert "https://github.com/someone/a-book/issues/new" in page
    assert '<meta property="og:url" content="https://someone.github.io/a-book/index.html"' in page
    assert "https://someone.github.io/a-book/index.html" in (site / "sitemap.xml").read_text()
    copy = nbformat.read(site / "_sources" / "index.ipynb", as_version=4)
    assert [cell.source for cell in copy.cells if cell.id == "install-vae-utils"]


def test_binder_opens_the_working_copy_and_colab_the_plain_one():
    start = "https://mybinder.org/v2/gh/someone/a-book/main?urlpath=lab/tree"
    plain = "https://colab.research.google.com/github/someone/a-book/blob"
    binder = {"text": "Binder", "url": f"{start}/book/05_latent_plot/2_decoded_plane.ipynb"}
    colab = {"text": "Colab", "url": f"{plain}/main/book/05_latent_plot/2_decoded_plane.ipynb"}
    app = SimpleNamespace(env=SimpleNamespace(doc2path=lambda page: f"{page}.ipynb"))
    context = {"header_buttons": [{"label": "launch-buttons", "buttons": [binder, colab]}]}
    repository._settle_launch_buttons(app, "book/a", "page.html", context, None)
    assert binder["url"] == f"{start}/my_copies/05_latent_plot/2_decoded_plane.ipynb"
    assert colab["url"] == f"{plain}/colab/book/05_latent_plot/2_decoded_plane.ipynb"


def test_without_an_address_nothing_leads_nowhere(built):
    page, site = built()
    for word in ("mybinder", "colab", "issues/new", "/edit/", "og:url"):
        assert word not in page
    assert not (site / "sitemap.xml").exists()
    copy = nbformat.read(site / "_sources" / "index.ipynb", as_version=4)
    assert [cell.source for cell in copy.cells] == ["# Title", "1"]


def test_a_copy_installs_the_module_before_it_is_imported():
    cells = [
        nbformat.v4.new_markdown_cell("# Title"),
        nbformat.v4.new_code_cell("import vae_utils"),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    copy = repository.with_install_cell(notebook, "https://github.com/someone/a-book")
    nbformat.validate(copy)
    _, install, chapter = copy.cells
    assert install.metadata.tags == ["install"]
    assert '"git+https://github.com/someone/a-book"' in install.source
    assert chapter.source == "import vae_utils"
    exec(install.source)  # here the module is installed, so nothing happens
