"""What chapter 2 builds in the open agrees with `vae_utils` and with closed forms."""

import keras
import numpy as np
import pytest
from scipy import stats

from vae_utils import evaluation, losses, models

TOY = ("imports", "toy-decoder", "log-normal", "log-joint", "quadrature", "log-evidence")


@pytest.fixture(scope="module")
def vae():
    keras.utils.set_random_seed(0)
    return models.build_vae("dense", seed=0)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((6, 28, 28, 1), dtype="float32")


def test_the_kl_to_the_prior_is_the_one_of_the_module(chapter_code):
    chapter = chapter_code("02_elbo", "imports", "kl-by-hand")
    mean, log_var = np.random.default_rng(1).normal(size=(2, 5, 10))
    ours = chapter["gaussian_kl"](mean, log_var)
    assert ours == pytest.approx(np.asarray(losses.gaussian_kl(mean, log_var)), rel=1e-5)


def test_the_likelihoods_of_pixels_are_those_of_the_module(chapter_code):
    chapter = chapter_code("02_elbo", "imports", "log-normal", "bernoulli-form")
    random = np.random.default_rng(2)
    x, logits = random.random((4, 7, 7, 1)), 3 * random.normal(size=(4, 7, 7, 1))
    bernoulli = chapter["bernoulli_form"](x, logits).sum(axis=(1, 2, 3))
    gaussian = -chapter["log_normal"](x, logits, 0.5).sum(axis=(1, 2, 3))
    assert bernoulli == pytest.approx(np.asarray(losses.bernoulli_nll(x, logits)), rel=1e-5)
    shared = losses.gaussian_nll(x, logits, 2 * np.log(0.5))
    assert gaussian == pytest.approx(np.asarray(shared), rel=1e-5)
    assert gaussian == pytest.approx(-stats.norm.logpdf(x, logits, 0.5).sum(axis=(1, 2, 3)))


def test_the_terms_of_the_elbo_are_those_of_the_module(chapter_code, vae, images):
    chapter = chapter_code("02_elbo", "imports", "kl-by-hand", "bernoulli-form", "elbo-terms")
    chapter["vae"] = vae
    noise = np.random.default_rng(3).standard_normal((len(images), 2), dtype="float32")
    for ours, shared in zip(
        chapter["elbo_terms"](images, noise), evaluation.elbo_terms(vae, images, seed=3)
    ):
        assert ours == pytest.approx(shared, rel=1e-4)


def test_the_importance_weighted_bound_is_the_one_of_the_module(chapter_code, vae, images):
    cells = ("log-likelihoods", "log-weights", "importance-bound")
    chapter = chapter_code("02_elbo", "imports", *cells)
    chapter["vae"] = vae
    q = np.concatenate(vae.encode(images), axis=1)
    noise = np.random.default_rng(4).standard_normal((len(images), 32, 2), dtype="float32")
    ours = chapter["importance_bound"](chapter["log_weights"](images, q, noise), 32)
    shared = evaluation.log_likelihood(vae, images, num_samples=32, seed=4)
    assert ours == pytest.approx(shared, rel=1e-4)


def test_the_table_of_log_joint_densities_holds_prior_and_likelihood(chapter_code, vae, images):
    chapter = chapter_code("02_elbo", "imports", "log-likelihoods", "plane")
    axes = np.linspace(-2, 2, 5), np.linspace(-1, 3, 4)
    plane = chapter["log_joint_on_plane"](vae, images, *axes)
    z = np.array([[axes[0][3], axes[1][1]]])
    nll = losses.bernoulli_nll(images, np.repeat(vae.decode(z), len(images), axis=0))
    wanted = stats.norm.logpdf(z).sum() - np.asarray(nll)
    assert plane[:, 3, 1] == pytest.approx(wanted, rel=1e-4)


def test_the_elbo_on_the_plane_and_its_maximum_have_their_closed_form(chapter_code):
    cells = ("plane-weights", "plane-elbo", "plane-moments", "plane-search")
    chapter = chapter_code("02_elbo", "imports", *cells)
    axis = chapter["AXIS"] = np.linspace(-5, 5, 401)
    (m1, s1), (m2, s2) = (1.0, 0.2), (-0.5, 0.1)
    one, two = stats.norm.logpdf(axis, m1, s1), stats.norm.logpdf(axis, m2, s2)
    plane = (-120 + one[:, np.newaxis] + two).astype("float32")
    q = np.array([0.9, -0.4, 2 * np.log(0.3), 2 * np.log(0.2)])
    kl = [
        np.log(s / t) + (t**2 + (q[j] - m) ** 2) / (2 * s**2) - 0.5
        for j, (m, s, t) in enumerate(((m1, s1, 0.3), (m2, s2, 0.2)))
    ]
    assert chapter["elbo_on_plane"](q, plane)[0] == pytest.approx(-120 - sum(kl), abs=1e-3)
    best = np.array([m1, m2, 2 * np.log(s1), 2 * np.log(s2)])
    assert chapter["moments"](plane) == pytest.approx(best, abs=1e-3)
    found, value = chapter["search"](plane, q)
    assert found == pytest.approx(best, abs=0.02)
    assert value == pytest.approx(-120, abs=0.01)


def test_the_toy_model_without_its_bend_is_a_gaussian(chapter_code):
    chapter = chapter_code("02_elbo", *TOY)
    x = np.linspace(-3, 3, 7)
    wanted = stats.norm.logpdf(x, scale=np.sqrt(1 + chapter["NOISE"] ** 2))
    assert chapter["log_evidence"](x, bend=0) == pytest.approx(wanted, abs=1e-10)


def test_the_toy_model_is_the_same_on_all_pages(chapter_code):
    first = chapter_code("02_elbo", *TOY, "gauss-hermite", "elbo-function")
    second = chapter_code("02_elbo", "imports", "kl-quadrature", "toy-again")
    third = chapter_code("02_elbo", "imports", "toy-model")
    x, mean = np.linspace(-3, 3, 7), np.linspace(1, -1, 7)
    wanted = first["log_evidence"](x)
    assert second["log_evidence"](x) == pytest.approx(wanted, abs=1e-10)
    wanted = first["elbo"](x, mean, -1.0)
    assert third["elbo"](x, mean, -1.0) == pytest.approx(wanted, abs=1e-10)
