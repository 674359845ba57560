"""Chapter 1 defines small models by hand: here they meet closed forms and other libraries."""

import re
from pathlib import Path

import numpy as np
import pytest
from pybtex.database import parse_file
from scipy.integrate import quad
from scipy.optimize import check_grad
from scipy.special import logsumexp, softmax
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

CHAPTER = "01_history"
REFERENCES = Path(__file__).parent.parent / "book" / "references.bib"


@pytest.fixture(scope="module")
def crabs(chapter_code):
    """Return what the cells on Pearson's crabs define."""
    return chapter_code(CHAPTER, "imports", "em-data", "em-bound", "em-model")


@pytest.fixture(scope="module")
def toy(chapter_code):
    """Return what the cells on the toy with a hidden sign define."""
    ids = ("imports", "toy-model", "toy", "toy-elbo", "vi-elbo", "coin-elbo", "gradient-slope")
    return chapter_code(CHAPTER, *ids)


def test_the_timeline_has_the_years_of_the_bibliography(chapter_code):
    lists = chapter_code(CHAPTER, "timeline-codes", "timeline-causes", "timeline-meet")
    entries = parse_file(REFERENCES).entries
    works = lists["codes"] + lists["causes"] + lists["meetings"]
    assert len({key for *_, key in works}) == len(works)
    for year, *_, key in works:
        assert entries[key].fields["year"] == str(year), key
        assert re.search(r"\d{4}", key)[0] == str(year), key


def test_the_loss_of_the_linear_autoencoder_is_that_of_its_reconstructions(chapter_code):
    cells = chapter_code(CHAPTER, "imports", "linear-loss")
    random = np.random.default_rng(0)
    x = random.normal(size=(900, 784)) * np.linspace(0.1, 1, 784)
    x -= x.mean(axis=0)
    cells["covariance"] = x.T @ x / len(x)
    parameters = random.normal(0, 0.03, 2 * 784 * 2)
    encode, decode = parameters.reshape(2, 784, 2)
    error = np.square(x - x @ encode @ decode.T).sum(axis=1).mean()
    loss, gradient = cells["linear_loss"](parameters)
    assert loss == pytest.approx(error, rel=1e-10)
    direction = random.normal(size=len(parameters))

    ends = [cells["linear_loss"](parameters + step * direction)[0] for step in (-1e-5, 1e-5)]
    assert gradient @ direction == pytest.approx(np.diff(ends)[0] / 2e-5, rel=1e-5)


def test_pearsons_table_has_a_thousand_crabs_in_29_classes(crabs):
    assert sum(crabs["crabs"]) == 1000
    assert len(crabs["crabs"]) == len(crabs["points"]) == 29


def test_the_em_steps_are_those_of_scikit_learn(crabs):
    shares, means, deviations = np.array([0.4, 0.6]), np.array([13.0, 19.0]), np.array([4.0, 3.0])
    points = crabs["points"]
    column = np.repeat(points, crabs["crabs"])[:, np.newaxis]
    judge = GaussianMixture(
        2,
        weights_init=shares,
        means_init=means[:, np.newaxis],
        precisions_init=1 / deviations[:, np.newaxis, np.newaxis] ** 2,
        reg_covar=0,
        max_iter=1,
    )
    with pytest.warns(ConvergenceWarning):
        judge.fit(column)
    q = softmax(crabs["mixture_joint"](points, shares, means, deviations), axis=1)
    mass, new_means, new_deviations = crabs["m_step"](points, q)
    np.testing.assert_allclose(mass, judge.weights_, rtol=1e-6)
    np.testing.assert_allclose(new_means, judge.means_.ravel(), rtol=1e-6)
    np.testing.assert_allclose(new_deviations**2, judge.covariances_.ravel(), rtol=1e-6)


def test_the_bound_falls_short_of_the_log_likelihood_by_the_kl_divergence(crabs):
    joint = crabs["mixture_joint"](crabs["points"], [0.4, 0.6], [13, 19], [4, 3])
    posterior = softmax(joint, axis=1)
    q = softmax(np.random.default_rng(0).normal(size=joint.shape), axis=1)
    kl = crabs["each"] @ np.sum(q * np.log(q / posterior), axis=1)
    log_likelihood = crabs["each"] @ logsumexp(joint, axis=1)
    assert crabs["bound"](q, joint) == pytest.approx(log_likelihood - kl, abs=1e-12)


def test_the_evidence_and_the_bounds_of_the_toy_are_integrals(toy):
    log_joint = toy["log_joint"]
    evidence, _ = quad(lambda z: np.exp(log_joint(z)), -10, 10, points=[-1.4, 1.4])
    assert toy["log_evidence"] == pytest.approx(np.log(evidence), abs=1e-6)

    def integrand(z):
        return norm.pdf(z, 0.8, 0.4) * (log_joint(z) - norm.logpdf(z, 0.8, 0.4))

    assert toy["toy_elbo"](0.8, np.log(0.4)) == pytest.approx(quad(integrand, -6, 6)[0], abs=1e-6)

    def density(z):
        pair = norm.pdf(z, toy["vi_mean"], toy["vi_sd"]) + norm.pdf(
            z, -toy["vi_mean"], toy["vi_sd"]
        )
        return pair / 2

    def of_the_coin(z):
        return density(z) * (log_joint(z) - np.log(density(z)))

    exact = quad(of_the_coin, -4, 4, points=[-1.4, 0, 1.4], limit=200)[0]
    assert toy["coin_elbo"] == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("z", [-2.0, -0.3, 0.0, 1.4, 3.1])
def test_the_slope_of_the_toy_is_a_derivative(toy, z):
    def value(z):
        return toy["log_joint"](z[0])

    assert check_grad(value, lambda z: toy["slope"](z), [z]) < 1e-4
