"""Diffusion as a density: Gaussian data have closed forms, and so has Bayes' rule."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import integrate, stats
from scipy.special import expit

from vae_utils.beyond import diffusion

SD = np.array([0.6, 1.3])


@pytest.fixture
def random():
    keras.utils.set_random_seed(0)
    return np.random.default_rng(0)


def best_for_gaussian(z, log_snr):
    """E[α ε − σ x | z] for x ~ N(0, SD²): a linear regression of v on z."""
    alpha, sigma = np.sqrt(expit(log_snr))[:, None], np.sqrt(expit(-log_snr))[:, None]
    covariance, variance = alpha * sigma * (1 - SD**2), alpha**2 * SD**2 + sigma**2
    return (covariance / variance * np.asarray(z)).astype("float32")


def zero(z, log_snr):
    return ops.zeros_like(z)


def shaken(model, random, size=0.2):
    for weight in model.trainable_variables:
        weight.assign(weight + size * random.standard_normal(weight.shape))
    return model


@pytest.mark.parametrize("schedule", [diffusion.even, diffusion.cosine])
def test_a_schedule_falls_from_one_end_to_the_other(schedule):
    levels = ops.convert_to_numpy(schedule(np.linspace(0, 1, 101)))
    np.testing.assert_allclose(levels[[0, -1]], diffusion.ENDS, rtol=1e-5)
    assert (np.diff(levels) < 0).all()


def test_the_cosine_is_a_cosine():
    alpha, _ = diffusion.alpha_sigma(diffusion.cosine(np.linspace(0, 1, 11)))
    np.testing.assert_allclose(np.diff(np.arccos(ops.convert_to_numpy(alpha)), 2), 0, atol=1e-6)


def test_signal_and_noise_have_the_ratio_and_add_up():
    log_snr = np.linspace(-7, 9, 9)
    alpha, sigma = map(ops.convert_to_numpy, diffusion.alpha_sigma(log_snr))
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-6)
    np.testing.assert_allclose(2 * np.log(alpha / sigma), log_snr, atol=1e-5)


def test_a_network_that_says_zero_is_the_standard_normal(random):
    x = 3 * random.standard_normal((400, 3)).astype("float32")
    nats = diffusion.bound(zero, x, 8)
    np.testing.assert_allclose(nats, -stats.norm.logpdf(x).sum(1), rtol=1e-5)
    untrained = diffusion.Diffusion(3, width=8)
    np.testing.assert_allclose(diffusion.bound(untrained.velocity, x, 8), nats, rtol=1e-5)


def test_the_best_denoiser_of_a_gaussian_has_its_density_as_bound(random):
    x = random.standard_normal((4000, 2)) * 1.5  # not draws from it: it holds for every x
    off = diffusion.bound(best_for_gaussian, x, 64, seed=1) + stats.norm.logpdf(x, 0, SD).sum(1)
    assert abs(off.mean()) < 5 * off.std() / np.sqrt(len(off)) + 2e-3
    along = np.polyfit(np.sum(x**2, axis=1), off, 1)[0]
    assert abs(along) < 0.01


def test_a_level_costs_what_quadrature_over_the_noise_says(random):
    """½ Λ α² E‖v̂ − v‖² is ½ Λ SNR E‖x − x̂‖²: Kingma et al. (2021), with x̂ = α z − σ v̂."""
    x, log_snr = 0.7, np.float32(1.2)
    alpha, sigma = np.sqrt(expit(log_snr)), np.sqrt(expit(-log_snr))

    def velocity(z, _):
        return ops.sin(2 * z)

    def squared_error(eps):
        z = alpha * x + sigma * eps
        guess = alpha * z - sigma * np.sin(2 * z)
        plain = alpha * z
        return ((x - guess) ** 2 - (x - plain) ** 2) * stats.norm.pdf(eps)

    exact = integrate.quad(squared_error, -8, 8)[0] * np.exp(log_snr)
    exact *= 0.5 * (diffusion.ENDS[0] - diffusion.ENDS[1])
    noise = random.standard_normal((200_000, 1)).astype("float32")
    levels, rows = np.full(len(noise), log_snr), np.full((len(noise), 1), x, "float32")
    found = np.asarray(diffusion.cost(velocity, rows, levels, noise)) + stats.norm.logpdf(x)
    assert found.mean() == pytest.approx(exact, abs=5 * found.std() / np.sqrt(len(found)))


@pytest.mark.parametrize("schedule", [diffusion.even, diffusion.cosine])
def test_without_fresh_noise_a_gaussian_is_stretched(random, schedule):
    noise = random.standard_normal((50, 2))
    x = diffusion.denoise(best_for_gaussian, noise, 1000, schedule)
    np.testing.assert_allclose(x / noise, np.broadcast_to(SD, x.shape), rtol=0.02)


def test_training_brings_the_bound_near_the_entropy_of_a_gaussian(random):
    x = (random.standard_normal((4000, 2)) * SD).astype("float32")
    model = diffusion.Diffusion(2, width=32, depth=2, seed=0)
    assert diffusion.train(model, x, 15, peak=1e-2) > 0
    entropy = stats.norm.entropy(0, SD).sum()
    lost = diffusion.bound(model.velocity, x, 32) + stats.norm.logpdf(x, 0, SD).sum(1)
    before = diffusion.bound(zero, x, 32).mean() - entropy
    assert lost.mean() < 0.3 * before
    assert lost.mean() > -5 * lost.std() / np.sqrt(len(x))


def test_a_model_learns_from_the_labels_and_without(random):
    label = random.integers(0, 2, 4000).astype("int32")
    x = (np.where(label, 0.9, -0.9) + 0.4 * random.standard_normal(4000)).astype("float32")[:, None]
    model = diffusion.Diffusion(1, labels=2, width=32, depth=2, seed=0)
    diffusion.train(model, (x, label), 15, peak=1e-2)
    known = diffusion.bound(model.of(label), x, 64).mean()
    unknown = diffusion.bound(model.velocity, x, 64).mean()
    assert known < stats.norm.entropy(0, 0.4) + 0.15
    assert unknown - known == pytest.approx(0.62, abs=0.15)  # I(x; label) is a bit less than log 2
    drawn = diffusion.denoise(model.of(1), random.standard_normal((500, 1)), 50)
    assert drawn.mean() == pytest.approx(0.9, abs=0.1)


def test_guidance_exaggerates_what_the_label_changes(random):
    model = shaken(diffusion.Diffusion(2, labels=3, width=8), random)
    z, levels = random.standard_normal((2, 5, 2)).astype("float32")[0], np.full(5, 0.3, "float32")
    with_label, without = model.of(2)(z, levels), model.velocity(z, levels)
    assert np.abs(with_label - without).max() > 1e-3
    np.testing.assert_allclose(model.of(2, 1.5)(z, levels), without + 2.5 * (with_label - without),
                               rtol=1e-4, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize(("make", "message"), [
    (lambda: diffusion.Diffusion(0), "dimensions=0"),
    (lambda: diffusion.Diffusion(2, width=1.5), "width=1.5"),
    (lambda: diffusion.Diffusion(2, labels=-1), "labels=-1"),
    (lambda: diffusion.Diffusion(2).of(1), "below 0. Received: 1"),
    (lambda: diffusion.Diffusion(2, 3).of([0, 3]), r"\[0 3\]"),
    (lambda: diffusion.Diffusion(2, 3).of(0.5), "0.5"),
    (lambda: diffusion.bound(zero, np.zeros((3, 2)), 0), "levels=0"),
    (lambda: diffusion.bound(zero, np.zeros(3)), r"shape \(3,\)"),
    (lambda: diffusion.bound(zero, np.full((3, 2), np.nan)), r"shape \(3, 2\)"),
    (lambda: diffusion.denoise(zero, np.zeros((3, 2)), 0), "steps=0"),
])  # fmt: skip
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
