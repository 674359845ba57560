"""The variational autoencoder as an ordinary Keras model, and the three networks of the book."""

import math

import keras
import numpy as np
from keras import layers, ops

from vae_utils import losses

LIKELIHOODS = ("bernoulli", "gaussian")
ROWS_AT_ONCE = 1000
DIVERGED = 1e6  # no weight of a sane network is as large
PIXEL_LOG_VAR_START = keras.initializers.Constant(-3.0)  # about the variance of MNIST's pixels


@keras.saving.register_keras_serializable("vae_utils")
class Sampling(layers.Layer):
    """Draw z = μ + σ ⊙ ε with ε ~ N(0, I): Kingma & Welling (2013), section 2.4.

    Takes `(mean, log_var)`, both of shape `(batch, latent_dim)`; returns z of the same shape.

    Args:
        seed: integer that makes the noise repeatable, or None.
    """

    def __init__(self, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs):
        mean, log_var = inputs
        noise = keras.random.normal(ops.shape(mean), dtype=mean.dtype, seed=self.seed_generator)
        return mean + ops.exp(0.5 * log_var) * noise

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["noise"] = self.seed_generator.state  # a reloaded model goes on where this one was

    def load_own_variables(self, store):
        self.seed_generator.state.assign(store["noise"])

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable("vae_utils")
class VAE(keras.Model):
    """A variational autoencoder; its loss is the negative ELBO in nats per image.

    The loss is summed over pixels and latent dimensions and averaged over the batch. `fit` and
    `evaluate` log it with its two parts, `reconstruction` (the distortion) and `kl` (the rate),
    which add up to it. `compile` needs an optimizer only, `fit` and `evaluate` images only.
    `predict` returns a dictionary with `mean`, `log_var`, `z` and `logits`.

    Args:
        encoder: Keras model from images `(batch, height, width, channels)` to the list
            `[mean, log_var]` of the approximate posterior, each `(batch, latent_dim)`.
        decoder: Keras model from z, `(batch, latent_dim)`, to an image of logits or, for the
            Gaussian likelihood, of means.
        likelihood: "bernoulli", or "gaussian" with one trained noise variance for all pixels.
        beta: weight of the KL term in the loss, reconstruction + beta · kl (Higgins et al. 2017).
            The logged parts are unweighted.
        seed: integer that makes the sampled z repeatable, or None.

    Raises:
        ValueError: if the networks do not fit together, or for an unknown likelihood.
    """

    def __init__(self, encoder, decoder, likelihood="bernoulli", beta=1.0, seed=None, **kwargs):
        super().__init__(**kwargs)
        if likelihood not in LIKELIHOODS:
            raise ValueError(
                f"likelihood must be one of {LIKELIHOODS}. Received: likelihood={likelihood!r}"
            )
        self.latent_dim = decoder.input_shape[-1]
        self.image_shape = tuple(decoder.output_shape[1:])
        _require_that_they_fit(encoder, decoder, self.latent_dim, self.image_shape)
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.beta = beta
        self.seed = seed
        self.sampling = Sampling(seed, dtype="float32", name="sampling")
        self.reconstruction_tracker = keras.metrics.Mean(name="reconstruction")
        self.kl_tracker = keras.metrics.Mean(name="kl")
        self.build((None, *self.image_shape))

    def build(self, input_shape):
        if self.likelihood == "gaussian":
            self.pixel_log_var = self.add_weight(
                shape=(), initializer=PIXEL_LOG_VAR_START, dtype="float32", name="pixel_log_var"
            )
        self.built = True

    def call(self, x, training=False):
        self._check_shape(x.shape)
        x = ops.cast(x, self.compute_dtype)
        if training:  # what `compute_loss` refuses must not reach the weights
            x = ops.where(_in_unit_interval(x), x, 0)
        mean, log_var = self.encoder(x)
        z = self.sampling((mean, log_var))
        return {"mean": mean, "log_var": log_var, "z": z, "logits": self.decoder(z)}

    def reconstruction_term(self, x, logits):
        """−log p(x|z) under the model's likelihood: nats per image, shape `(batch,)`."""
        if self.likelihood == "gaussian":
            return losses.gaussian_nll(x, logits, self.pixel_log_var)
        return losses.bernoulli_nll(x, logits)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Return the negative ELBO, averaged over the batch, and record its two parts."""
        _require_images_alone(y, sample_weight)
        x = ops.cast(x, "float32")
        # An array is checked before it is used; pixels out of a stream can only be checked here.
        valid = _in_unit_interval(x)
        reconstruction = self.reconstruction_term(ops.where(valid, x, 0), y_pred["logits"])
        kl = losses.gaussian_kl(y_pred["mean"], y_pred["log_var"])
        self.reconstruction_tracker.update_state(reconstruction)
        self.kl_tracker.update_state(kl)
        return ops.where(valid, ops.mean(reconstruction + self.beta * kl), math.nan)

    def compile(self, optimizer="adam", loss=None, metrics=None, **kwargs):
        """As `keras.Model.compile`, for an optimizer and all that does not concern the loss."""
        if loss is not None or metrics is not None:
            raise ValueError(
                "A VAE brings its own loss, the negative ELBO, and logs its parts: compile it with "
                f"an optimizer only. Received: loss={loss!r}, metrics={metrics!r}"
            )
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.trainable_variables)  # not in `fit`, which may fail halfway

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    def fit(self, x=None, y=None, *args, validation_data=None, callbacks=None, **kwargs):
        """As `keras.Model.fit`, for images alone.

        Raises:
            ValueError: for an array of the wrong shape or with pixels outside [0, 1], for targets
                or sample weights.
            FloatingPointError: as soon as the loss is no longer a finite number.
        """
        _require_images_alone(y, kwargs.get("sample_weight"))
        self._check_if_array(x)
        if validation_data is not None:
            images, *_ = keras.utils.unpack_x_y_sample_weight(validation_data)
            self._check_if_array(images)
        return super().fit(
            x,
            y,
            *args,
            validation_data=validation_data,
            callbacks=[*_as_list(callbacks), StopOnNaN()],
            **kwargs,
        )

    def evaluate(self, x=None, y=None, *args, callbacks=None, **kwargs):
        """As `keras.Model.evaluate`, for images alone; errors as in `fit`."""
        _require_images_alone(y, kwargs.get("sample_weight"))
        self._check_if_array(x)
        if not isinstance(callbacks, keras.callbacks.CallbackList):  # which `fit` hands over
            callbacks = [*_as_list(callbacks), StopOnNaN()]
        return super().evaluate(x, y, *args, callbacks=callbacks, **kwargs)

    def predict(self, x, *args, **kwargs):
        """As `keras.Model.predict`; images are checked as in `fit`."""
        self._check_if_array(x)
        return super().predict(x, *args, **kwargs)

    def encode(self, x):
        """Return the approximate posterior of images as NumPy arrays.

        Args:
            x: images in [0, 1], shape `(n, height, width, channels)`.

        Returns:
            `(mean, log_var)`, float32, each of shape `(n, latent_dim)`.

        Raises:
            ValueError: for images of the wrong shape or outside [0, 1].
        """
        self.check_images(x)
        return _in_batches(self.encoder, x)

    def decode(self, z):
        """Return the decoder's logits (its means, if Gaussian) for latent points.

        Args:
            z: latent points, shape `(n, latent_dim)`.

        Returns:
            NumPy array, float32, shape `(n, height, width, channels)`.

        Raises:
            ValueError: for points of the wrong shape.
        """
        z = np.asarray(z, "float32")
        if z.ndim != 2 or z.shape[1] != self.latent_dim or not len(z):
            raise ValueError(
                f"z must have the shape (n, {self.latent_dim}), n > 0. "
                f"Received: z of shape {z.shape}"
            )
        return _in_batches(self.decoder, z)[0]

    def decode_mean(self, z):
        """Return the mean image of p(x|z), pixels in [0, 1] if Bernoulli; shapes as in `decode`."""
        logits = self.decode(z)
        if self.likelihood == "gaussian":
            return logits
        return ops.convert_to_numpy(ops.sigmoid(logits))

    def check_images(self, x):
        """Raise a `ValueError` unless `x` is an array of images that this model can take."""
        self._check_shape(getattr(x, "shape", ()))
        pixels = np.asarray(x)
        low, high = pixels.min(), pixels.max()
        if not (low >= 0 and high <= 1):
            raise ValueError(
                "Pixels must lie in [0, 1]; grey levels up to 255 are divided by 255 first. "
                f"Received: pixels from {low} to {high}"
            )

    def _check_shape(self, shape):
        shape = tuple(shape)
        fits = all(None in (a, b) or a == b for a, b in zip(shape[1:], self.image_shape))
        if len(shape) != 4 or not fits or shape[0] == 0:
            wanted = ", ".join(str(size) for size in self.image_shape)
            raise ValueError(f"Images must have the shape (n, {wanted}). Received: shape {shape}")

    def _check_if_array(self, x):
        if hasattr(x, "shape"):
            self.check_images(x)

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "decoder": keras.saving.serialize_keras_object(self.decoder),
            "likelihood": self.likelihood,
            "beta": self.beta,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        networks = {
            part: keras.saving.deserialize_keras_object(config[part], custom_objects)
            for part in ("encoder", "decoder")
        }
        return cls(**{**config, **networks})


class StopOnNaN(keras.callbacks.Callback):
    """Stop as soon as the loss is NaN or infinite, with an error that says what to try."""

    def __init__(self):
        super().__init__()
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self._check(logs, f"in epoch {self.epoch + 1}, batch {batch + 1}")

    def on_test_batch_end(self, batch, logs=None):
        self._check(logs, f"in batch {batch + 1} of the evaluation")

    def _check(self, logs, where):
        loss = (logs or {}).get("loss", 0.0)
        if math.isfinite(loss):
            return
        if all(np.all(np.abs(w) < DIVERGED) for w in self.model.trainable_weights):
            cause = (
                "The weights have stayed within bounds, so look at what went in: pixels outside "
                "[0, 1]? Or the logarithm of a negative number in a loss of your own?"
            )
        else:
            cause = (
                "The weights have diverged: try a smaller learning rate, a warm-up, or "
                "clipnorm=1.0 in the optimizer."
            )
        raise FloatingPointError(f"The loss became {loss} {where}. {cause}")


def build_vae(
    architecture,
    latent_dim=2,
    image_shape=(28, 28, 1),
    likelihood=None,
    beta=1.0,
    seed=None,
):
    """Build one of the book's three networks, untrained and not yet compiled.

    Args:
        architecture: "conv" (strided convolutions 32/64 and a hidden layer of 16), "dense" (two
            hidden layers of 384, the fast one) or "linear" (W x + b with a Gaussian likelihood,
            which is probabilistic PCA).
        latent_dim: number of latent dimensions, a positive integer.
        image_shape: `(height, width, channels)`; for "conv", height and width divisible by 4.
        likelihood: as `VAE`; None for "gaussian" with the linear network, "bernoulli" else.
        beta: as `VAE`.
        seed: integer that makes the sampled z repeatable, or None. The initial weights follow
            `keras.utils.set_random_seed`.

    Returns:
        A `VAE`.

    Raises:
        ValueError: for an argument outside of what is said above.
    """
    builders = {"conv": _conv_networks, "dense": _dense_networks, "linear": _linear_networks}
    if architecture not in builders:
        raise ValueError(
            f"architecture must be one of {tuple(builders)}. "
            f"Received: architecture={architecture!r}"
        )
    if not is_positive_integer(latent_dim):
        raise ValueError(
            f"latent_dim must be a positive integer. Received: latent_dim={latent_dim!r}"
        )
    if np.shape(image_shape) != (3,) or not all(map(is_positive_integer, image_shape)):
        raise ValueError(
            f"image_shape must be (height, width, channels). Received: image_shape={image_shape!r}"
        )
    latent_dim, image_shape = int(latent_dim), tuple(map(int, image_shape))
    images = keras.Input(image_shape, name="images")
    latents = keras.Input((latent_dim,), name="z")
    hidden, logits = builders[architecture](images, latents)
    # float32 whatever the dtype policy: e^log_var overflows early in half precision.
    mean = layers.Dense(latent_dim, dtype="float32", name="mean")
    log_var = layers.Dense(latent_dim, dtype="float32", name="log_var")
    return VAE(
        keras.Model(images, [mean(hidden), log_var(hidden)], name="encoder"),
        keras.Model(latents, logits, name="decoder"),
        likelihood=likelihood or ("gaussian" if architecture == "linear" else "bernoulli"),
        beta=beta,
        seed=seed,
        name=f"{architecture}_vae",
    )


def _conv_networks(images, latents):
    height, width, channels = images.shape[1:]
    if height % 4 or width % 4:
        raise ValueError(
            "The conv network halves the image twice: height and width must be divisible by 4. "
            f"Received: image_shape={images.shape[1:]}"
        )
    strided = {"kernel_size": 3, "strides": 2, "padding": "same", "activation": "relu"}
    h = layers.Conv2D(32, **strided)(images)
    h = layers.Conv2D(64, **strided)(h)
    h = layers.Flatten()(h)
    hidden = layers.Dense(16, activation="relu")(h)

    h = layers.Dense(height // 4 * width // 4 * 64, activation="relu")(latents)
    h = layers.Reshape((height // 4, width // 4, 64))(h)
    h = layers.Conv2DTranspose(64, **strided)(h)
    h = layers.Conv2DTranspose(32, **strided)(h)
    logits = layers.Conv2DTranspose(channels, 3, padding="same", dtype="float32", name="logits")(h)
    return hidden, logits


def _dense_networks(images, latents):
    # He et al. (2015): ReLU halves the variance of what passes, these weights double it again.
    relu = {"activation": "relu", "kernel_initializer": "he_uniform"}
    h = layers.Flatten()(images)
    h = layers.Dense(384, **relu)(h)
    hidden = layers.Dense(384, **relu)(h)

    h = layers.Dense(384, **relu)(latents)
    h = layers.Dense(384, **relu)(h)
    return hidden, _to_image(h, images.shape[1:])


def _linear_networks(images, latents):
    return layers.Flatten()(images), _to_image(latents, images.shape[1:])


def _to_image(h, image_shape):
    flat = layers.Dense(math.prod(image_shape))(h)
    return layers.Reshape(image_shape, dtype="float32", name="logits")(flat)


def _require_that_they_fit(encoder, decoder, latent_dim, image_shape):
    codes = [tuple(output.shape[1:]) for output in encoder.outputs]
    if codes != [(latent_dim,)] * 2 or tuple(encoder.input_shape[1:]) != image_shape:
        raise ValueError(
            "The encoder must turn the decoder's images into [mean, log_var] of the decoder's "
            f"latent_dim. Received: a decoder from ({latent_dim},) to {image_shape}, an encoder "
            f"from {tuple(encoder.input_shape[1:])} to {codes}"
        )


def _require_images_alone(y, sample_weight):
    if y is not None or sample_weight is not None:
        raise ValueError(
            "A VAE learns from images alone: call fit(x) or evaluate(x), with a data set of x, "
            "not of (x, y). Received: targets or sample weights as well"
        )


def _in_unit_interval(x):
    return ops.logical_and(ops.min(x) >= 0, ops.max(x) <= 1)


def _in_batches(network, rows):
    """Return the network's outputs for all rows, as a list of NumPy arrays."""
    parts = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        outputs = network(rows[start : start + ROWS_AT_ONCE], training=False)
        parts.append([ops.convert_to_numpy(output) for output in _as_list(outputs)])
    return [np.concatenate(part) for part in zip(*parts)]


def _as_list(value):
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def is_positive_integer(value):
    """Return whether `value` is one of Python's or NumPy's integers above 0; a bool is none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and value > 0


def _let_trained_models_go():
    """Spare Keras's optimizers the sum over replicas where there is one.

    What it leaves in TensorFlow's gradient registry keeps the graph, the weights and the
    optimizer's state of every trained model in memory for good: tensorflow/tensorflow#97697.
    """
    optimizer_class = keras.optimizers.Optimizer
    sum_over_replicas = optimizer_class._all_reduce_sum_gradients

    def sum_if_replicated(optimizer, grads_and_vars):
        if optimizer._distribution_strategy.num_replicas_in_sync == 1:
            return grads_and_vars
        return sum_over_replicas(optimizer, grads_and_vars)

    optimizer_class._all_reduce_sum_gradients = sum_if_replicated


if keras.backend.backend() == "tensorflow":
    _let_trained_models_go()
