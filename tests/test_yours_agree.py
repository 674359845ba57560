"""What the chapter "Yours" builds in the open agrees with `vae_utils` and with SciPy."""

import keras
import numpy as np
import pytest
from scipy import stats
from sklearn.decomposition import PCA

from vae_utils import evaluation, models
from vae_utils.yours import report

SIDE = 8
RANDOM = np.random.default_rng(0)
X = RANDOM.uniform(0, 1, (40, SIDE, SIDE, 3))
X = (np.rint(255 * X) / 255).astype("float32")


@pytest.fixture(scope="module")
def page(chapter_code):
    """Return what the cells of the pages define that the report and the models have as well."""
    cells = ("logistic", "logistic-means", "bernoulli-noise", "gain", "bits-function", "rival")
    names = chapter_code("yours", "imports", *cells)
    names.update(SEED=0, SIDE=SIDE, DIMENSIONS=3 * SIDE**2)  # of cells that need data
    return names


@pytest.fixture
def networks():
    keras.utils.set_random_seed(0)
    base = models.build_vae("linear", 16, (SIDE, SIDE, 3))
    return base.encoder, base.decoder


def test_bits_per_dimension_are_those_of_the_report(page):
    nats = np.array([-300.0, 0.0, 700.0])
    for width in (1 / 255, 1):
        expected = report.bits_per_dimension(nats, 3 * SIDE**2, width)
        np.testing.assert_allclose(page["in_bits"](nats, width), expected)


def test_a_gain_is_a_mean_with_scipys_standard_error(page):
    better, worse = RANDOM.normal(size=(2, 50))
    expected = (worse - better).mean(), stats.sem(worse - better)
    np.testing.assert_allclose(page["gain"](better, worse), expected)


def test_the_page_decodes_a_sample_with_the_kl_of_the_evaluation(page, networks):
    vae = models.VAE(*networks)
    _, kl = page["decoded"](vae, X)
    np.testing.assert_allclose(kl, evaluation.elbo_terms(vae, X)[1], rtol=1e-5)


def mass(x, mean, scale):
    """Return the probability of levels under a logistic distribution, by SciPy."""
    noise = stats.logistic(mean, scale)
    low = np.where(x < 0.5 / 255, 0, noise.cdf(x - 0.5 / 255))
    high = np.where(x > 254.5 / 255, 1, noise.cdf(x + 0.5 / 255))
    return high - low


@pytest.mark.parametrize("name", ["DiscretizedLogistic", "LogisticAroundMeans"])
def test_the_logistic_likelihoods_are_those_of_scipy(page, networks, name):
    vae = page[name](*networks)
    means = RANDOM.uniform(0.05, 0.95, X.shape)
    outputs = means if name == "LogisticAroundMeans" else np.log(means / (1 - means))
    nats = vae.reconstruction_term(X, outputs.astype("float32"))
    expected = -np.log(mass(X.astype("float64"), means, np.exp(-3.5))).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(nats, expected, rtol=2e-3)


def test_the_rival_starts_as_probabilistic_pca(page):
    """Posterior and decoder, against the equations of Tipping and Bishop with dense matrices."""
    x = RANDOM.normal(size=(500, 20)) @ RANDOM.normal(size=(20, 192)) / 60 + 0.5
    x += 0.05 * RANDOM.normal(size=x.shape)
    pca = PCA(16).fit(x)
    rival = page["pca_with_logistic_noise"](pca)
    W, mu = (weight.numpy().astype("float64") for weight in rival.decoder.weights)
    noise = pca.noise_variance_
    np.testing.assert_allclose(W.T @ W + noise * np.eye(192), pca.get_covariance(), atol=1e-5)
    M = W @ W.T + noise * np.eye(16)
    images = x[:10].reshape(-1, SIDE, SIDE, 3)
    mean, log_var = keras.tree.map_structure(np.asarray, rival.encoder(images.astype("float32")))
    np.testing.assert_allclose(mean, np.linalg.solve(M, W @ (x[:10] - mu).T).T, atol=1e-3)
    np.testing.assert_allclose(np.exp(log_var[0]), noise * np.diag(np.linalg.inv(M)), rtol=1e-3)
    assert np.exp(float(rival.log_scale)) * np.pi / 3**0.5 == pytest.approx(noise**0.5)
