"""What chapter 13 builds in the open is what `vae_utils.beyond.diffusion` offers."""

import keras
import numpy as np
import pytest
from keras import ops

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
    return chapter_code(CHAPTER, "imports", "seed", "step-back", *LEARNED)


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
    theirs = diffusion.denoise(velocity, noise, 12, noisy=False)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_step_with_fresh_noise_has_mean_and_variance_of_page_ones_step_back(chapter, monkeypatch):
    monkeypatch.setattr(diffusion, "ENDS", (1.0, -0.5))
    seen = []

    def watched(z, log_snr):
        seen.append(np.asarray(z))
        return velocity(z, log_snr)

    z = np.full((100_000, 1), 0.3, "float32")
    diffusion.denoise(watched, z, 2, schedule=diffusion.even)
    alpha, sigma = map(float, diffusion.alpha_sigma(np.float32(-0.5)))
    guess = alpha * 0.3 - sigma * float(velocity(z[:1], np.full(1, -0.5, "float32"))[0, 0])
    mean, variance = chapter["step_back"](0.3, guess, -0.5, 1.0)
    assert seen[1].mean() == pytest.approx(mean, abs=0.01)
    assert seen[1].var() == pytest.approx(variance, rel=0.03)


def test_guidance_is_the_same(chapter_code, random):
    page = chapter_code(CHAPTER, "imports", "guided")
    model = page["model"] = diffusion.Diffusion(2, labels=3, width=8)
    for weight in model.trainable_variables:
        weight.assign(weight + 0.2 * random.standard_normal(weight.shape))
    z, levels = random.standard_normal((4, 2)).astype("float32"), np.full(4, 0.3, "float32")
    label = np.array([0, 1, 2, 0], "int32")
    ours, theirs = page["guided"](label, 1.5)(z, levels), model.of(label, 1.5)(z, levels)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
