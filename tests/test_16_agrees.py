"""What chapter 16 builds in the open is what `vae_utils.beyond` offers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from vae_utils.beyond import factors, labels

CHAPTER = "16_labels_and_factors"


@pytest.fixture
def random():
    keras.utils.set_random_seed(0)
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def chapter(chapter_code):
    cells = ("imports", "seed", "unlabelled", "networks", "costs", "m2")
    cells += ("grid-of-values", "sprites", "information", "gap", "metric", "total-correlation")
    return chapter_code(CHAPTER, *cells, "layer", "crowd", "crowd-loss")


def test_the_loss_of_few_labels_is_the_same(chapter, random):
    networks = chapter["networks"](6, 3, 2, 8)
    for network in networks[1:]:  # no noise in z, and none in the comparison
        for weight in network.weights:
            weight.assign(weight + 0.3 * random.standard_normal(weight.shape))
    mean, log_var = networks[1].outputs
    sure = keras.Model(networks[1].inputs, [mean, log_var - 40.0])
    ours, theirs = (kind(networks[0], sure, networks[2]) for kind in (chapter["M2"], labels.M2))
    x = random.integers(0, 2, (20, 6)).astype("float32")
    y = np.eye(3, dtype="float32")[random.integers(3, size=8)]
    batch = tf.constant(x[8:]), tf.constant(x[:8]), tf.constant(y)
    mine, other = ours(batch), theirs(batch)
    for part in ("free", "told", "crossed"):
        np.testing.assert_allclose(mine[part], other[part], rtol=1e-5)
    losses = [float(m2.compute_loss(batch, None, out, None)) for m2, out in
              ((ours, mine), (theirs, other))]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert [len(m2.trainable_variables) for m2 in (ours, theirs)] == [16, 16]


def test_the_modules_networks_are_the_pages(chapter):
    ours, built = chapter["networks"](30, 10, 4, 8), labels.build(30, 10, 4, 8)
    theirs = built.classifier, built.encoder, built.decoder
    for one, other in zip(ours, theirs, strict=True):
        shapes = [sorted(tuple(w.shape) for w in net.weights) for net in (one, other)]
        assert shapes[0] == shapes[1]


def test_the_sprites_are_the_same(chapter):
    images, values = factors.sprites()
    np.testing.assert_array_equal(chapter["values"], values)
    np.testing.assert_array_equal(chapter["draw"](values)[..., None], images)


def test_the_measures_are_the_same(chapter, random):
    mean = random.standard_normal((6144, 3)) + chapter["values"][:, 1:4]
    log_var = random.normal(-1, 0.3, mean.shape)
    ours, theirs = chapter["information"](mean, log_var), factors.information(mean, log_var)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    assert chapter["gap"](ours) == factors.gap(theirs)
    assert chapter["metric"](mean) == factors.beta_vae_metric(mean, 0)


def test_a_crowds_loss_is_the_same(chapter, random):
    settings = [1, 3, 1, 1], [1, 1, 6, 1], [0, 0, 0, 1]
    ours, theirs = chapter["Learner"](*settings), factors.Crowd(*settings, width=64, seed=0)
    x = random.integers(0, 2, (16, 4, 400)).astype("float32")
    v = random.standard_normal((16, 4, 5)).astype("float32")
    shown = np.repeat(np.arange(16) < 4, 4).reshape(16, 4).astype("float32")
    batch = tuple(map(tf.constant, (x, v, shown)))
    ours(batch)
    for one, other in zip(ours.trainable_variables, theirs.trainable_variables, strict=True):
        other.assign(one)
    ours.sampling.seed_generator.state.assign(theirs.sampling.seed_generator.state)
    mine = float(ours.compute_loss(batch, None, ours(batch), None))
    other = float(theirs.compute_loss(batch, None, theirs(batch), None))
    assert mine == pytest.approx(other, rel=1e-5)
