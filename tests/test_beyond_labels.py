"""M2: its bounds against enumeration and quadrature, its loss against a classifier's."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats

from vae_utils.beyond import labels

AXIS = np.linspace(-12, 12, 1201)
STEP = AXIS[1] - AXIS[0]


@pytest.fixture
def random():
    keras.utils.set_random_seed(0)
    return np.random.default_rng(0)


def small(random, **kwargs):
    m2 = labels.build(5, 3, 1, width=8, seed=0, **kwargs)
    for weight in m2.trainable_variables:
        weight.assign(weight + 0.1 * random.standard_normal(weight.shape))
    return m2


def every_image():
    return np.array(list(np.ndindex(*[2] * 5)), "float32")


def log_joint(m2, x, density):
    """log p(x, y, z) on the grid, `(n, classes, grid)`."""
    z = np.tile(AXIS[None, :, None], (3, 1, 1)).astype("float32")
    y = np.repeat(np.eye(3, dtype="float32")[:, None], len(AXIS), axis=1)
    given = density(x, np.asarray(m2.decoder([z, y]), float))
    return given + stats.norm.logpdf(AXIS) - np.log(3)


def bernoulli(x, logits):
    each = special.log_expit(np.where(x[:, None, None] > 0, logits, -logits))
    return each.sum(axis=-1)


def test_the_model_adds_up_to_one_and_both_bounds_are_below(random):
    m2, x = small(random), every_image()
    log_pxy = special.logsumexp(log_joint(m2, x, bernoulli), axis=2) + np.log(STEP)
    assert np.exp(log_pxy).sum() == pytest.approx(1, abs=1e-4)
    costs = np.mean([m2.costs_of_all(x) for _ in range(200)], axis=0)
    bounds = np.mean([m2.bound(x) for _ in range(200)], axis=0)
    assert (costs > -log_pxy).mean() > 0.95  # but for the noise of the draws
    assert np.mean(costs + log_pxy) > 0
    assert np.mean(bounds + special.logsumexp(log_pxy, axis=1)) > 0


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_gap_is_the_divergence_from_the_exact_posterior(random, likelihood):
    m2, x = small(random, likelihood=likelihood), every_image()

    def gaussian(x, mean):
        scale = np.exp(0.5 * float(m2.log_var))
        return stats.norm.logpdf(x[:, None, None], mean, scale).sum(axis=-1)

    log_p = log_joint(m2, x, bernoulli if likelihood == "bernoulli" else gaussian)
    log_px = special.logsumexp(log_p, axis=(1, 2)) + np.log(STEP)
    y = np.repeat(np.eye(3, dtype="float32")[None], len(x), axis=0)
    mean, log_var = (np.asarray(t, float) for t in m2.encoder([tf.constant(x), tf.constant(y)]))
    log_q = stats.norm.logpdf(AXIS, mean, np.exp(log_var / 2))
    np.testing.assert_allclose(np.exp(log_q).sum(axis=2) * STEP, 1, atol=1e-3)
    log_q += special.log_softmax(m2.classify(x).astype(float), axis=1)[..., None]
    kl = np.sum(np.exp(log_q) * (log_q - log_p), axis=(1, 2)) * STEP + log_px
    assert kl.min() > 0
    draws = np.array([m2.bound(x).mean() for _ in range(400)], float)
    error = draws.std() / np.sqrt(len(draws))
    assert draws.mean() == pytest.approx(np.mean(kl - log_px), abs=5 * error + 1e-3)


def test_the_unlabelled_cost_is_least_for_the_posterior_of_the_costs(random):
    costs = random.uniform(0, 5, (20, 4)).astype("float32")
    best = -special.logsumexp(-costs, axis=1)
    np.testing.assert_allclose(labels.unlabelled_cost(-costs, costs), best, atol=1e-5)
    other = labels.unlabelled_cost(random.normal(size=(20, 4)).astype("float32"), costs)
    assert (np.asarray(other) > best).all()
    sure = labels.unlabelled_cost(1000 * np.eye(4, dtype="float32")[:1], costs[:1])
    assert float(sure[0]) == pytest.approx(costs[0, 0], rel=1e-5)


def test_the_loss_is_the_weighted_sum_of_its_logged_parts(random):
    m2 = small(random, alpha=7.0, share=0.3)
    free, told = (random.integers(0, 2, (n, 5)).astype("float32") for n in (8, 6))
    y = np.eye(3, dtype="float32")[random.integers(3, size=6)]
    once = tf.data.Dataset.from_tensors(((free, told, y),))
    logged = {key: value[0] for key, value in labels.train(m2, once, 1e-9).history.items()}
    parts = logged["free"] + 0.3 * logged["told"] + 7 * logged["crossed"]
    assert logged["loss"] == pytest.approx(parts, rel=1e-5)
    log_q = special.log_softmax(m2.classify(told), axis=1)
    assert logged["crossed"] == pytest.approx(-np.mean(np.sum(y * log_q, axis=1)), rel=1e-4)


def test_two_clusters_need_one_label_each(random):
    clean = np.repeat(np.eye(2, dtype="float32"), 10, axis=1)[random.integers(2, size=300)]
    x = np.where(random.random(clean.shape) < 0.05, 1 - clean, clean).astype("float32")
    m2 = labels.build(20, 2, 1, width=16, seed=0)
    told, y = np.repeat(np.eye(2, dtype="float32"), 10, axis=1), np.eye(2, dtype="float32")
    steps = tf.data.Dataset.from_tensor_slices(x).batch(100).repeat(50)
    batches = steps.map(lambda free: ((free, told, y),))
    labels.train(m2, batches, 1e-2)
    assert np.mean(m2.classify(x).argmax(axis=1) == clean[:, 10]) > 0.98


def test_as_many_rows_of_each_class_are_picked(random):
    y = random.integers(4, size=200)
    rows = labels.pick(y, 7, seed=1)
    assert len(set(rows)) == 28
    assert np.bincount(y[rows]).tolist() == [7] * 4
    assert (rows == labels.pick(y, 7, seed=1)).all()
    assert (rows != labels.pick(y, 7, seed=2)).any()


@pytest.mark.parametrize(("make", "message"), [
    (lambda: labels.build(0), "size"),
    (lambda: labels.build(5, 2.5), "2.5"),
    (lambda: labels.build(likelihood="poisson"), "poisson"),
    (lambda: labels.pick(np.array([0, 0, 1]), 2), "1 of class 1"),
])  # fmt: skip
def test_what_makes_no_model_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
