"""A VAE is an ordinary Keras model whose loss is the negative ELBO in nats per image."""

import ast
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ON_JAX, gradients, only_with_tensorflow, variables_are_copied
from scipy import special, stats

from vae_utils import data, evaluation, losses, models

pytestmark = variables_are_copied

ARCHITECTURES = ("conv", "dense", "linear")
SIZE = (8, 8, 1)


@pytest.fixture(autouse=True)
def _seeds():
    keras.utils.set_random_seed(0)


@pytest.fixture
def x():
    """Return 50 images that vary in two ways: how dark their left half is, and their lower one."""
    left, low, noise = np.random.default_rng(0).uniform(size=(3, 50, *SIZE))
    x = 0.1 * noise
    x[:, :, :4] += 0.45 * left[:, :1, :1]
    x[:, 4:] += 0.45 * low[:, :1, :1]
    return x.astype("float32")


def compiled(architecture="dense", optimizer=None, **kwargs):
    vae = models.build_vae(architecture, image_shape=SIZE, seed=0)
    vae.compile(optimizer or keras.optimizers.Adam(1e-3), **kwargs)
    return vae


@pytest.fixture(params=ARCHITECTURES)
def vae(request):
    return compiled(request.param)


def stream(x, batch_size=16):
    return tf.data.Dataset.from_tensor_slices(x).batch(batch_size)


def generator(x):
    return ((x[rows : rows + 10],) for rows in range(0, 50, 10))


def fit(vae, data, **kwargs):
    return vae.fit(data, verbose=0, shuffle=False, **kwargs).history


def evaluate(vae, data, **kwargs):
    return vae.evaluate(data, verbose=0, return_dict=True, **kwargs)


def independent_loss(vae, x, outputs):
    """Return both terms, averaged over images, by SciPy from what `predict` returned."""
    mean, sigma = outputs["mean"].astype(float), np.exp(outputs["log_var"].astype(float) / 2)
    logits = outputs["logits"].astype(float)
    if vae.likelihood == "gaussian":
        noise = np.exp(float(vae.pixel_log_var.numpy()) / 2)
        log_likelihood = stats.norm.logpdf(x, logits, noise)
    else:
        log_likelihood = x * special.log_expit(logits) + (1 - x) * special.log_expit(-logits)
    kl = -np.log(sigma) + (sigma**2 + mean**2 - 1) / 2
    return -log_likelihood.sum(axis=(1, 2, 3)).mean(), kl.sum(axis=1).mean()


# The three networks


def dense(inputs, outputs):
    return (inputs + 1) * outputs


def conv(inputs, outputs):
    return (3 * 3 * inputs + 1) * outputs


def number_of_parameters(architecture, latent_dim, height, width, channels):
    pixels, quarter = height * width * channels, height // 4 * (width // 4) * 64
    if architecture == "conv":
        encoder = conv(channels, 32) + conv(32, 64) + dense(quarter, 16) + 2 * dense(16, latent_dim)
        decoder = dense(latent_dim, quarter) + conv(64, 64) + conv(64, 32) + conv(32, channels)
    elif architecture == "dense":
        encoder = dense(pixels, 384) + dense(384, 384) + 2 * dense(384, latent_dim)
        decoder = dense(latent_dim, 384) + dense(384, 384) + dense(384, pixels)
    else:
        encoder, decoder = 2 * dense(pixels, latent_dim), dense(latent_dim, pixels)
    return encoder, decoder


@pytest.mark.parametrize("image_shape", [(28, 28, 1), (8, 12, 3)])
@pytest.mark.parametrize("latent_dim", [1, 2, 7])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parameters_and_shapes_follow_from_the_arguments(architecture, latent_dim, image_shape):
    vae = models.build_vae(architecture, latent_dim, image_shape)
    encoder, decoder = number_of_parameters(architecture, latent_dim, *image_shape)
    assert vae.encoder.count_params() == encoder
    assert vae.decoder.count_params() == decoder
    assert vae.count_params() == encoder + decoder + (architecture == "linear")
    assert vae.encoder.input_shape == (None, *image_shape)
    assert vae.encoder.output_shape == [(None, latent_dim)] * 2
    assert vae.decoder.input_shape == (None, latent_dim)
    assert vae.decoder.output_shape == (None, *image_shape)
    assert vae.likelihood == ("gaussian" if architecture == "linear" else "bernoulli")


def test_the_conv_network_is_the_seeds():
    vae = models.build_vae("conv")
    shapes = [layer.output.shape[1:] for layer in vae.encoder.layers]
    assert shapes == [(28, 28, 1), (14, 14, 32), (7, 7, 64), (3136,), (16,), (2,), (2,)]
    shapes = [layer.output.shape[1:] for layer in vae.decoder.layers]
    assert shapes == [(2,), (3136,), (7, 7, 64), (14, 14, 64), (28, 28, 32), (28, 28, 1)]


def test_the_linear_networks_are_linear_and_the_others_are_not(x, vae):
    z = np.random.default_rng(0).normal(size=(3, 2)).astype("float32")
    a, b, mid = vae.decode(np.stack([z[0], z[1], (z[0] + z[1]) / 2]))
    m_a, m_b, m_mid = vae.encode(np.stack([x[0], x[1], (x[0] + x[1]) / 2]))[0]
    linear = vae.name == "linear_vae"
    assert np.allclose(mid, (a + b) / 2, atol=1e-6) == linear
    assert np.allclose(m_mid, (m_a + m_b) / 2, atol=1e-6) == linear


def test_integers_may_be_numpys():
    sizes = np.array([8, 8, 1])
    vae = models.build_vae("dense", np.int64(3), sizes)
    assert (vae.latent_dim, vae.image_shape) == (3, SIZE)
    assert models.VAE.from_config(vae.get_config()).latent_dim == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "resnet"}, "one of .*conv.*Received: architecture='resnet'"),
        ({"latent_dim": 0}, "positive integer. Received: latent_dim=0"),
        ({"latent_dim": -2}, "positive integer. Received: latent_dim=-2"),
        ({"latent_dim": 2.0}, "positive integer. Received: latent_dim=2.0"),
        ({"latent_dim": "2"}, "positive integer. Received: latent_dim='2'"),
        ({"latent_dim": True}, "positive integer. Received: latent_dim=True"),
        ({"latent_dim": None}, "positive integer. Received: latent_dim=None"),
        ({"image_shape": (28, 28)}, r"\(height, width, channels\). Received: .*\(28, 28\)"),
        ({"image_shape": (28, 28, 0)}, r"Received: image_shape=\(28, 28, 0\)"),
        ({"image_shape": (28, 28.5, 1)}, r"Received: image_shape=\(28, 28.5, 1\)"),
        ({"image_shape": 28}, "Received: image_shape=28"),
        (
            {"architecture": "conv", "image_shape": (30, 28, 1)},
            r"divisible by 4. Received: image_shape=\(30, 28, 1\)",
        ),
    ],
)
def test_a_bad_argument_is_refused_with_what_was_received(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.build_vae(**{"architecture": "dense", **arguments})


def networks(latent_dim=2, image_shape=(4, 4, 1), heads=2, decoder_dim=None, decoder_shape=None):
    """Return a small encoder and decoder with one hidden layer of tanh."""
    images = keras.Input(image_shape)
    h = keras.layers.Dense(5, activation="tanh")(keras.layers.Flatten()(images))
    heads = [keras.layers.Dense(latent_dim)(h) for _ in range(heads)]
    z = keras.Input((decoder_dim or latent_dim,))
    h = keras.layers.Dense(5, activation="tanh")(z)
    shape = decoder_shape or image_shape
    logits = keras.layers.Reshape(shape)(keras.layers.Dense(np.prod(shape).item())(h))
    return keras.Model(images, heads), keras.Model(z, logits)


@pytest.mark.parametrize(
    "misfit", [{"heads": 1}, {"heads": 3}, {"decoder_dim": 3}, {"decoder_shape": (4, 2, 2)}]
)
def test_networks_that_do_not_fit_together_are_refused(misfit):
    with pytest.raises(ValueError, match=r"encoder must turn .* Received: a decoder from"):
        models.VAE(*networks(**misfit))


def test_an_unknown_likelihood_is_refused():
    with pytest.raises(ValueError, match="Received: likelihood='poisson'"):
        models.VAE(*networks(), likelihood="poisson")


L = keras.layers


def dense_image(activation=None):
    return lambda z: L.Reshape((4, 4, 1))(L.Dense(16, activation=activation)(z))


ACTIVATED = {
    "sigmoid": dense_image("sigmoid"),
    "relu": dense_image("relu"),
    "LeakyReLU": dense_image(L.LeakyReLU()),
    "tanh": lambda z: L.Rescaling(0.5, 0.5)(dense_image("tanh")(z)),
    "Softmax": lambda z: L.Softmax()(dense_image()(z)),
    "Sigmoid": lambda z: keras.ops.sigmoid(dense_image()(z)),
    "hard_sigmoid": lambda z: L.Activation("hard_sigmoid")(dense_image()(z)),
    "softplus": lambda z: keras.Sequential([L.Dense(16, "softplus"), L.Reshape((4, 4, 1))])(z),
}


@pytest.mark.parametrize("name", ACTIVATED)
def test_a_bernoulli_decoder_that_ends_in_an_activation_is_refused(name):
    encoder, _ = networks()
    z = keras.Input((2,))
    decoder = keras.Model(z, ACTIVATED[name](z))
    with pytest.raises(ValueError, match=f"returns logits.*Received: {name} in the layer"):
        models.VAE(encoder, decoder)
    models.VAE(encoder, decoder, likelihood="gaussian")  # whose mean may be anything


@pytest.mark.parametrize("name", ["linear", None])
def test_what_is_no_activation_is_none(name):
    z = keras.Input((2,))
    models.VAE(networks()[0], keras.Model(z, dense_image(name)(z)))


# Sampling


def samples(seed=1, n=50_000):
    mean = np.tile(np.array([[0.5, -2.0, 0.0]], "float32"), (n, 1))
    log_var = np.tile(np.log(np.array([[1.0, 0.25, 4.0]], "float32")), (n, 1))
    return np.asarray(models.Sampling(seed)((mean, log_var))), mean[0], np.exp(log_var[0] / 2)


def test_samples_have_the_mean_and_the_variance_asked_for():
    z, mean, sigma = samples()
    error = 1 / np.sqrt(len(z))
    assert (np.abs(z.mean(axis=0) - mean) < 4 * sigma * error).all()
    assert (np.abs(z.var(axis=0) / sigma**2 - 1) < 4 * np.sqrt(2) * error).all()


def test_samples_are_gaussian_and_independent():
    z, mean, sigma = samples()
    noise = (z - mean) / sigma
    for dimension in noise.T:
        assert stats.kstest(dimension, "norm").pvalue > 1e-3
    correlation = np.corrcoef(np.vstack([noise[:-1].T, noise[1:].T]))
    assert np.abs(correlation - np.eye(6)).max() < 4 / np.sqrt(len(z))


def test_a_seed_makes_the_noise_repeatable_and_each_call_new():
    inputs = np.zeros((2, 4, 3), "float32")
    first, second, other = models.Sampling(1), models.Sampling(1), models.Sampling(2)
    a, b = np.asarray(first(inputs)), np.asarray(first(inputs))
    np.testing.assert_array_equal(np.asarray(second(inputs)), a)
    np.testing.assert_array_equal(np.asarray(second(inputs)), b)
    assert not np.any(a == b)
    assert not np.any(a == np.asarray(other(inputs)))


def test_without_a_seed_the_noise_follows_keras():
    inputs = np.zeros((2, 4, 3), "float32")
    keras.utils.set_random_seed(3)
    a = np.asarray(models.Sampling()(inputs))
    b = np.asarray(models.Sampling()(inputs))
    keras.utils.set_random_seed(3)
    np.testing.assert_array_equal(np.asarray(models.Sampling()(inputs)), a)
    assert not np.any(a == b)


def test_gradients_reach_mean_and_log_variance_through_the_sample():
    mean, log_var = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    z = np.asarray(models.Sampling(0)((mean, log_var)))
    by_mean, by_log_var = gradients(lambda *heads: models.Sampling(0)(heads), mean, log_var)
    np.testing.assert_array_equal(by_mean, np.ones((6, 3)))
    np.testing.assert_allclose(by_log_var, (z - mean) / 2, atol=1e-6)


# The loss


def test_evaluate_is_what_numpy_computes_from_predict(vae, x):
    fit(vae, x)  # so that no term is near zero
    state = vae.sampling.seed_generator.state
    before = state.numpy()
    logged = evaluate(vae, x, batch_size=len(x))
    state.assign(before)  # the same noise again
    outputs = vae.predict(x, batch_size=len(x), verbose=0)
    reconstruction, kl = independent_loss(vae, x, outputs)
    assert logged["reconstruction"] == pytest.approx(reconstruction, rel=1e-5)
    assert logged["kl"] == pytest.approx(kl, rel=1e-4, abs=1e-5)
    assert logged["loss"] == pytest.approx(reconstruction + kl, rel=1e-5)


def test_predict_returns_the_posterior_its_sample_and_the_decoded_logits(vae, x):
    outputs = vae.predict(x, batch_size=16, verbose=0)
    assert {name: value.shape for name, value in outputs.items()} == {
        "mean": (50, 2),
        "log_var": (50, 2),
        "z": (50, 2),
        "logits": (50, *SIZE),
    }
    mean, log_var = vae.encode(x)
    np.testing.assert_allclose(outputs["mean"], mean, atol=1e-5)
    np.testing.assert_allclose(outputs["log_var"], log_var, atol=1e-5)
    np.testing.assert_allclose(outputs["logits"], vae.decode(outputs["z"]), atol=1e-4)
    noise = (outputs["z"] - mean) / np.exp(log_var / 2)
    assert abs(noise.std() - 1) < 0.4
    assert len(np.unique(noise)) == noise.size


def test_the_logged_parts_add_up_to_the_logged_total(vae, x):
    history = fit(vae, x, batch_size=16, epochs=2, validation_data=stream(x[:21]))
    history |= {f"test_{name}": [value] for name, value in evaluate(vae, x).items()}
    for split in ("", "val_", "test_"):
        total = np.add(history[f"{split}reconstruction"], history[f"{split}kl"])
        np.testing.assert_allclose(history[f"{split}loss"], total, rtol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_beta_weighs_the_kl_in_the_loss_and_not_in_the_log(x, beta):
    vae = models.build_vae("dense", image_shape=SIZE, beta=beta, seed=0)
    vae.compile(keras.optimizers.SGD(0.0))
    for logged in (evaluate(vae, x), {name: v[0] for name, v in fit(vae, x).items()}):
        total = logged["reconstruction"] + beta * logged["kl"]
        assert logged["loss"] == pytest.approx(total, rel=1e-6)
    outputs = vae.predict(x, verbose=0)
    assert logged["kl"] == pytest.approx(independent_loss(vae, x, outputs)[1], rel=1e-4)


def test_the_likelihood_can_be_chosen():
    for architecture in ARCHITECTURES:
        for likelihood in models.LIKELIHOODS:
            vae = models.build_vae(architecture, image_shape=SIZE, likelihood=likelihood)
            assert vae.likelihood == likelihood


@keras.saving.register_keras_serializable("tests")
class Penalty(keras.layers.Layer):
    """Adds three times the mean square of what passes to the loss."""

    def call(self, inputs):
        self.add_loss(3 * keras.ops.mean(keras.ops.square(inputs)))
        return inputs


def regularized(strength):
    images, z = keras.Input(SIZE), keras.Input((2,))
    h = Penalty()(keras.layers.Flatten()(images))
    mean = keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(strength), name="m")(h)
    logits = keras.layers.Reshape(SIZE)(keras.layers.Dense(64)(z))
    encoder = keras.Model(images, [mean, keras.layers.Dense(2)(h)])
    vae = models.VAE(encoder, keras.Model(z, logits), beta=2.0, seed=0)
    vae.compile(keras.optimizers.SGD(1e-3))
    return vae


def test_losses_of_layers_count_and_are_logged_as_a_third_part(x):
    free, bound = regularized(0.0), regularized(10.0)
    bound.set_weights(free.get_weights())
    start = np.array(free.encoder.get_layer("m").kernel)
    penalty = 3 * np.mean(x.astype(float) ** 2)
    for vae, expected in ((free, penalty), (bound, penalty + 10 * np.sum(start**2))):
        history = fit(vae, x, batch_size=50)
        logged = {name: values[0] for name, values in history.items()}
        assert logged["regularization"] == pytest.approx(expected, rel=1e-5)
        parts = logged["reconstruction"] + 2 * logged["kl"] + logged["regularization"]
        assert logged["loss"] == pytest.approx(parts, rel=1e-5)
    # The gradient of 10 Σ w² is 20 w, so one step of 1e-3 differs by 0.02 w.
    difference = free.encoder.get_layer("m").kernel - bound.encoder.get_layer("m").kernel
    np.testing.assert_allclose(difference, 0.02 * start, rtol=1e-3, atol=1e-6)
    assert set(evaluate(bound, x)) == {"loss", "kl", "reconstruction", "regularization"}


def test_every_image_counts_the_same_in_a_partial_last_batch():
    """With 50 images in batches of 49, the last one must not count as much as the 49."""
    vae = compiled("linear")
    vae.set_weights([np.zeros(weight.shape) for weight in vae.get_weights()])  # p(x|z) = N(0, I)
    x = np.zeros((50, *SIZE))
    x[-1] = 1
    expected = (64 * np.log(2 * np.pi) + 64 / 50) / 2
    logged = evaluate(vae, x, batch_size=49)
    assert logged == pytest.approx({"loss": expected, "reconstruction": expected, "kl": 0})


def test_evaluate_lists_the_total_first(x):
    vae = compiled()
    loss, reconstruction, kl = vae.evaluate(x, verbose=0)
    assert loss == pytest.approx(reconstruction + kl)
    assert reconstruction > 10 * kl > 0


def test_the_loss_is_summed_over_pixels_and_averaged_over_images():
    """With logits of 0 each pixel costs ln 2."""
    for side in (4, 8):
        vae = models.build_vae("dense", image_shape=(side, side, 1), seed=0)
        vae.decoder.set_weights([np.zeros(weight.shape) for weight in vae.decoder.weights])
        vae.compile()
        for n in (10, 40):
            grey = np.full((n, side, side, 1), 0.5, "float32")
            cost = evaluate(vae, grey)["reconstruction"]
            assert cost == pytest.approx(side * side * np.log(2))


def test_the_gradient_of_the_whole_loss_agrees_with_finite_differences():
    """Read off from one step of gradient descent, so that it is the gradient that `fit` follows."""
    vae = models.VAE(*networks(), likelihood="gaussian", seed=0)
    vae.compile(keras.optimizers.SGD(1.0))
    random = np.random.default_rng(0)
    x = random.uniform(size=(6, 4, 4, 1)).astype("float32")
    weights = [random.normal(0, 0.4, weight.shape) for weight in vae.get_weights()]

    def loss(weights):
        vae.set_weights(weights)  # the order: trainable weights, then the state of the noise
        vae.sampling.seed_generator.state.assign([0, 0])
        return evaluate(vae, x)["loss"]

    loss(weights)
    vae.sampling.seed_generator.state.assign([0, 0])
    vae.train_on_batch(x)
    gradient = [before - after for before, after in zip(weights, vae.get_weights())]
    step = 1e-2
    for _ in range(8):
        direction = [random.normal(size=weight.shape) for weight in weights]
        ahead, behind = (
            loss([weight + sign * step * d for weight, d in zip(weights, direction)])
            for sign in (1, -1)
        )
        slope = sum(np.sum(g * d) for g, d in zip(gradient, direction))
        assert slope == pytest.approx((ahead - behind) / (2 * step), rel=0.01, abs=0.02)


# Training, as anyone who knows Keras expects it


def test_a_vae_learns(vae, x):
    before = evaluate(vae, x)["loss"]
    fit(vae, x, epochs=10)
    assert evaluate(vae, x)["loss"] < 0.95 * before


@pytest.mark.parametrize(
    ("source", "dtype"),
    [
        (np.asarray, "float64"),
        (np.asarray, "uint8"),
        (tf.constant, "float32"),
        (stream, "uint8"),
        (stream, "bool"),
        (generator, "float32"),
        (data.Pixels, "bool"),
    ],
)
def test_images_come_as_arrays_or_streams_of_any_type(x, source, dtype):
    steps = {"steps_per_epoch": 5} if source is generator else {}
    history = fit(compiled("linear"), source((x > 0.5).astype(dtype)), **steps)
    assert set(history) == {"loss", "reconstruction", "kl"}
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("held_out", [lambda x: x, lambda x: (x, None), stream])
def test_validation_data_come_alone_or_in_a_tuple_or_as_a_stream(x, held_out):
    vae = compiled("dense")
    history = fit(vae, x, validation_data=held_out(x[:20]))
    assert set(history) == {
        f"{split}{part}" for split in ("", "val_") for part in ("loss", "reconstruction", "kl")
    }
    expected = evaluate(vae, x[:20])["loss"]
    assert history["val_loss"][0] == pytest.approx(expected, rel=0.05)


def test_a_share_of_the_images_can_be_held_out(x):
    assert "val_loss" in fit(compiled("linear"), x, validation_split=0.2)


def test_epochs_and_callbacks_work(x, tmp_path):
    vae = compiled("dense", keras.optimizers.SGD(0.0))  # which never improves
    stop = keras.callbacks.EarlyStopping("val_kl", patience=2, mode="min", min_delta=100)
    seen = []
    spy = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    best = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True)
    fit(vae, x, epochs=10, validation_data=x, callbacks=[stop, spy, best])
    assert seen == [0, 1, 2]
    mean, _ = keras.models.load_model(tmp_path / "best.keras").encode(x)
    np.testing.assert_allclose(mean, vae.encode(x)[0], atol=1e-6)


def test_a_single_callback_needs_no_list(x):
    seen = []
    spy = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    fit(compiled("linear"), x, callbacks=spy)
    evaluate(compiled("linear"), x, callbacks=spy)
    assert seen == [0]


def test_callbacks_run_in_evaluate(x):
    seen = []
    spy = keras.callbacks.LambdaCallback()
    spy.on_test_end = lambda logs=None: seen.append(logs["loss"])
    assert evaluate(compiled("linear"), x, callbacks=[spy])["loss"] == seen[0]


@keras.saving.register_keras_serializable("tests")
class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of one's own: the rate halves with each step."""

    def __init__(self, start):
        self.start = start

    def __call__(self, step):
        return self.start * 0.5 ** keras.ops.cast(step, "float32")

    def get_config(self):
        return {"start": self.start}


def test_a_learning_rate_schedule_counts_every_step(x):
    vae = compiled("linear", keras.optimizers.Adam(Halving(1e-2)))
    fit(vae, x, batch_size=16, epochs=2)
    assert int(vae.optimizer.iterations) == 2 * 4
    assert float(vae.optimizer.learning_rate) == pytest.approx(1e-2 / 2**8)


def test_several_steps_at_once_are_the_same_steps(x):
    one, many = compiled(), compiled(steps_per_execution=3)
    many.set_weights(one.get_weights())
    logs = [fit(vae, stream(x), epochs=2, validation_data=x) for vae in (one, many)]
    assert int(many.optimizer.iterations) == 8
    for name, values in logs[0].items():
        np.testing.assert_allclose(logs[1][name], values, rtol=1e-5)


def test_seeds_repeat_a_training(x):
    logs = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        vae = models.build_vae("dense", image_shape=SIZE, seed=seed)
        vae.compile()
        logs.append(fit(vae, x, epochs=2)["loss"])
    np.testing.assert_allclose(logs[0], logs[1], rtol=1e-6)
    assert not np.allclose(logs[0], logs[2], rtol=1e-6)


@pytest.fixture
def dtype_policy():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    ("architecture", "half"),
    [("conv", "float16"), ("dense", "float16"), ("dense", "bfloat16"), ("linear", "bfloat16")],
)
def test_mixed_precision_trains_to_about_the_same_and_survives_a_file(
    architecture, half, dtype_policy, x, tmp_path
):
    dtype_policy(f"mixed_{half}")
    vae = compiled(architecture)
    if half == "float16":  # from a scale of the loss at which Keras skips no step
        adam = keras.optimizers.Adam(1e-3)
        vae.compile(keras.optimizers.LossScaleOptimizer(adam, initial_scale=64))
    assert vae.compute_dtype == half
    assert {weight.dtype for weight in vae.trainable_variables} == {"float32"}
    start = vae.get_weights()
    history = fit(vae, x)
    vae.save(tmp_path / "half.keras")
    outputs = vae.predict(x, verbose=0)
    assert {value.dtype for value in outputs.values()} == {np.dtype("float32")}

    dtype_policy("float32")
    whole = compiled(architecture)
    whole.set_weights(start)
    assert history["loss"] == pytest.approx(fit(whole, x)["loss"], rel=0.01)
    again = keras.models.load_model(tmp_path / "half.keras")
    assert again.dtype_policy.name == f"mixed_{half}"
    assert again.predict(x, verbose=0)["mean"] == pytest.approx(outputs["mean"], abs=1e-6)
    assert np.isfinite(fit(again, x)["loss"]).all()


@only_with_tensorflow("the memory that TensorFlow keeps")
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory in /proc")
def test_a_trained_model_that_nobody_holds_leaves_the_memory_if_asked_to(run_python):
    """Each takes 40 MB: 3.4 million weights, and two numbers of Adam's for each."""
    code = """
        import re, numpy as np
        from vae_utils import models
        from vae_utils.page import memory

        def memory_after_training():
            vae = models.build_vae("dense", image_shape=(64, 64, 1), seed=0)
            vae.compile("adam")
            vae.fit(np.zeros((20, 64, 64, 1), "float32"), verbose=0)
            del vae
            memory.release_trained_models()
            return int(re.search(r"VmRSS:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

        memory.release_trained_models()
        first, *_, last = [memory_after_training() for _ in range(4)]
        print(last - first)
    """
    (kilobytes,) = run_python(code)
    assert int(kilobytes) < 60_000


@only_with_tensorflow("some modules of the pages need it")
def test_importing_changes_nothing_and_says_nothing(tmp_path):
    code = """
        import gc, keras
        before = keras.optimizers.Optimizer._all_reduce_sum_gradients
        from vae_utils import data, evaluation, losses, models, plots, training
        from vae_utils.page import explorer, memory
        assert keras.optimizers.Optimizer._all_reduce_sum_gradients is before
        assert gc.get_freeze_count() == 0
    """
    environment = {name: v for name, v in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    for source in (textwrap.dedent(code), "from vae_utils import data, models"):
        command = [sys.executable, "-c", source]
        done = subprocess.run(command, capture_output=True, env=environment, check=True)
        if not source.startswith("\nimport gc"):  # else Keras came first
            assert done.stderr == b""


# Several replicas


REPLICAS = """
    import keras, numpy as np, tensorflow as tf
    cpu, = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    from vae_utils import models, training

    x = np.random.default_rng(0).uniform(size=(40, 8, 8, 1)).astype("float32")

    def built(log_var):
        images, z = keras.Input((8, 8, 1)), keras.Input((2,))
        h = keras.layers.Flatten()(images)
        mean = keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.1))(h)
        spread = keras.initializers.Constant(log_var)
        log_var = keras.layers.Dense(2, kernel_initializer="zeros", bias_initializer=spread)(h)
        image = keras.layers.Reshape((8, 8, 1))(keras.layers.Dense(64)(z))
        networks = keras.Model(images, [mean, log_var]), keras.Model(z, image)
        vae = models.VAE(*networks, likelihood="{likelihood}", beta=2.0, seed=3)
        vae.compile(keras.optimizers.SGD(1e-3))
        return vae

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    quiet = -60.0  # no noise, so that one device and two see the same
    one = built(quiet)
    with strategy.scope():
        two, loud = built(quiet), built(0.0)
    two.set_weights(one.get_weights())
"""


@only_with_tensorflow("tf.distribute")
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_two_replicas_are_as_one_device_and_as_the_sum_of_their_gradients(run_python, likelihood):
    code = """
    before = [np.array(weight) for weight in one.trainable_variables]
    with tf.GradientTape() as tape:  # by hand: half the loss of each half
        halves = []
        for part in (x[:20], x[20:]):
            outputs = one(part, training=True)
            terms = one.reconstruction_term(part, outputs["logits"])
            kl = 0.5 * tf.reduce_sum(
                outputs["mean"] ** 2 + tf.exp(outputs["log_var"]) - 1 - outputs["log_var"], 1
            )
            penalty = 0.1 * tf.reduce_sum(one.encoder.layers[2].kernel ** 2)
            halves.append((tf.reduce_mean(terms + 2 * kl) + penalty) / 2)
        total = halves[0] + halves[1]
    gradients = tape.gradient(total, [v.value for v in one.trainable_variables])
    logs = [vae.fit(x, batch_size=40, shuffle=False, verbose=0).history for vae in (one, two)]
    for name in logs[0]:
        np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=1e-5)
    np.testing.assert_allclose(logs[1]["loss"][0], float(total), rtol=1e-5)
    parts = logs[1]["reconstruction"][0] + 2 * logs[1]["kl"][0] + logs[1]["regularization"][0]
    np.testing.assert_allclose(logs[1]["loss"][0], parts, rtol=1e-5)
    for start, gradient, a, b in zip(
        before, gradients, one.trainable_variables, two.trainable_variables
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
        step = start - 1e-3 * np.array(gradient)
        np.testing.assert_allclose(np.array(b), step, rtol=1e-4, atol=1e-6)
    logs = [vae.evaluate(x, verbose=0, return_dict=True) for vae in (one, two)]
    assert all(np.isclose(logs[0][name], logs[1][name], rtol=1e-5) for name in logs[0])

    z = loud.predict(np.repeat(x[:1], 400, 0), batch_size=400, verbose=0)["z"]
    assert len(np.unique(z, axis=0)) == 400
    assert abs(np.corrcoef(z[:200].T, z[200:].T)[:2, 2:]).max() < 4 / np.sqrt(200)
    history = training.train(loud, x, 2, validation=x, batch_size=20, progress=False).history
    assert np.isfinite(history["val_loss"]).all()
    """
    run_python(REPLICAS.replace("{likelihood}", likelihood) + code)


# Saving and loading


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_reloaded_model_gives_the_same_numbers_and_trains_on_the_same_way(
    architecture, x, tmp_path
):
    vae = compiled(architecture, keras.optimizers.Adam(Halving(1e-2)), steps_per_execution=2)
    fit(vae, x, epochs=2)
    vae.save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    assert type(again) is models.VAE
    assert (again.name, again.likelihood, again.seed) == (vae.name, vae.likelihood, 0)
    for ours, theirs in zip(vae.encode(x), again.encode(x)):
        np.testing.assert_array_equal(ours, theirs)
    assert int(again.optimizer.iterations) == int(vae.optimizer.iterations) == 4
    assert float(again.optimizer.learning_rate) == pytest.approx(1e-2 / 2**4)
    assert again.steps_per_execution == 2
    assert evaluate(again, x) == evaluate(vae, x)  # the noise goes on as well
    assert evaluation.elbo(again, x) == evaluation.elbo(vae, x)
    assert fit(again, x, epochs=2)["loss"] == pytest.approx(fit(vae, x, epochs=2)["loss"], rel=1e-6)


def test_a_reloaded_model_gives_the_same_numbers_in_a_fresh_process(run_python, x, tmp_path):
    vae = compiled("conv")
    fit(vae, x)
    vae.save(tmp_path / "vae.keras")
    np.save(tmp_path / "x.npy", x)
    code = f"""
        import keras, numpy as np
        from vae_utils import models
        x = np.load({str(tmp_path / "x.npy")!r})
        vae = keras.models.load_model({str(tmp_path / "vae.keras")!r})
        print(vae.encode(x)[0].sum(), vae.evaluate(x, verbose=0))
    """
    (printed,) = run_python(code)
    numbers = [float(number) for number in re.findall(r"-?\d[\d.e-]+", printed)]
    expected = [vae.encode(x)[0].sum(), *vae.evaluate(x, verbose=0)]
    assert numbers == pytest.approx(expected, rel=1e-5)


def test_a_model_that_was_not_compiled_can_be_saved_too(x, tmp_path):
    vae = models.build_vae("linear", image_shape=SIZE)
    vae.save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    np.testing.assert_array_equal(again.encode(x)[0], vae.encode(x)[0])
    assert not again.compiled


def test_weights_can_be_saved_alone(x, tmp_path):
    vae, other = compiled("linear"), compiled("linear")
    fit(vae, x)
    vae.save_weights(tmp_path / "vae.weights.h5")
    other.load_weights(tmp_path / "vae.weights.h5")
    assert evaluate(other, x) == evaluate(vae, x)


@only_with_tensorflow("a SavedModel")
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_reloaded_model_is_summarized_exported_and_quantized(architecture, x, tmp_path):
    vae = compiled(architecture)
    fit(vae, x)
    vae.save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    lines = []
    again.summary(print_fn=lambda line, **kwargs: lines.append(line))
    assert "?" not in "".join(lines)
    assert "unbuilt" not in "".join(lines)
    again.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    mean, _ = vae.encode(x)
    np.testing.assert_allclose(exported.serve(x)["mean"], mean, atol=1e-5)
    again.quantize("int8")
    np.testing.assert_allclose(again.encode(x)[0], mean, atol=0.1)


def test_the_parts_are_models_of_their_own(x, tmp_path):
    vae = compiled("dense")
    vae.encoder.save(tmp_path / "encoder.keras")
    encoder = keras.models.load_model(tmp_path / "encoder.keras")
    np.testing.assert_allclose(encoder.predict(x, verbose=0)[0], vae.encode(x)[0], atol=1e-6)


def test_networks_of_ones_own_make_a_vae_that_saves_and_loads(tmp_path):
    vae = models.VAE(*networks(latent_dim=3), likelihood="gaussian", beta=3.0, seed=7, name="mine")
    vae.compile()
    x = np.random.default_rng(0).uniform(size=(20, 4, 4, 1))
    fit(vae, x)
    vae.save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    assert (again.name, again.likelihood, again.beta, again.seed) == ("mine", "gaussian", 3.0, 7)
    assert evaluate(again, x) == evaluate(vae, x)


# Mistakes


@pytest.mark.parametrize("arguments", [{"loss": "mse"}, {"metrics": ["mae"]}])
def test_a_loss_of_another_kind_is_refused(arguments):
    with pytest.raises(ValueError, match="brings its own loss.*Received: loss="):
        compiled(**arguments)


@pytest.mark.parametrize("method", ["fit", "evaluate"])
@pytest.mark.parametrize(
    "targets",
    [
        lambda x: {"data": x, "y": x},
        lambda x: {"data": x, "sample_weight": np.ones(len(x))},
        lambda x: {"data": stream((x, x))},
        lambda x: {"data": stream((x, x, np.ones(len(x))))},
    ],
)
def test_targets_and_sample_weights_are_refused(x, method, targets):
    with pytest.raises(ValueError, match="learns from images alone.*Received: targets or sample"):
        {"fit": fit, "evaluate": evaluate}[method](compiled("linear"), **targets(x))


def test_targets_in_the_validation_data_are_refused(x):
    with pytest.raises(ValueError, match="learns from images alone"):
        fit(compiled("linear"), x, validation_data=(x, x))


BAD_IMAGES = {
    "grey levels": (lambda x: (255 * x).astype("uint8"), r"divided by 255.*dtype uint8$"),
    "pixels above 1": (lambda x: x + 0.5, r"in \[0, 1\].*Received: .*values 0.5.* to 1.\d+"),
    "pixels below 0": (lambda x: 2 * x - 1, r"in \[0, 1\].*Received: .*values -0.9"),
    "one NaN": (
        lambda x: np.where(np.arange(x.size).reshape(x.shape) == 77, np.nan, x),
        r"1 of the 3200 are NaN.*values 3\.3\d*e-05 to 0\.96\d*$",
    ),
    "infinity": (lambda x: np.where(x == x.max(), np.inf, x), "to inf"),
    "no channel": (lambda x: x[..., 0], r"\(n, 8, 8, 1\). Received: shape \(50, 8, 8\)"),
    "flat images": (lambda x: x.reshape(50, 64), r"Received: shape \(50, 64\)"),
    "one image": (lambda x: x[0], r"Received: shape \(8, 8, 1\)"),
    "another size": (lambda x: x[:, :7], r"Received: shape \(50, 7, 8, 1\)"),
    "colours": (lambda x: np.repeat(x, 3, axis=3), r"Received: shape \(50, 8, 8, 3\)"),
    "no images": (lambda x: x[:0], r"Received: shape \(0, 8, 8, 1\)"),
}


@pytest.fixture(scope="module")
def untrained():
    return compiled("dense")


@pytest.mark.parametrize(
    "use",
    [
        lambda vae, x: vae.encode(x),
        lambda vae, x: evaluation.elbo(vae, x),
        lambda vae, x: evaluation.log_likelihood(vae, x),
    ],
    ids=["encode", "elbo", "log_likelihood"],
)
@pytest.mark.parametrize("what", BAD_IMAGES)
def test_an_array_that_is_no_images_is_an_error_not_a_wrong_loss(untrained, x, what, use):
    spoil, message = BAD_IMAGES[what]
    with pytest.raises(ValueError, match=message):
        use(untrained, spoil(x))


BAD_PIXELS = [
    ("conv", "one NaN"),
    ("dense", "grey levels"),
    ("dense", "pixels above 1"),
    ("dense", "infinity"),
    ("linear", "one NaN"),
    ("linear", "infinity"),
]


@pytest.mark.parametrize("source", [np.asarray, stream])
@pytest.mark.parametrize(("architecture", "what"), BAD_PIXELS)
def test_bad_pixels_give_a_loss_of_nan_and_no_weight_learns_from_them(
    architecture, what, source, x
):
    vae = compiled(architecture, steps_per_execution=2)
    start = vae.get_weights()
    bad = BAD_IMAGES[what][0](x)
    assert np.isnan(fit(vae, source(bad))["loss"]).all()
    assert all(np.isfinite(weight).all() for weight in vae.get_weights())
    assert np.isnan(evaluate(vae, source(bad))["loss"])
    assert np.isfinite(fit(vae, x, epochs=3)["loss"]).all()
    vae.set_weights(start)


def test_bad_images_are_marked_in_what_predict_returns_and_the_others_untouched(vae, x):
    bad = x.copy()
    bad[3, 2, 2] = np.nan
    bad[5, 1, 1] = np.inf
    outputs = vae.predict(bad, verbose=0)
    for name, values in outputs.items():
        spoiled = np.isnan(values).reshape(50, -1)
        np.testing.assert_array_equal(np.flatnonzero(spoiled.any(axis=1)), [3, 5])
        assert spoiled[[3, 5]].all(), name
    good = np.delete(np.arange(50), [3, 5])
    np.testing.assert_allclose(outputs["mean"][good], vae.encode(x[good])[0], atol=1e-5)


def test_a_gaussian_model_takes_any_finite_pixels(x):
    vae = compiled("linear")
    assert np.isfinite(fit(vae, (x - x.mean()) / x.std())["loss"]).all()
    assert np.isfinite(evaluation.elbo(vae, 3 * x - 1))


@pytest.mark.parametrize("what", ["no channel", "another size", "colours"])
def test_images_of_a_wrong_shape_in_a_stream_are_an_error(x, what):
    rows = 16 if ON_JAX else None  # JAX knows every shape
    message = rf"must have the shape \(n, 8, 8, 1\)\. Received: shape \({rows}, "
    with pytest.raises(ValueError, match=message):
        fit(compiled("linear"), stream(BAD_IMAGES[what][0](x)))


def test_with_kerass_callbacks_a_divergence_gives_the_best_weights_back(x):
    class Explode(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                self.best = [np.array(weight) for weight in self.model.get_weights()]
                self.model.optimizer.learning_rate = 1e30

    vae, explode = compiled(), Explode()
    keep = keras.callbacks.EarlyStopping("loss", restore_best_weights=True, patience=9)
    history = fit(vae, x, epochs=9, callbacks=[keep, explode, keras.callbacks.TerminateOnNaN()])
    assert len(history["loss"]) == 3
    for weight, kept in zip(vae.get_weights(), explode.best):
        np.testing.assert_array_equal(weight, kept)


def test_dropout_is_at_work_in_fit_and_at_rest_in_evaluate(x):
    """Where everything is dropped, both networks return 0: a pixel costs ln 2, and the KL is 0."""
    images, z = keras.Input(SIZE), keras.Input((2,))
    h = L.Dropout(1 - 1e-6)(L.Flatten()(images))
    encoder = keras.Model(images, [L.Dense(2)(h), L.Dense(2)(h)])
    h = L.Dropout(1 - 1e-6)(L.Dense(64, "tanh")(z))
    decoder = keras.Model(z, L.Reshape(SIZE)(L.Dense(64)(h)))
    vae = models.VAE(encoder, decoder, seed=0)
    vae.compile(keras.optimizers.SGD(0.0))
    trained, tested = fit(vae, x), evaluate(vae, x)
    assert trained["reconstruction"][0] == pytest.approx(
        64 * np.log(2), rel=2e-6 if ON_JAX else 1e-6
    )
    assert trained["kl"][0] == pytest.approx(0, abs=1e-6)
    apart = 1e-3 if ON_JAX else 1e-2  # JAX draws other weights
    assert tested["reconstruction"] != pytest.approx(64 * np.log(2), rel=apart)
    assert tested["kl"] > 0.01


@only_with_tensorflow("with JAX, Keras has taken the weights out of the model when the step fails")
@pytest.mark.parametrize(
    "mistake", [lambda x: {"data": x, "y": x}, lambda x: {"data": stream(x[..., 0])}]
)
def test_after_a_mistake_the_same_model_can_be_trained(x, mistake):
    vae = compiled()
    with pytest.raises(ValueError, match="Received"):
        fit(vae, **mistake(x))
    assert np.isfinite(fit(vae, x)["loss"]).all()


# Both halves, used by hand


def test_encode_and_decode_work_in_batches_that_nobody_notices(vae, x, monkeypatch):
    z = np.random.default_rng(0).normal(size=(50, 2))
    whole = [*vae.encode(x), vae.decode(z)]
    monkeypatch.setattr(models, "MOST_ROWS_AT_ONCE", 7)
    rows = []
    encoder = vae.encoder.call
    monkeypatch.setattr(
        vae.encoder, "call", lambda x, **kwargs: rows.append(len(x)) or encoder(x, **kwargs)
    )
    for once, often in zip(whole, [*vae.encode(x), vae.decode(z)]):
        assert isinstance(often, np.ndarray)
        assert often.dtype == np.float32
        np.testing.assert_allclose(often, once, atol=1e-5)
    assert rows == [7] * 7 + [1]


def test_the_decoded_mean_is_a_probability_or_the_gaussians_mean(vae):
    z = 3 * np.random.default_rng(0).normal(size=(9, 2))
    images, logits = vae.decode_mean(z), vae.decode(z)
    expected = logits if vae.likelihood == "gaussian" else special.expit(logits)
    np.testing.assert_allclose(images, expected, atol=1e-6)


def test_fewer_rows_are_computed_at_once_where_the_image_or_a_layer_is_larger():
    """As many as fit in 100 MB of float32 in the widest layer, by hand; and never none."""
    small, large = (models.build_vae("conv", image_shape=(n, n, 3)) for n in (28, 128))
    assert small.rows_at_once() == 1024
    assert large.rows_at_once() == 1024 * 28 * 28 * 32 // (128 * 128 * 32) == 49
    assert large.rows_at_once(large.encoder) == 1024 * 28 * 28 * 32 // (64 * 64 * 32) == 196
    wide = models.VAE(*networks(image_shape=(4, 4, 1)))
    assert wide.rows_at_once() == 1024
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(30_000_000 // 4)])
    z = keras.Input((2,))
    logits = keras.layers.Cropping1D((0, 7_499_984))(keras.layers.Reshape((-1, 1))(inner(z)))
    nested = keras.Model(z, keras.layers.Reshape((4, 4, 1))(logits))
    assert models.VAE(networks()[0], nested).rows_at_once() == 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory in /proc")
def test_large_images_do_not_need_more_memory_in_evaluation(run_python):
    """1,024 rows at once of 128 × 128 × 3 took several GiB."""
    code = """
        import re, numpy as np
        from vae_utils import evaluation, models
        vae = models.build_vae("conv", image_shape=(128, 128, 3), seed=0)
        x = np.zeros((256, 128, 128, 3), "float32")
        evaluation.elbo(vae, x)
        evaluation.log_likelihood(vae, x[:4], num_samples=64)
        print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
    """
    (kilobytes,) = run_python(code)
    assert int(kilobytes) < 1_400_000


@pytest.mark.parametrize("z", [np.zeros(2), np.zeros((3, 3)), np.zeros((0, 2)), 1.0])
def test_points_of_another_latent_space_are_refused(untrained, z):
    with pytest.raises(ValueError, match=r"shape \(n, 2\), n > 0. Received: z of shape"):
        untrained.decode(z)


@pytest.mark.parametrize("module", [models, losses, evaluation])
def test_models_losses_and_evaluation_are_pure_keras(module):
    tree = ast.parse(Path(module.__file__).read_text())
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported <= {"keras", "math", "numpy", "scipy", "vae_utils"}
