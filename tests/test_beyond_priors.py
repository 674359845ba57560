"""Priors that learn: densities against SciPy, scikit-learn, quadrature and finite differences."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special, stats
from sklearn.mixture import GaussianMixture

from vae_utils import evaluation, models
from vae_utils.beyond import priors

AXIS = np.linspace(-9, 9, 241)
PLANE = np.stack(np.meshgrid(AXIS, AXIS), -1).reshape(-1, 2).astype("float32")


@pytest.fixture
def random():
    keras.utils.set_random_seed(0)
    return np.random.default_rng(0)


def shaken(layer, random, size=0.5):
    for weight in layer.weights:
        weight.assign(weight + size * random.standard_normal(weight.shape))
    return layer


def small_vae(latent_dim=2, **kwargs):
    """Return a VAE with broad posteriors."""
    vae = models.build_vae("dense", latent_dim, (4, 4, 1), seed=0, **kwargs)
    vae.encoder.set_weights([0.5 * weight for weight in vae.encoder.get_weights()])
    return vae


@pytest.fixture(params=["mixture", "vamp", "flow"])
def prior(request, random):
    if request.param == "mixture":
        return shaken(priors.Mixture(3, 2, seed=0), random, 0.2)
    if request.param == "vamp":
        return shaken(priors.VampPrior(small_vae().encoder, random.random((5, 4, 4, 1))), random)
    return shaken(priors.Flow(4, 2, width=8), random, 0.2)


def test_a_density_adds_up_to_one_and_samples_follow_it(prior):
    density = np.exp(ops.convert_to_numpy(prior.log_prob(PLANE)).astype(float))
    cell = (AXIS[1] - AXIS[0]) ** 2
    assert density.sum() * cell == pytest.approx(1, abs=0.01)
    z = prior.sample(20_000, seed=1)
    mean = density @ PLANE * cell
    second = density @ PLANE**2 * cell
    for found, wanted in ((z, mean), (z**2, second)):
        error = found.std(0) / np.sqrt(len(z))
        assert (abs(found.mean(0) - wanted) < 5 * error + 0.01).all()


def test_a_mixture_has_the_density_that_scikit_learn_gives_it(random):
    ours = shaken(priors.Mixture(4, 3, seed=0), random)
    theirs = GaussianMixture(4)
    theirs.weights_ = special.softmax(ours.logits.numpy().astype(float))
    theirs.means_ = ours.means.numpy()
    theirs.precisions_cholesky_ = ours.roots().numpy()
    z = random.standard_normal((50, 3)).astype("float32")
    np.testing.assert_allclose(ours.log_prob(z), theirs.score_samples(z), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("latent_dim", [2, 3, 5])
def test_a_flow_can_be_undone_and_its_determinant_is_right(random, latent_dim):
    flow = shaken(priors.Flow(3, latent_dim, width=8), random, 0.3)
    z = random.standard_normal((7, latent_dim)).astype("float32")
    noise, log_det = flow.to_noise(z)
    np.testing.assert_allclose(flow.from_noise(noise), z, atol=1e-4)
    step = 1e-2 * np.eye(latent_dim, dtype="float32")
    columns = [
        (flow.to_noise(z + s)[0].numpy() - flow.to_noise(z - s)[0].numpy()) / 2e-2 for s in step
    ]
    _, exact = np.linalg.slogdet(np.stack(columns, -1))
    assert np.median(abs(log_det - exact)) < 5e-3  # a step across a kink of ReLU is off


def test_the_kl_term_of_a_gaussian_prior_is_the_closed_form(random):
    base, images = small_vae(), random.integers(0, 2, (4000, 4, 4, 1)).astype("float32")
    prior = priors.Mixture(1, 2)
    shift, sd = np.array([[0.5, -0.3]]), np.array([[2.0, 0.7]])
    prior.means.assign(shift)
    prior.log_diagonals.assign(-np.log(sd))
    vae = priors.VAE(base.encoder, base.decoder, prior, seed=0)
    vae.compile()
    logged = vae.evaluate(images, batch_size=100, verbose=0, return_dict=True)
    mean, log_var = vae.encode(images)
    apart = (np.exp(log_var) + (mean - shift) ** 2) / sd**2
    exact = 0.5 * np.sum(apart - 1 - log_var + 2 * np.log(sd), axis=1)
    assert logged["kl"] == pytest.approx(exact.mean(), abs=0.1)
    assert logged["loss"] == pytest.approx(logged["reconstruction"] + logged["kl"], rel=1e-5)


def test_fit_moves_the_prior_and_the_encoder_is_counted_once(random):
    base, images = small_vae(), random.integers(0, 2, (200, 4, 4, 1)).astype("float32")
    vae = priors.VAE(base.encoder, base.decoder, priors.VampPrior(base.encoder, images[:5]))
    count = len(base.trainable_variables) + 2
    assert len(vae.trainable_variables) == count
    before = vae.prior.pseudo_inputs.numpy()
    vae.compile()
    vae.fit(images, epochs=1, verbose=0)
    assert abs(vae.prior.pseudo_inputs.numpy() - before).max() > 0
    assert not priors.VampPrior(base.encoder, images[:5]).trainable_variables[2:]


def test_the_bound_is_the_evaluations_for_the_normal_prior_and_exact_with_many_samples(random):
    vae, x = small_vae(), random.integers(0, 2, (40, 4, 4, 1)).astype("float32")
    z, rest = priors.log_weights(vae, x, 2000, seed=1)
    ours = priors.log_likelihood(lambda z: stats.norm.logpdf(z).sum(1), z, rest)
    np.testing.assert_allclose(ours, evaluation.log_likelihood(vae, x, 2000), atol=0.3)
    prior = shaken(priors.Mixture(2, 2, seed=0), random, 0.2)
    ours = priors.log_likelihood(lambda z: prior.log_prob(z).numpy(), z, rest)
    logits = vae.decode(PLANE).reshape(len(PLANE), -1)
    pixels = x.reshape(len(x), -1)
    given = pixels @ logits.T - np.logaddexp(0, logits).sum(1)
    density = prior.log_prob(PLANE).numpy().astype(float)
    exact = special.logsumexp(given + density, axis=1) + 2 * np.log(AXIS[1] - AXIS[0])
    np.testing.assert_allclose(ours.mean(), exact.mean(), atol=0.1)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: priors.Mixture(0, 2), "components=0"),
    (lambda: priors.Mixture(2, 1.5), "latent_dim=1.5"),
    (lambda: priors.Flow(2, 1), "latent_dim=1"),
    (lambda: priors.Flow(0, 2), "couplings=0"),
    (lambda: priors.VampPrior(None, np.zeros((0, 4, 4, 1))), r"shape \(0, 4, 4, 1\)"),
    (lambda: priors.VampPrior(None, np.full((2, 4, 4, 1), 255, "uint8")), "uint8"),
    (lambda: priors.VampPrior(None, np.full((2, 4, 4, 1), np.nan)), "float64"),
    (lambda: priors.log_weights(None, np.zeros((1, 4, 4, 1)), 0), "num_samples=0"),
    (lambda: priors.log_weights(None, np.zeros((0, 4, 4, 1))), r"shape \(0, 4, 4, 1\)"),
])  # fmt: skip
def test_what_cannot_be_a_prior_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
