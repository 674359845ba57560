"""Loss, class, pipeline and recipe of chapter 4 are those of `vae_utils`."""

import keras
import numpy as np
import pytest

from vae_utils import data, losses, models, training

CHAPTER = "04_training"
CELLS = (
    "imports",
    "bernoulli-by-hand",
    "kl-by-hand",
    "class-call",
    "class-loss",
    "class-vae",
    "pipeline-by-hand",
    "schedule-by-hand",
    "train-by-hand",
)


@pytest.fixture(scope="module")
def chapter(chapter_code):
    return chapter_code(CHAPTER, *CELLS)


@pytest.fixture
def images(digits):
    return data.to_unit_interval(digits.train_levels[:70])


def small_networks():
    """Return an encoder with dropout and a decoder."""
    x = keras.Input((28, 28, 1))
    h = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    heads = [keras.layers.Dense(2)(h) for _ in range(2)]
    z = keras.Input((2,))
    logits = keras.layers.Reshape((28, 28, 1))(keras.layers.Dense(784)(z))
    return keras.Model(x, heads), keras.Model(z, logits)


def test_both_terms_are_those_of_losses(chapter):
    random = np.random.default_rng(0)
    x = random.uniform(size=(6, 28, 28, 1)).astype("float32")
    logits = random.normal(size=x.shape).astype("float32")
    mean, log_var = random.normal(size=(2, 1000, 3)).astype("float32")
    ours = chapter["bernoulli_nll"](x, logits)
    np.testing.assert_allclose(ours, losses.bernoulli_nll(x, logits), rtol=1e-6)
    ours = chapter["gaussian_kl"](mean, log_var)
    np.testing.assert_allclose(ours, losses.gaussian_kl(mean, log_var), rtol=1e-5)


def test_the_class_logs_what_the_model_of_the_book_logs(chapter, images):
    parts = models.build_vae("dense")
    logged = []
    for kind in (chapter["VAE"], models.VAE):
        vae = kind(parts.encoder, parts.decoder, seed=3)
        vae.compile("adam")
        logged.append(vae.evaluate(images, batch_size=30, verbose=0, return_dict=True))
    ours, theirs = logged
    assert ours.keys() == theirs.keys() == {"loss", "reconstruction", "kl"}
    for name, value in ours.items():
        assert value == pytest.approx(theirs[name], rel=1e-5)


def test_the_class_tells_its_networks_that_they_are_in_training(chapter, images):
    vae = chapter["VAE"](*small_networks())
    first, second = (vae(images, training=True)["mean"] for _ in range(2))
    assert not np.allclose(first, second)
    first, second = (vae(images)["mean"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", ["WithLoss", "VAE"])
def test_the_class_counts_the_penalties_of_its_layers(chapter, images, name):
    vae = chapter[name](*small_networks(), seed=0)
    y_pred = vae(images)
    without = float(vae.compute_loss(images, None, y_pred))
    kernel = vae.encoder.layers[-1].kernel
    kernel.regularizer = keras.regularizers.L2(10.0)
    penalty = 10.0 * np.square(kernel).sum()
    assert float(vae.compute_loss(images, None, y_pred)) - without == pytest.approx(penalty, 1e-3)


@pytest.mark.parametrize("batch_size", [20, 25])
def test_the_pipeline_gives_the_same_images(chapter, digits, batch_size):
    levels = digits.train_levels[:60]
    ours = list(chapter["batches"](levels, batch_size, seed=1))
    theirs = list(training.batches(levels, batch_size, seed=1))
    assert len(ours) == len(theirs) == 3
    for one, other in zip(ours, theirs):
        np.testing.assert_array_equal(one, other)
    rows = sorted(map(tuple, np.reshape(np.concatenate(ours), (60, -1))))
    assert rows == sorted(map(tuple, data.to_unit_interval(levels).reshape(60, -1)))


@pytest.mark.parametrize("steps", [50, 827])
def test_the_schedule_is_that_of_the_recipe(chapter, steps):
    schedule = training.warm_up_and_decay(0.006, steps)
    theirs = [float(schedule(step)) for step in range(steps)]
    np.testing.assert_allclose(chapter["rate"](0.006, steps), theirs, rtol=1e-3, atol=1e-7)


def test_training_by_hand_logs_what_train_logs(chapter, digits):
    curves = []
    for fit, options in ((chapter["train"], {}), (training.train, {"progress": False})):
        keras.utils.set_random_seed(0)
        vae = models.build_vae("linear", seed=0)
        curves.append(fit(vae, digits, 2, **options).history)
    ours, theirs = curves
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        np.testing.assert_allclose(values, theirs[name], rtol=1e-5)
