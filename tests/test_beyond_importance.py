"""The importance-weighted autoencoder: its loss, its gradient, and an ordinary Keras model."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy.special import expit, logsumexp
from scipy.stats import norm

from vae_utils import models
from vae_utils.beyond import importance

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword"  # NumPy 2 on TensorFlow
)


def networks(latent_dim=2, pixels=6):
    keras.utils.set_random_seed(0)
    x = keras.Input((1, pixels, 1))
    flat = layers.Flatten()(x)
    z = keras.Input((latent_dim,))
    image = layers.Reshape((1, pixels, 1))(layers.Dense(pixels)(z))
    return keras.Model(x, [layers.Dense(latent_dim)(flat) for _ in range(2)]), keras.Model(z, image)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 2, (4, 1, 6, 1)).astype("float32")


def evaluated(iwae, images):
    iwae.compile("adam")
    return iwae.evaluate(images, verbose=0, return_dict=True)


def test_the_weights_are_those_of_the_densities(images, monkeypatch):
    iwae = importance.IWAE(*networks(), samples=3)
    drawn = []
    draw = iwae.sampling.call
    monkeypatch.setattr(iwae.sampling, "call", lambda heads: drawn.append(draw(heads)) or drawn[-1])
    mean, log_var = iwae.encode(images)
    log_weights, nll = iwae.log_weights(images, mean, log_var)
    z = np.reshape(drawn[0], (4, 3, 2))
    ink = expit(iwae.decode(z.reshape(-1, 2))).reshape(4, 3, 6)
    x = images.reshape(4, 1, 6)
    likelihood = np.log(np.where(x == 1, ink, 1 - ink)).sum(-1)
    proposal = norm.logpdf(z, mean[:, None], np.exp(log_var / 2)[:, None]).sum(-1)
    expected = likelihood + norm.logpdf(z).sum(-1) - proposal
    np.testing.assert_allclose(log_weights, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(nll, -likelihood, rtol=1e-4)
    bound = logsumexp(expected, axis=1) - np.log(3)
    np.testing.assert_allclose(iwae.bound(log_weights), bound, rtol=1e-4)


def test_one_sample_is_the_elbo_and_many_are_the_evidence(images):
    encoder, decoder = networks(latent_dim=1)
    many = np.tile(images[:1], (4000, 1, 1, 1))
    line = np.linspace(-8, 8, 4001)
    ink = expit(models.VAE(encoder, decoder).decode(line[:, None])).reshape(-1, 6)
    joint = norm.pdf(line) * np.where(images[0].ravel() == 1, ink, 1 - ink).prod(1)
    evidence = np.log(np.trapezoid(joint, line))
    one = evaluated(importance.IWAE(encoder, decoder, samples=1, seed=1), many)
    assert one["loss"] == pytest.approx(one["reconstruction"] + one["kl"], abs=0.1)
    assert one["loss"] > -evidence
    much = evaluated(importance.IWAE(encoder, decoder, samples=100_000, seed=1), images[:1])
    assert much["loss"] == pytest.approx(-evidence, abs=0.03)
    assert much["loss"] < much["reconstruction"] + much["kl"]


def test_it_learns_saves_and_loads(images, tmp_path):
    iwae = importance.IWAE(*networks(), samples=4, seed=0)
    iwae.compile(keras.optimizers.Adam(0.05))
    history = iwae.fit(np.tile(images, (20, 1, 1, 1)), epochs=8, verbose=0).history["loss"]
    assert history[-1] < history[0] - 0.3
    iwae.save(tmp_path / "iwae.keras")
    again = keras.models.load_model(tmp_path / "iwae.keras")
    assert (type(again), again.samples) == (importance.IWAE, 4)
    np.testing.assert_array_equal(again.encode(images)[0], iwae.encode(images)[0])


def test_an_image_that_is_none_spoils_the_loss_and_no_weight(images):
    import tensorflow as tf

    iwae = importance.IWAE(*networks(), samples=3)
    images[0] = 7
    with tf.GradientTape() as tape:
        loss = iwae.compute_loss(images, y_pred=iwae(images))
    assert np.isnan(loss)
    gradients = tape.gradient(loss, iwae.trainable_variables)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_penalties_of_layers_count(images):
    iwae = importance.IWAE(*networks(), samples=2, seed=0)
    without = evaluated(iwae, images)["loss"]
    kernel = iwae.decoder.layers[1].kernel
    kernel.regularizer = keras.regularizers.L2(100.0)
    penalty = 100 * np.square(kernel).sum()
    assert evaluated(iwae, images)["loss"] - without == pytest.approx(penalty, rel=0.1)


@pytest.mark.parametrize("settings", [{"samples": 0}, {"samples": 2.5}, {"beta": 2.0}])
def test_what_is_no_bound_is_refused(settings):
    with pytest.raises(ValueError, match="Received: "):
        importance.IWAE(*networks(), **settings)


def test_labels_are_refused(images):
    iwae = importance.IWAE(*networks())
    iwae.compile("adam")
    with pytest.raises(ValueError, match="images alone"):
        iwae.fit(images, np.zeros(4), verbose=0)
