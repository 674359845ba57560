"""The judge's distance against SciPy's matrix root, and on images that are real, few or noise."""

import numpy as np
import pytest
from scipy import linalg

from vae_utils.beyond import judge


def test_the_distance_is_that_of_two_gaussians_by_the_matrix_root():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(500, 5)), 1 + random.normal(size=(400, 5)) @ np.diag(range(1, 6))
    s1, s2 = np.cov(a.T), np.cov(b.T)
    apart = np.sum((a.mean(0) - b.mean(0)) ** 2)
    exact = apart + np.trace(s1 + s2 - 2 * linalg.sqrtm(s1 @ s2).real)
    assert np.isclose(judge.frechet(a, b), exact)
    assert abs(judge.frechet(a, a)) < 1e-6


def test_real_images_are_nearer_than_images_of_one_digit_and_these_than_noise(bundled):
    of_digits = judge.Judge(bundled, seed=0)
    real = bundled.x_test
    ones = bundled.x_train[bundled.y_train == 1][: len(real)]
    noise = np.random.default_rng(0).random(real.shape, dtype="float32")
    near, middle, far = map(of_digits.distance, (real, ones, noise))
    assert 0 < near < 0.5 * middle
    assert near < 0.5 * far


@pytest.mark.parametrize("features", [np.zeros((1, 3)), np.zeros(3), np.full((4, 3), np.nan)])
def test_features_without_a_covariance_are_refused(features):
    with pytest.raises(ValueError, match="Received: shape"):
        judge.frechet(features, np.eye(3))
