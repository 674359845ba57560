"""Both terms of the ELBO against SciPy, quadrature, Monte Carlo and finite differences."""

import keras
import numpy as np
import pytest
from conftest import ON_JAX, gradients, only_with_tensorflow
from scipy import integrate, special, stats

from vae_utils import losses

# Means and log-variances from the prior itself to far away from it.
POSTERIORS = [(0.0, 0.0), (1.5, 0.0), (0.0, -4.0), (-0.7, 1.2), (3.0, -9.0), (0.2, 2.5)]


@pytest.fixture(scope="module", autouse=True)
def _float64():
    """Let JAX compute in float64, as NumPy, SciPy and TensorFlow do for arrays of float64."""
    if not ON_JAX:
        yield
        return
    import jax

    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def kl(mean, log_var):
    return array(losses.gaussian_kl(np.atleast_2d(mean), np.atleast_2d(log_var)))


# The rate


@pytest.mark.parametrize(("mean", "log_var"), POSTERIORS)
def test_kl_is_the_integral_of_its_definition(mean, log_var):
    q = stats.norm(mean, np.exp(log_var / 2))
    expected, error = integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z)),
        *(mean + np.exp(log_var / 2) * np.array([-12, 12])),
    )
    assert error < 1e-6
    assert kl([mean], [log_var])[0] == pytest.approx(expected, abs=1e-7)


def test_kl_is_the_mean_log_ratio_of_samples(random):
    mean, log_var = np.transpose(POSTERIORS)
    q = stats.norm(mean, np.exp(log_var / 2))
    z = q.rvs((200_000, len(mean)), random_state=random)
    log_ratio = (q.logpdf(z) - stats.norm.logpdf(z)).sum(axis=1)
    error = log_ratio.std() / np.sqrt(len(z))
    assert abs(kl(mean, log_var)[0] - log_ratio.mean()) < 4 * error


def test_kl_is_the_sum_over_latent_dimensions():
    mean, log_var = np.transpose(POSTERIORS)
    each = kl(mean[:, np.newaxis], log_var[:, np.newaxis])
    assert each.shape == (len(POSTERIORS),)
    np.testing.assert_allclose(kl(mean, log_var), [each.sum()])


def test_kl_is_zero_only_at_the_prior():
    assert kl([0, 0, 0.0], [0, 0, 0.0])[0] == 0
    steps = np.linspace(-3, 3, 61)
    mean, log_var = (grid.reshape(-1, 1) for grid in np.meshgrid(steps, steps))
    values = kl(mean, log_var)
    assert (values >= 0).all()
    assert np.argmin(values) == np.flatnonzero((mean == 0) & (log_var == 0))
    assert np.sort(values)[1] > 0


def test_kl_of_float32_is_not_negative_but_for_rounding(random):
    mean, log_var = random.normal(0, 1e-3, (2, 1000, 5)).astype("float32")
    assert kl(mean, log_var).dtype == np.float32
    assert kl(mean, log_var).min() > -1e-6


def test_the_gradient_of_the_kl_is_the_mean_and_half_of_the_excess_variance(random):
    mean, log_var = random.normal(size=(2, 4, 3))
    by_mean, by_log_var = gradients(losses.gaussian_kl, mean, log_var)
    np.testing.assert_allclose(by_mean, mean)
    np.testing.assert_allclose(by_log_var, 0.5 * np.expm1(log_var))


# The distortion


def test_the_bernoulli_term_is_scipys_log_probability_of_binary_images(random):
    x = random.integers(0, 2, (5, 6, 4, 1)).astype(float)
    logits = random.normal(0, 3, x.shape)
    expected = -stats.bernoulli.logpmf(x, special.expit(logits)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(losses.bernoulli_nll(x, logits), expected)


def test_the_bernoulli_probabilities_of_all_binary_images_add_up_to_one(random):
    x = np.array(np.meshgrid(*[[0.0, 1.0]] * 6)).reshape(6, -1).T.reshape(64, 3, 2)
    logits = np.broadcast_to(random.normal(size=(3, 2)), x.shape)
    assert np.exp(-array(losses.bernoulli_nll(x, logits))).sum() == pytest.approx(1)


def test_for_grey_images_the_bernoulli_term_is_the_cross_entropy(random):
    x = random.uniform(size=(5, 6, 4, 1))
    logits = random.normal(0, 3, x.shape)
    p = special.expit(logits)
    expected = -(special.xlogy(x, p) + special.xlogy(1 - x, 1 - p)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(losses.bernoulli_nll(x, logits), expected)


def test_the_bernoulli_term_of_an_image_is_smallest_at_its_own_grey(random):
    x = random.uniform(0.05, 0.95, (1, 12))
    own = array(losses.bernoulli_nll(x, special.logit(x)))
    assert own == pytest.approx(special.entr(x).sum() + special.entr(1 - x).sum())
    for direction in random.normal(size=(50, *x.shape)):
        assert losses.bernoulli_nll(x, special.logit(x) + 0.1 * direction) > own


@pytest.mark.parametrize("logit", [-1e4, 1e4])
@pytest.mark.parametrize("pixel", [0.0, 0.25, 1.0])
def test_extreme_logits_cost_what_they_should_and_no_nan(logit, pixel):
    x, logits = np.full((1, 1), pixel, "float32"), np.full((1, 1), logit, "float32")
    expected = 1e4 * (1 - pixel if logit > 0 else pixel)
    assert array(losses.bernoulli_nll(x, logits))[0] == pytest.approx(expected)
    (gradient,) = gradients(lambda logits: losses.bernoulli_nll(x, logits), logits)
    assert gradient[0, 0] == pytest.approx((logit > 0) - pixel)


def test_the_gaussian_term_is_scipys_log_density(random):
    x, mean, log_var = random.normal(size=(3, 5, 6, 4, 1))
    expected = -stats.norm.logpdf(x, mean, np.exp(log_var / 2)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(losses.gaussian_nll(x, mean, log_var), expected)


@pytest.mark.parametrize("log_var", [-5.0, 0.0, 2.0])
def test_one_noise_variance_for_all_pixels_is_an_isotropic_gaussian(random, log_var):
    x, mean = random.normal(size=(2, 5, 4, 2))
    expected = [
        -stats.multivariate_normal.logpdf(image.ravel(), centre.ravel(), np.exp(log_var))
        for image, centre in zip(x, mean)
    ]
    np.testing.assert_allclose(losses.gaussian_nll(x, mean, log_var), expected)


def test_a_density_above_one_makes_the_gaussian_term_negative():
    x = np.zeros((1, 3))
    assert array(losses.gaussian_nll(x, x, -6.0))[0] == pytest.approx(1.5 * np.log(2 * np.pi) - 9)


# Both


TERMS = {
    "KL": (losses.gaussian_kl, 2),
    "Bernoulli": (losses.bernoulli_nll, 2),
    "Gaussian": (losses.gaussian_nll, 3),
}


@pytest.mark.parametrize("term", ["Bernoulli", "Gaussian"])
@pytest.mark.parametrize("shape", [(3, 7), (3, 28, 28), (3, 28, 28, 1), (3, 4, 5, 3), (1, 2, 2)])
def test_a_loss_is_one_number_per_image(term, shape, random):
    function, inputs = TERMS[term]
    values = function(*random.uniform(size=(inputs, *shape)))
    assert values.shape == shape[:1]
    flat = function(*random.uniform(size=(inputs, shape[0], np.prod(shape[1:]))))
    assert flat.shape == shape[:1]


def test_an_image_costs_the_same_whatever_stands_beside_it(random):
    x, logits = random.uniform(size=(2, 4, 5, 5, 1))
    together = array(losses.bernoulli_nll(x, logits))
    apart = [array(losses.bernoulli_nll(x[[i]], logits[[i]]))[0] for i in range(4)]
    np.testing.assert_allclose(together, apart)


@pytest.mark.parametrize("term", TERMS)
def test_gradients_agree_with_finite_differences(term, random):
    function, inputs = TERMS[term]
    values = random.uniform(0.1, 0.9, (inputs, 3, 4))
    exact = np.stack(gradients(function, *values))
    step = 1e-6
    for place in np.ndindex(values.shape):
        nudge = np.zeros_like(values)
        nudge[place] = step
        change = array(function(*(values + nudge))) - array(function(*(values - nudge)))
        assert exact[place] == pytest.approx(change.sum() / (2 * step), abs=1e-7)


MISMATCHES = [
    ((4, 28, 28), (4,)),  # which broadcasts to (4, 28, 28) + (4,): nonsense, if 28 is 4
    ((4, 4), (4,)),
    ((4, 28, 28, 1), (4, 28, 28)),
    ((4, 28, 28), (4, 784)),
    ((4, 3), (4, 1)),
    ((4, 3), (1, 3)),
    ((4, 3), (5, 3)),
]


@pytest.mark.parametrize(("one", "other"), MISMATCHES)
@pytest.mark.parametrize("term", TERMS)
def test_what_would_broadcast_into_nonsense_is_refused(term, one, other):
    function, inputs = TERMS[term]
    rest = [0.0] * (inputs - 2)
    for a, b in ((one, other), (other, one)):
        with pytest.raises(ValueError, match="must have the same shape. Received") as caught:
            function(np.zeros(a), np.zeros(b), *rest)
        assert f"of shape {a}" in str(caught.value)
        assert f"of shape {b}" in str(caught.value)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (1, 3), (3,)])
def test_a_noise_variance_that_is_neither_one_number_nor_an_image_is_refused(shape):
    x = np.zeros((4, 3))
    with pytest.raises(ValueError, match="x and log_var must have the same shape"):
        losses.gaussian_nll(x, x, np.zeros(shape))


@only_with_tensorflow("JAX knows every shape")
def test_shapes_are_compared_as_far_as_a_graph_knows_them():
    import tensorflow as tf

    unknown = tf.TensorSpec((None, 4, 4, 1))
    flat = tf.TensorSpec((None, 4, 4))
    graph = tf.function(losses.bernoulli_nll).get_concrete_function(unknown, unknown)
    assert graph.structured_outputs.shape.as_list() == [None]
    with pytest.raises(ValueError, match=r"x of shape \(None, 4, 4\), logits of shape \(None, 4"):
        tf.function(losses.bernoulli_nll).get_concrete_function(flat, unknown)
