"""What chapter 5 builds in the open is what `vae_utils` offers, and its estimators are right."""

from pathlib import Path
from types import SimpleNamespace

import keras
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from scipy.stats import norm

from vae_utils import evaluation, models, plots

CHAPTER = "05_latent_plot"
BOOK = Path(__file__).parent.parent / "book"
PAGES = [nbformat.read(path, as_version=4) for path in sorted((BOOK / CHAPTER).glob("*.ipynb"))]
SOURCES = {cell.id: cell.source for page in PAGES for cell in page.cells}
FUNCTIONS = ("imports", "seed", "points-to-prior", "whitening", "active-by-hand")
COUNT = 400


@pytest.fixture(scope="module")
def chapter(chapter_code):
    """The chapter's functions, and its first figures drawn with codes made up here."""
    random = np.random.default_rng(0)
    namespace = chapter_code(CHAPTER, *FUNCTIONS)
    labels = random.permutation(np.arange(COUNT) % 10)
    namespace |= {
        "mean": random.normal(size=(COUNT, 2)),
        "sigma": random.uniform(0.05, 0.3, size=(COUNT, 2)),
        "area": random.uniform(size=COUNT),
        "digits": SimpleNamespace(y_test=labels, x_test=random.random((COUNT, 28, 28, 1))),
    }
    keras.utils.set_random_seed(0)
    namespace["vae"] = models.build_vae("dense")
    cells = ("quantiles-by-hand", "grid-density", "mixture-density", "manifold-by-hand")
    run(namespace, *cells)
    yield namespace
    plt.close("all")


def run(namespace, *ids):
    for cell_id in ids:
        exec(compile(SOURCES[cell_id], cell_id, "exec"), namespace)


def test_the_scatter_plot_shows_the_same_points_in_the_same_colours(chapter):
    run(chapter, "scatter-by-hand")
    ours = chapter["ax"].collections
    theirs = plots.latent_scatter(chapter["mean"], chapter["digits"].y_test).axes[0].collections
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.get_offsets(), b.get_offsets())
        np.testing.assert_array_equal(a.get_facecolor(), b.get_facecolor())


def test_the_ellipses_are_the_same(chapter):
    run(chapter, "scatter-by-hand", "ellipses-by-hand")
    chosen, (_, other) = chapter["chosen"], plt.subplots()
    log_var = 2 * np.log(chapter["sigma"][chosen])
    plots.posterior_ellipses(other, chapter["mean"][chosen], log_var, deviations=2)
    ours = [(p.center, p.width, p.height) for p in chapter["ax"].patches[:-1]]
    theirs = [(p.center, p.width, p.height) for p in other.patches]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(np.hstack(a), np.hstack(b))


def test_the_grid_of_images_is_the_same(chapter):
    run(chapter, "extremes")
    theirs = plots.image_grid(chapter["digits"].x_test[chapter["rows"]], columns=8).axes
    for a, b in zip(chapter["axes"].flat, theirs, strict=True):
        np.testing.assert_array_equal(a.images[0].get_array(), b.images[0].get_array())
        assert a.images[0].get_cmap() == b.images[0].get_cmap()
        assert a.images[0].get_clim() == b.images[0].get_clim() == (0, 1)


def test_the_decoded_plane_is_the_same(chapter):
    ticks = chapter["ticks"]
    np.testing.assert_array_equal(ticks, plots.prior_quantiles(15))
    ours, theirs = chapter["decoded_plane"](ticks, ticks), plots.decoded_plane(chapter["vae"], 15)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_active_units_are_the_same(chapter):
    keras.utils.set_random_seed(1)
    vae = models.build_vae("dense", latent_dim=7)
    x = np.random.default_rng(1).random((200, 28, 28, 1), dtype="float32")
    ours = chapter["active_units"](vae.encode(x)[0])
    assert 0 < ours.sum() < 7 or ours.all()
    np.testing.assert_array_equal(ours, evaluation.active_units(vae, x))


def test_both_densities_of_a_mixture_agree_with_the_sum_of_its_parts(chapter):
    random = np.random.default_rng(2)
    mean, log_var = random.normal(size=(30, 2)), random.uniform(-3, 0, size=(30, 2))
    axis = np.linspace(-2, 2, 9)
    nodes = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    parts = norm.pdf(nodes[:, np.newaxis], mean, np.exp(0.5 * log_var)).prod(axis=-1)
    density = parts.mean(axis=1)
    np.testing.assert_allclose(chapter["grid_density"](mean, log_var, axis).ravel(), density)
    log_density = chapter["log_mixture"](nodes, mean, log_var)
    np.testing.assert_allclose(log_density, np.log(density), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (1.0, 0.5), (-0.5, 1.5)])
def test_neighbours_find_the_distance_of_a_gaussian_from_the_prior(chapter, shift, scale):
    z = shift + scale * np.random.default_rng(3).standard_normal((8000, 2))
    exact = 2 * 0.5 * (shift**2 + scale**2 - 1 - 2 * np.log(scale))
    assert abs(chapter["distance_to_prior"](z) - exact) < 0.06


def test_whitened_codes_have_mean_zero_and_covariance_one(chapter):
    random = np.random.default_rng(4)
    z = random.standard_normal((500, 2)) @ random.normal(size=(2, 2)) + [3, -1]
    white = chapter["whiten"](z, z)
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.cov(white.T), np.eye(2), atol=1e-12)


def test_the_widths_of_one_page_are_the_precisions_of_another(chapter):
    run(chapter, "curvature", "ellipse-widths")
    z = np.random.default_rng(5).normal(size=(20, 2)).astype("float32")
    ours = chapter["widths"](z, chapter["vae"])
    np.testing.assert_allclose(ours, 1 / np.sqrt(chapter["precision"](z)), rtol=1e-5)


def test_quadrature_finds_the_distance_of_a_gaussian_from_the_prior(chapter):
    run(chapter, "points-quadrature")
    mean, log_var = np.full((3, 2), [1.0, -0.5]), np.full((3, 2), [-1.0, 0.5])
    exact = 0.5 * np.sum(mean[0] ** 2 + np.exp(log_var[0]) - 1 - log_var[0])
    assert abs(chapter["quadrature"](mean, log_var) - exact) < 1e-3
