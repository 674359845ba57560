"""What chapter 8 builds in the open, held against closed forms, quadrature and simulation."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy import stats
from scipy.special import expit, log_expit

from vae_utils import models

CHAPTER = "08_applications"


def test_the_misfit_of_clipped_noise_is_its_negative_log_likelihood(chapter_code):
    code = chapter_code(CHAPTER, "imports", "misfit-gaussian", "misfit-clipped")
    random = np.random.default_rng(0)
    logits = random.normal(size=300).astype("float32")
    p = expit(logits)
    noisy = np.clip(p + random.normal(scale=0.4, size=300), 0, 1).astype("float32")
    code["noisy"] = noisy
    density = stats.norm.logpdf(noisy, p, 0.4) + np.log(0.4 * np.sqrt(2 * np.pi))
    to_paper, to_ink = stats.norm.logcdf(-p / 0.4), stats.norm.logsf((1 - p) / 0.4)
    expected = -np.select([noisy == 0, noisy == 1], [to_paper, to_ink], density)
    np.testing.assert_allclose(code["clipped_misfit"](logits), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        code["gaussian_misfit"](logits), (noisy - p) ** 2 / 0.32, rtol=1e-4, atol=1e-5
    )


def test_the_error_of_a_difference_of_areas_is_the_spread_over_samples(chapter_code):
    code = chapter_code(CHAPTER, "imports", "auroc", "delong")
    code["y"] = y = np.repeat([0, 1], [150, 50])
    random = np.random.default_rng(0)
    differences, variances = [], []
    for _ in range(200):
        shared = random.normal(size=200) + y
        first, second = shared + random.normal(size=200), shared + 2 * random.normal(size=200)
        code["hunts"] = [None, {"first": first, "second": second}]
        difference, variance = code["gain"]("first", "second", 1)
        areas = [code["auroc"](score[y == 0], score[y == 1]) for score in (first, second)]
        assert difference == pytest.approx(areas[0] - areas[1])
        differences.append(difference)
        variances.append(variance)
    assert np.std(differences) == pytest.approx(np.sqrt(np.mean(variances)), rel=0.15)


def test_drawn_codes_follow_the_exact_posterior_of_a_model_with_one_latent_dimension(chapter_code):
    code = chapter_code(CHAPTER, "imports", "proposals", "draw-codes")
    keras.utils.set_random_seed(0)
    inputs, z = keras.Input((28, 28, 1)), keras.Input((1,))
    h = layers.Flatten()(inputs)
    heads = [layers.Dense(1)(h), layers.Dense(1, bias_initializer="ones")(h)]
    wide = keras.initializers.RandomNormal(stddev=2.0)
    logits = layers.Reshape((28, 28, 1))(layers.Dense(784, kernel_initializer=wide)(z))
    vae = models.VAE(keras.Model(inputs, heads), keras.Model(z, logits))
    seen = np.zeros((28, 28, 1), "float32")
    seen[0, :3] = 1.0
    random = np.random.default_rng(0)
    image = random.uniform(size=(28, 28, 1)).astype("float32")
    below = random.uniform(size=(30, 14 * 28)).astype("float32")
    code |= {"vae": vae, "seen": seen, "random": random, "below": below}

    images, neighbours = np.repeat(image[None], 50, axis=0), np.tile(np.arange(30), (50, 1))
    drawn = [code["draw_codes"](images, neighbours, count=1) for _ in range(20)]
    codes = np.concatenate([z[:, 0, 0] for z, _ in drawn])
    assert np.median([effective for _, effective in drawn]) > 20

    grid = np.linspace(-6, 6, 1001).astype("float32")
    logits = np.asarray(vae.decoder(grid[:, None]))
    log_seen = seen * (image * log_expit(logits) + (1 - image) * log_expit(-logits))
    log_p = log_seen.sum(axis=(1, 2, 3)) - 0.5 * grid**2
    weights = np.exp(log_p - log_p.max())
    weights /= weights.sum()
    mean = float(weights @ grid)
    spread = float(np.sqrt(weights @ (grid - mean) ** 2))
    assert codes.mean() == pytest.approx(mean, abs=4 * spread / 1000**0.5)
    assert codes.std() == pytest.approx(spread, rel=0.1)
