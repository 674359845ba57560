"""ELBO and importance-weighted bound against likelihoods that are known exactly."""

import re
import sys

import keras
import numpy as np
import pytest
from conftest import ON_JAX, only_with_tensorflow, variables_are_copied
from scipy import linalg, special, stats
from sklearn.decomposition import PCA

from vae_utils import evaluation, models

pytestmark = variables_are_copied

N, SIZE, PIXELS = 300, (4, 4, 1), 16


@pytest.fixture(scope="module")
def x():
    """Return 300 images with two strong directions of variation and some noise."""
    random = np.random.default_rng(0)
    directions = linalg.orth(random.normal(size=(PIXELS, 2))) * [0.5, 0.3]
    x = 0.5 + random.normal(size=(N, 2)) @ directions.T + random.normal(0, 0.04, (N, PIXELS))
    return np.clip(x, 0, 1).reshape(N, *SIZE).astype("float32")


@pytest.fixture(scope="module")
def pca(x):
    return PCA(2).fit(x.reshape(N, PIXELS).astype(float))


@pytest.fixture(scope="module")
def exact(x, pca):
    """Return log p(x) of each image under probabilistic PCA, in closed form.

    Tipping & Bishop (1999): p(x) = N(μ, W Wᵀ + σ² I), where W = U (Λ − σ² I)^½ and σ² is the mean
    of the discarded eigenvalues. scikit-learn takes the eigenvalues of the unbiased covariance.
    """
    w, variance = principal_weights(x)
    covariance = w @ w.T + variance * np.eye(PIXELS)
    pixels = x.reshape(N, PIXELS).astype(float)
    exact = stats.multivariate_normal.logpdf(pixels, pixels.mean(axis=0), covariance)
    np.testing.assert_allclose(exact, pca.score_samples(pixels), rtol=1e-6)
    return exact


def principal_weights(x):
    eigenvalues, vectors = np.linalg.eigh(np.cov(x.reshape(N, PIXELS).astype(float).T))
    variance = eigenvalues[:-2].mean()
    return vectors[:, -2:] * np.sqrt(eigenvalues[-2:] - variance), variance


def ppca(x, mean_shift=0.0, log_var_shift=0.0):
    """Return the linear VAE that is probabilistic PCA, with its exact posterior as encoder.

    The posterior of this W has the precision (WᵀW + σ² I) / σ², which is diagonal: an encoder of
    the book's form can be exact. The shifts make it wrong on purpose.
    """
    w, variance = principal_weights(x)
    centre = x.reshape(N, PIXELS).astype(float).mean(axis=0)
    precision = w.T @ w + variance * np.eye(2)
    to_mean = np.linalg.solve(precision, w.T)
    log_var = np.log(variance / np.diag(precision))
    vae = models.build_vae("linear", image_shape=SIZE, seed=0)
    mean_layer, log_var_layer = (vae.encoder.get_layer(name) for name in ("mean", "log_var"))
    mean_layer.set_weights([to_mean.T, -to_mean @ centre + mean_shift])
    log_var_layer.set_weights([np.zeros((PIXELS, 2)), log_var + log_var_shift])
    vae.decoder.set_weights([w.T, centre])
    vae.pixel_log_var.assign(np.log(variance))
    return vae


@pytest.fixture(scope="module")
def vae(x):
    return ppca(x)


@pytest.fixture(scope="module")
def wrong(x):
    """Return the same model with a posterior too wide, and beside the right place."""
    return ppca(x, mean_shift=0.05, log_var_shift=1.0)


@pytest.fixture(scope="module")
def bernoulli():
    """Return a small Bernoulli VAE with broad posteriors, whose decoder bends the plane a lot."""
    keras.utils.set_random_seed(0)
    vae = models.build_vae("dense", image_shape=SIZE, seed=0)
    vae.encoder.set_weights([0.5 * weight for weight in vae.encoder.get_weights()])
    return vae


@pytest.fixture(scope="module")
def binary():
    return np.random.default_rng(1).integers(0, 2, (12, *SIZE)).astype("float32")


def elbos(vae, x, draws=64):
    """Return ELBO estimates of shape `(draws, n)`, one for each seed."""
    return np.array([-np.sum(evaluation.elbo_terms(vae, x, seed), 0) for seed in range(draws)])


def standard_error(estimates):
    """Return the standard error of the mean over draws (axis 0) and images."""
    return estimates.mean(axis=1).std(ddof=1) / np.sqrt(len(estimates))


# The linear VAE is probabilistic PCA


@pytest.mark.parametrize("num_samples", [1, 3, 64])
def test_with_the_exact_posterior_every_sample_tells_the_exact_likelihood(
    vae, x, exact, num_samples
):
    bound = evaluation.log_likelihood(vae, x, num_samples)
    np.testing.assert_allclose(bound, exact, atol=2e-3)


def test_with_the_exact_posterior_the_elbo_is_the_exact_likelihood(vae, x, exact):
    estimates = elbos(vae, x)
    assert standard_error(estimates) < 0.02
    assert abs(estimates.mean() - exact.mean()) < 4 * standard_error(estimates)
    each = estimates.std(axis=0, ddof=1) / np.sqrt(len(estimates))
    assert np.abs((estimates.mean(axis=0) - exact) / each).max() < 5


def test_a_wrong_posterior_costs_its_divergence_from_the_right_one(vae, wrong, x, exact):
    """log p(x) − ELBO = KL(q ‖ p(z|x)), which two Gaussians have in closed form."""
    mean, log_var = wrong.encode(x)
    right_mean, right_log_var = vae.encode(x)
    ratio = np.exp(log_var - right_log_var)
    apart = (mean - right_mean) ** 2 / np.exp(right_log_var)
    divergence = 0.5 * (ratio + apart - 1 - np.log(ratio)).sum(axis=1)
    assert divergence.mean() > 0.5
    estimates = elbos(wrong, x)
    error = standard_error(estimates)
    assert abs(exact.mean() - estimates.mean() - divergence.mean()) < 4 * error


def test_more_samples_close_the_gap_from_below(wrong, x, exact):
    bounds = [
        np.mean([evaluation.log_likelihood(wrong, x, k, seed).mean() for seed in range(4)])
        for k in (1, 4, 16, 64, 512)
    ]
    assert (np.diff(bounds) > 0).all()
    assert bounds[0] < exact.mean() - 0.5
    assert exact.mean() - 0.05 < bounds[-1] < exact.mean()


def test_one_sample_is_the_elbo_in_expectation(wrong, x):
    one = np.array([evaluation.log_likelihood(wrong, x, 1, seed) for seed in range(64)])
    analytic = elbos(wrong, x)
    error = np.hypot(standard_error(one), standard_error(analytic))
    assert abs(one.mean() - analytic.mean()) < 4 * error


@pytest.mark.parametrize("num_samples", [1, 8])
def test_the_weights_estimate_the_likelihood_without_bias(wrong, x, exact, num_samples):
    """The bound is a logarithm's; what stands under the logarithm is right on average."""
    draws = 400
    ratios = np.exp(
        [
            evaluation.log_likelihood(wrong, x[:5], num_samples, seed) - exact[:5]
            for seed in range(draws)
        ]
    )
    error = ratios.std(axis=0, ddof=1) / np.sqrt(draws)
    assert (np.abs(ratios.mean(axis=0) - 1) < 4.5 * error).all()


def test_training_a_linear_vae_finds_probabilistic_pca(x, exact, pca):
    keras.utils.set_random_seed(0)
    vae = models.build_vae("linear", image_shape=SIZE, seed=0)
    schedule = keras.optimizers.schedules.CosineDecay(0.02, 3000)
    vae.compile(keras.optimizers.Adam(schedule), steps_per_execution=100)
    vae.fit(np.tile(x, (100, 1, 1, 1)), batch_size=N, epochs=30, shuffle=False, verbose=0)
    bound = np.mean([evaluation.elbo(vae, x, seed) for seed in range(16)])
    assert bound == pytest.approx(exact.mean(), abs=0.2)
    assert evaluation.log_likelihood(vae, x).mean() == pytest.approx(exact.mean(), abs=0.2)
    noise = float(np.exp(vae.pixel_log_var.numpy()))
    assert noise == pytest.approx(pca.noise_variance_, rel=0.05)
    plane = vae.decoder.get_weights()[0].T
    assert np.degrees(linalg.subspace_angles(plane, pca.components_.T)).max() < 3


# A Bernoulli VAE, by quadrature over its latent plane


def test_the_bound_of_a_bernoulli_vae_converges_to_the_integral(bernoulli, binary):
    step = 0.05
    ticks = np.arange(-6, 6 + step, step)
    z = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    logits = bernoulli.decode(z).reshape(len(z), PIXELS).astype(float)
    pixels = binary.reshape(len(binary), PIXELS).astype(float)
    log_p = pixels @ special.log_expit(logits).T + (1 - pixels) @ special.log_expit(-logits).T
    log_prior = stats.norm.logpdf(z).sum(axis=1) + 2 * np.log(step)
    exact = special.logsumexp(log_p + log_prior, axis=1)

    bounds = np.array([evaluation.log_likelihood(bernoulli, binary, 4000, s) for s in range(3)])
    assert np.abs(bounds - exact).max() < 0.1
    loose = np.mean([evaluation.log_likelihood(bernoulli, binary, 4, s) for s in range(32)], axis=0)
    assert loose.mean() < exact.mean() - 0.05
    elbos = [evaluation.elbo(bernoulli, binary, seed) for seed in range(32)]
    assert np.mean(elbos) < loose.mean()


# Repeatable, whatever the machine


def test_the_parts_of_the_elbo_add_up_to_it(wrong, x):
    reconstruction, kl = evaluation.elbo_terms(wrong, x, seed=3)
    assert reconstruction.shape == kl.shape == (N,)
    assert (kl > 0).all()
    expected = -(reconstruction + kl).mean()
    assert evaluation.elbo(wrong, x, seed=3) == pytest.approx(expected, rel=1e-6)
    assert isinstance(evaluation.elbo(wrong, x), float)


def test_the_elbo_is_what_fit_and_evaluate_log_but_for_the_noise(wrong, x):
    wrong.compile()
    logged = [-wrong.evaluate(x, verbose=0)[0] for _ in range(24)]
    ours = [evaluation.elbo(wrong, x, seed=seed) for seed in range(24)]
    error = np.sqrt((np.var(logged, ddof=1) + np.var(ours, ddof=1)) / 24)
    assert abs(np.mean(logged) - np.mean(ours)) < 4 * error
    _, kl = evaluation.elbo_terms(wrong, x)
    assert wrong.evaluate(x, verbose=0, return_dict=True)["kl"] == pytest.approx(kl.mean())


@pytest.mark.parametrize("estimate", [evaluation.elbo, evaluation.log_likelihood])
def test_a_seed_repeats_the_numbers_and_another_changes_them(bernoulli, binary, estimate):
    first = np.copy(estimate(bernoulli, binary, seed=1))
    keras.utils.set_random_seed(5)  # what happens elsewhere does not matter
    np.testing.assert_array_equal(estimate(bernoulli, binary, seed=1), first)
    assert np.all(estimate(bernoulli, binary, seed=2) != first)


def test_log_likelihood_is_one_float64_for_each_image(bernoulli, binary):
    bound = evaluation.log_likelihood(bernoulli, binary)
    assert isinstance(bound, np.ndarray)
    assert (bound.shape, bound.dtype) == ((12,), np.float64)


@pytest.mark.parametrize("rows_at_once", [1, 7, 64, 100_000])
@pytest.mark.parametrize("num_samples", [1, 10])
def test_the_numbers_do_not_depend_on_how_much_fits_in_memory(
    bernoulli, binary, monkeypatch, rows_at_once, num_samples
):
    expected = evaluation.log_likelihood(bernoulli, binary, num_samples)
    expected_terms = evaluation.elbo_terms(bernoulli, binary)
    monkeypatch.setattr(bernoulli, "rows_at_once", lambda network: rows_at_once)
    bound = evaluation.log_likelihood(bernoulli, binary, num_samples)
    np.testing.assert_allclose(bound, expected, rtol=1e-5)
    terms = evaluation.elbo_terms(bernoulli, binary)
    rounding = 1e-6 if ON_JAX else 0  # of a KL near 0
    np.testing.assert_allclose(terms, expected_terms, rtol=1e-5, atol=rounding)


@pytest.mark.parametrize("num_samples", [1, 5, 33])
def test_no_more_is_decoded_at_once_than_fits_in_memory(
    bernoulli, binary, monkeypatch, num_samples
):
    monkeypatch.setattr(bernoulli, "rows_at_once", lambda network: 11)
    decoded, decoder = [], bernoulli.decoder.call

    def counting_decoder(z, **kwargs):
        decoded.append(len(z))
        return decoder(z, **kwargs)

    monkeypatch.setattr(bernoulli.decoder, "call", counting_decoder)
    evaluation.log_likelihood(bernoulli, binary, num_samples)
    assert sum(decoded) == 12 * num_samples
    assert max(decoded) <= 11


@only_with_tensorflow("Binder has no JAX, which takes 0.5 GiB for this")
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory in /proc")
def test_evaluating_the_conv_network_stays_within_binders_memory(run_python):
    """The kernel of a chapter may take 1 GiB; TensorFlow alone takes half of it."""
    code = """
        import re, numpy as np
        from vae_utils import evaluation, models

        def peak():
            return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

        vae = models.build_vae("conv", seed=0)
        x = np.zeros((1500, 28, 28, 1), "float32")
        before = peak()
        evaluation.elbo(vae, x)
        evaluation.log_likelihood(vae, x[:4], 600)
        print(peak() - before)
    """
    (kilobytes,) = run_python(code)
    assert int(kilobytes) < 400_000


@pytest.mark.parametrize("num_samples", [0, -1, 2.5, "8", True])
def test_a_number_of_samples_that_is_none_is_refused(bernoulli, binary, num_samples):
    message = re.escape(f"positive integer. Received: num_samples={num_samples!r}")
    with pytest.raises(ValueError, match=message):
        evaluation.log_likelihood(bernoulli, binary, num_samples)


# Active units


def test_a_unit_is_active_if_its_mean_varies_with_the_image(x):
    vae = ppca(x)
    assert evaluation.active_units(vae, x).tolist() == [True, True]
    layer = vae.encoder.get_layer("mean")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel * [0, 1], bias])  # the first unit ignores the image
    assert evaluation.active_units(vae, x).tolist() == [False, True]


def test_the_threshold_is_a_variance(x, vae):
    variance = vae.encode(x)[0].var(axis=0)
    assert evaluation.active_units(vae, x, variance.max() * 1.01).sum() == 0
    assert evaluation.active_units(vae, x, variance.max() * 0.99).sum() == 1
    assert evaluation.active_units(vae, x, variance.min() * 0.99).sum() == 2
