"""What chapter 13 builds in the open is what `vae_utils.beyond.diffusion` offers."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats
from scipy.special import expit

from vae_utils.beyond import diffusion

CHAPTER = "13_diffusion"
LEARNED = (
    "alpha-sigma",
    "cost",
    "bound-of",
    "network",
    "diffusion",
    "levels-even",
    "levels-cosine",
    "denoise",
)


@pytest.fixture(scope="module")
def chapter(chapter_code):
    return chapter_code(CHAPTER, "imports", "seed", *LEARNED)


@pytest.fixture
def random():
    keras.utils.set_random_seed(0)
    return np.random.default_rng(0)


def velocity(z, log_snr):
    return ops.sin(2 * ops.convert_to_tensor(z)) * ops.convert_to_tensor(log_snr)[:, None] / 5


def test_the_ends_and_the_schedules_are_the_same(chapter):
    t = np.linspace(0, 1, 21, dtype="float32")
    assert (chapter["HIGH"], chapter["LOW"]) == diffusion.ENDS
    for name in ("even", "cosine"):
        ours, theirs = chapter[name](t), getattr(diffusion, name)(t)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_cost_of_a_level_is_the_same(chapter, random):
    x, noise = random.standard_normal((2, 50, 3)).astype("float32")
    levels = random.uniform(-5, 8, 50).astype("float32")
    ours = chapter["cost"](velocity, x, levels, noise)
    np.testing.assert_allclose(ours, diffusion.cost(velocity, x, levels, noise), rtol=1e-5)


def test_the_bound_is_the_same_but_for_the_draws(chapter, random):
    x = random.standard_normal((2000, 2)).astype("float32")
    apart = chapter["bound"](velocity, x) - diffusion.bound(velocity, x, seed=7)
    assert abs(apart.mean()) < 5 * apart.std() / np.sqrt(len(x))


def test_the_network_says_the_same(chapter, random):
    ours, theirs = chapter["Diffusion"](2, diffusion.even, 0), diffusion.Diffusion(2)
    for weight, other in zip(ours.network.weights, theirs.network.weights, strict=True):
        weight.assign(weight + 0.1 * random.standard_normal(weight.shape))
        other.assign(weight)
    z, levels = random.standard_normal((9, 2)).astype("float32"), np.linspace(-5, 8, 9)
    levels = levels.astype("float32")
    np.testing.assert_allclose(
        ours.velocity(z, levels), theirs.velocity(z, levels), rtol=1e-4, atol=1e-5
    )
    x = random.standard_normal((20_000, 2)).astype("float32")
    mine, other = (ops.convert_to_numpy(model(x)) for model in (ours, theirs))
    error = np.hypot(mine.std(), other.std()) / np.sqrt(len(x))
    assert abs(mine.mean() - other.mean()) < 5 * error


def test_the_walk_without_fresh_noise_is_the_same(chapter, random):
    noise = random.standard_normal((30, 2))
    ours = chapter["denoise"](velocity, noise, 12, noisy=False)
    theirs = diffusion.denoise(velocity, noise, 12)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("width", ["narrow", "wide"])
def test_a_noisy_step_back_has_bayes_mean_and_one_of_two_variances(chapter, width):
    """Two steps with x̂ = 0.8 known for sure: z after the first, by Bayes' rule on a grid."""
    log_t, log_s, x, z_t = -0.5, 1.0, 0.8, 0.3
    seen = []

    def sure(z, log_snr):
        seen.append(z)
        alpha, sigma = np.sqrt(expit(log_snr))[:, None], np.sqrt(expit(-log_snr))[:, None]
        return ((alpha * z - x) / sigma).astype("float32")

    chapter["denoise"](
        sure, np.full((100_000, 1), z_t), 2, width, lambda t: log_s + (log_t - log_s) * t
    )
    z = np.linspace(-4, 4, 4001)
    dimmed = np.sqrt(expit(log_t) / expit(log_s))
    forward = expit(-log_t) - dimmed**2 * expit(-log_s)
    p = stats.norm.pdf(z, np.sqrt(expit(log_s)) * x, np.sqrt(expit(-log_s)))
    p *= stats.norm.pdf(z_t, dimmed * z, np.sqrt(forward))
    p /= p.sum()
    variance = p @ z**2 - (p @ z) ** 2 if width == "narrow" else forward
    assert seen[1].mean() == pytest.approx(p @ z, abs=0.01)
    assert seen[1].std() == pytest.approx(np.sqrt(variance), rel=0.02)


def test_guidance_is_the_same(chapter_code, random):
    page = chapter_code(CHAPTER, "imports", "guided")
    model = page["model"] = diffusion.Diffusion(2, labels=3, width=8)
    for weight in model.trainable_variables:
        weight.assign(weight + 0.2 * random.standard_normal(weight.shape))
    z, levels = random.standard_normal((4, 2)).astype("float32"), np.full(4, 0.3, "float32")
    label = np.array([0, 1, 2, 0], "int32")
    ours, theirs = page["guided"](label, 1.5)(z, levels), model.of(label, 1.5)(z, levels)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
