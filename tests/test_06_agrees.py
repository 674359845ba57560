"""What chapter 6 builds in the open agrees with `vae_utils`, SciPy and closed forms."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist
from scipy.special import expit

from vae_utils import models

CHAPTER = "06_generation"
CELLS = ("imports", "seed", "straight", "textbook-slerp", "slerp")
MEMORY = ("squared-distances", "nearest", "share-nearer", "share-seen")
MORE = ("frechet", "frechet-of-features", "drawing", "temperature-measure")


@pytest.fixture(scope="module")
def chapter(chapter_code):
    return chapter_code(CHAPTER, *CELLS, *MEMORY, *MORE)


def test_decode_mean_is_the_sigmoid_of_the_logits():
    keras.utils.set_random_seed(0)
    vae = models.build_vae("dense")
    z = np.random.default_rng(0).normal(size=(7, 2))
    np.testing.assert_allclose(expit(vae.decode(z)), vae.decode_mean(z), atol=1e-6)


def test_the_arc_moves_angle_and_length_evenly(chapter):
    """In the plane points are complex numbers, and an arc is both moving evenly."""
    t, random = np.linspace(0, 1, 11), np.random.default_rng(1)
    for first, last in random.normal(size=(20, 2, 2)):
        begin, end = complex(*first), complex(*last)
        turn = np.angle(end / begin)  # the short way round
        arc = np.exp(1j * (np.angle(begin) + t * turn)) * (abs(begin) * (1 - t) + abs(end) * t)
        wanted = np.stack([arc.real, arc.imag], axis=1)
        np.testing.assert_allclose(chapter["slerp"](first, last, t), wanted, atol=1e-9)


def test_the_arc_in_many_dimensions_turns_in_the_plane_of_its_ends(chapter):
    t, random = np.linspace(0, 1, 11)[:, np.newaxis], np.random.default_rng(6)
    first, last = random.normal(size=(2, 20))
    across = last - (last @ first) / (first @ first) * first
    along, across = first / np.linalg.norm(first), across / np.linalg.norm(across)
    turn = t * np.arctan2(last @ across, last @ along)
    lengths = np.linalg.norm(first) * (1 - t) + np.linalg.norm(last) * t
    wanted = lengths * (np.cos(turn) * along + np.sin(turn) * across)
    np.testing.assert_allclose(chapter["slerp"](first, last, t[:, 0]), wanted, atol=1e-9)


def test_the_nearest_image_is_scipys(chapter):
    random = np.random.default_rng(2)
    levels = random.integers(256, size=(300, 28, 28, 1)).astype("uint8")
    images = random.random((20, 28, 28, 1), dtype="float32")
    distance, row = chapter["nearest_image"](images, levels, at_once=70)
    exact = cdist(images.reshape(20, -1), levels.reshape(300, -1) / 255)
    np.testing.assert_allclose(distance, exact.min(axis=1), atol=1e-3)
    np.testing.assert_array_equal(row, exact.argmin(axis=1))


def test_the_frechet_distance_of_a_set_from_its_shifted_self_is_the_shift(chapter):
    features = np.random.default_rng(3).normal(size=(200, 5))
    shift = np.array([1.0, 0, 0, 2, 0])
    assert abs(chapter["frechet"](features, features + shift) - 5) < 1e-6


def test_the_distance_in_one_dimension_has_a_closed_form(chapter):
    frechet = chapter["gaussian_frechet"]
    one, four = np.array([[1.0]]), np.array([[4.0]])
    assert abs(frechet(np.zeros(1), one, np.ones(1), four) - 2) < 1e-9


def test_draws_from_a_mixture_have_its_mean_and_covariance(chapter):
    chapter["rng"] = np.random.default_rng(4)
    mixture = SimpleNamespace(
        weights_=np.array([0.3, 0.7]),
        means_=np.array([[0.0, 2.0], [1.0, -1.0]]),
        covariances_=np.array([[[1.0, 0.5], [0.5, 2.0]], [[0.2, 0.0], [0.0, 0.1]]]),
    )
    z = chapter["drawing"](mixture)(200_000)
    mean = mixture.weights_ @ mixture.means_
    centred = mixture.means_ - mean
    within = np.einsum("k,kij->ij", mixture.weights_, mixture.covariances_)
    between = np.einsum("k,ki,kj->ij", mixture.weights_, centred, centred)
    np.testing.assert_allclose(z.mean(axis=0), mean, atol=0.02)
    np.testing.assert_allclose(np.cov(z.T), within + between, atol=0.04)


def test_effective_classes_count_evenly_used_digits(chapter):
    assert abs(chapter["effective_classes"](np.arange(10)) - 10) < 1e-9
    assert abs(chapter["effective_classes"](np.full(50, 3)) - 1) < 1e-9
    skewed = np.repeat([0, 1], [3, 1])
    assert abs(chapter["effective_classes"](skewed) - np.exp(stats.entropy([3, 1]))) < 1e-9


def test_without_memory_the_share_seen_is_that_of_the_heap(chapter):
    """Distances that are all alike: four blocks' worth of seen to one of unseen."""
    random = np.random.default_rng(5)
    near = random.random((10, 400, 80)).min(axis=2)
    far = random.random((10, 400, 20)).min(axis=2)
    share, error = chapter["share_seen"](near, far)
    assert abs(share - 0.8) < 4 * error
    assert 0.01 < error < 0.08
