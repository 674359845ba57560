"""The estimator of chapter 10 and its loss are those of `vae_utils`."""

import keras
import numpy as np
import pytest

from vae_utils import evaluation, models
from vae_utils.beyond import importance, scale

CELLS = (
    "imports",
    "estimate-by-hand",
    "estimate-by-hand-2",
    "vae-log-weights",
    "vae-curves-2",
    "class-by-hand",
    "class-by-hand-2",
)


@pytest.fixture(scope="module")
def chapter(chapter_code):
    return chapter_code("10_likelihoods", *CELLS)


@pytest.fixture(scope="module")
def vae():
    keras.utils.set_random_seed(0)
    return models.build_vae("dense", latent_dim=2, image_shape=(4, 4, 1), seed=0)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 2, (3, 4, 4, 1)).astype("float32")


def test_the_estimate_is_that_of_evaluation(chapter, vae, images):
    chapter |= {"vae": vae, "rng": np.random.default_rng(1)}
    ours = chapter["estimate"](chapter["log_weights"](images, 5000))
    np.testing.assert_allclose(ours, evaluation.log_likelihood(vae, images, 5000), atol=0.05)


def test_the_bound_is_that_of_the_class(chapter, vae):
    log_weights = np.random.default_rng(0).normal(-90, 5, (8, 4)).astype("float32")
    iwae = importance.IWAE(vae.encoder, vae.decoder, samples=4)
    np.testing.assert_allclose(
        chapter["iwae_bound"](log_weights), iwae.bound(log_weights), rtol=1e-6
    )
    averaged = chapter["AveragedVAE"](vae.encoder, vae.decoder, samples=4)
    np.testing.assert_allclose(averaged.bound(log_weights), log_weights.mean(1), rtol=1e-6)


def test_the_error_of_a_mean_is_that_of_the_scale(chapter):
    values = np.random.default_rng(0).normal(90, 5, 50)
    assert chapter["mean_and_error"](values) == scale.mean_and_error(values)
