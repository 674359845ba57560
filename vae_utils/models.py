"""The variational autoencoder as an ordinary Keras model, and the three networks of the book."""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
import math

import keras
import numpy as np
from keras import layers, ops

from vae_utils import data, losses, replicas
from vae_utils.checks import can_be_equal, is_positive_integer, require

LIKELIHOODS = ("bernoulli", "gaussian")
MOST_ROWS_AT_ONCE = 1024
NUMBERS_AT_ONCE = MOST_ROWS_AT_ONCE * 28 * 28 * 32  # in the widest layer: 100 MB
ACTIVATIONS = {name.replace("_", "") for name in dir(keras.activations)} - {"linear"} | {"prelu"}
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
        self.seed_generator = replicas.SeedGenerator(seed)

    def call(self, inputs):
        mean, log_var = inputs
        noise = keras.random.normal(ops.shape(mean), dtype=mean.dtype, seed=self.seed_generator)
        return mean + ops.exp(0.5 * log_var) * noise

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def save_own_variables(self, store):
        store["noise"] = self.seed_generator.state  # a reloaded model goes on where this one was

    def load_own_variables(self, store):
        self.seed_generator.state.assign(store["noise"])

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable("vae_utils")
class VAE(keras.Model):
    """A variational autoencoder; its loss is the negative ELBO in nats per image.

    The loss is summed over pixels and latent dimensions and averaged over the batch. `fit` and
    `evaluate` log it with its parts, which add up to it: loss = `reconstruction` (the distortion)
    + beta · `kl` (the rate) + `regularization`, the last only where layers bring losses of their
    own. `compile` needs an optimizer only, `fit` and `evaluate` images only. `predict` returns a
    dictionary with `mean`, `log_var`, `z` and `logits`.

    Images with pixels that the likelihood cannot have made (outside [0, 1]; for "gaussian", not
    finite) get NaN for all of these and for the loss; no weight ever learns from them.

    Args:
        encoder: Keras model from images `(batch, height, width, channels)` to the list
            `[mean, log_var]` of the approximate posterior, each `(batch, latent_dim)`.
        decoder: Keras model from z, `(batch, latent_dim)`, to an image of logits (so without an
            activation at its end) or, for the Gaussian likelihood, of means.
        likelihood: "bernoulli", or "gaussian" with one trained noise variance for all pixels.
        beta: weight of the KL term in the loss (Higgins et al. 2017); `kl` is logged without it.
        seed: integer that makes the sampled z repeatable, or None.

    Raises:
        ValueError: if the networks do not fit together, for an unknown likelihood, or for a
            Bernoulli decoder that ends in an activation.
    """

    def __init__(self, encoder, decoder, likelihood="bernoulli", beta=1.0, seed=None, **kwargs):
        super().__init__(**kwargs)
        wanted = f"likelihood must be one of {LIKELIHOODS}."
        require(likelihood in LIKELIHOODS, wanted, f"{likelihood=}")
        if likelihood == "bernoulli":
            _require_logits(decoder)
        self.latent_dim = decoder.input_shape[-1]
        self.image_shape = tuple(decoder.output_shape[1:])
        taken, given = encoder.input_shape[1:], [head.shape[1:] for head in encoder.outputs]
        require(
            taken == self.image_shape and given == [(self.latent_dim,)] * 2,
            "The encoder must turn the decoder's images into [mean, log_var] of its latent_dim.",
            f"a decoder from {decoder.input_shape[1:]} to {self.image_shape}, an encoder from "
            f"{taken} to {given}",
        )
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.beta = beta
        self.seed = seed
        self.sampling = Sampling(seed, dtype="float32", name="sampling")
        self.reconstruction_tracker = keras.metrics.Mean(name="reconstruction")
        self.kl_tracker = keras.metrics.Mean(name="kl")
        self.regularization_tracker = keras.metrics.Mean(name="regularization")
        self.is_regularized = False
        self.mean_over_batch = MeanOverBatch()
        self.build((None, *self.image_shape))

    def build(self, input_shape):
        if self.likelihood == "gaussian":
            self.pixel_log_var = self.add_weight(
                shape=(), initializer=PIXEL_LOG_VAR_START, dtype="float32", name="pixel_log_var"
            )
        self.built = True

    @property
    def metrics(self):
        hidden = () if self.is_regularized else (self.regularization_tracker,)
        return [metric for metric in super().metrics if metric not in hidden]

    def call(self, x, training=False):
        self.check_shape(x.shape)
        x = ops.cast(x, self.compute_dtype)
        valid = ops.all(data.are_pixels(x, self.likelihood), axis=(1, 2, 3), keepdims=True)
        # Through a `where` on both sides neither NaN nor infinity comes to any weight's gradient.
        mean, log_var = self.encoder(ops.where(valid, x, 0), training=training)
        z = self.sampling((mean, log_var))
        logits = self.decoder(z, training=training)
        outputs = {"mean": mean, "log_var": log_var, "z": z, "logits": logits}
        column = valid[:, :, 0, 0]
        return {
            name: ops.where(valid if name == "logits" else column, value, math.nan)
            for name, value in outputs.items()
        }

    def reconstruction_term(self, x, logits):
        """−log p(x|z) under the model's likelihood: nats per image, shape `(batch,)`."""
        if self.likelihood == "gaussian":
            # A NaN image must not reach the weight, see `call`.
            log_var = ops.where(ops.isfinite(logits), self.pixel_log_var.value, math.nan)
            return losses.gaussian_nll(x, logits, log_var)
        return losses.bernoulli_nll(x, logits)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Return the loss, averaged over the batch, and record its parts."""
        _require_images_alone(y, sample_weight)
        reconstruction = self.reconstruction_term(ops.cast(x, "float32"), y_pred["logits"])
        kl = losses.gaussian_kl(y_pred["mean"], y_pred["log_var"])
        self.reconstruction_tracker.update_state(reconstruction)
        self.kl_tracker.update_state(kl)
        loss = reconstruction + self.beta * kl
        if extra := self.losses:  # of the layers: regularizers and `add_loss`
            self.is_regularized = True
            regularization = sum(ops.sum(ops.cast(term, "float32")) for term in extra)
            self.regularization_tracker.update_state(ops.zeros_like(kl) + regularization)
            loss += regularization
        return self.mean_over_batch(loss, loss)

    def compile(self, optimizer="adam", loss=None, metrics=None, **kwargs):
        """As `keras.Model.compile`, for an optimizer and all that does not concern the loss."""
        wanted = "A VAE brings its own loss, the negative ELBO: compile it with an optimizer only."
        require(loss is None and metrics is None, wanted, f"{loss=}, {metrics=}")
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.trainable_variables)  # not in `fit`, which may fail halfway

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    def fit(self, *args, sample_weight=None, **kwargs):
        """As `keras.Model.fit`, which would drop sample weights without a word."""
        _require_images_alone(sample_weight)
        return super().fit(*args, **kwargs)

    def evaluate(self, *args, sample_weight=None, **kwargs):
        """As `keras.Model.evaluate`; see `fit`."""
        _require_images_alone(sample_weight)
        return super().evaluate(*args, **kwargs)

    def encode(self, x):
        """Return the approximate posterior of images as NumPy arrays.

        Args:
            x: images in [0, 1], shape `(n, height, width, channels)`.

        Returns:
            `(mean, log_var)`, float32, each of shape `(n, latent_dim)`.

        Raises:
            ValueError: for images of the wrong shape or outside [0, 1].
        """
        self.check_shape(getattr(x, "shape", ()))
        wanted = "Grey levels up to 255 are divided by 255 first, as data.to_unit_interval does."
        require(data.full_scale(x, self.likelihood) == 1, wanted, f"dtype {x.dtype}")
        return self._in_batches(self.encoder, x)

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
        wanted = f"z must have the shape (n, {self.latent_dim}), n > 0."
        require(z.size and z.shape[1:] == (self.latent_dim,), wanted, f"z of shape {z.shape}")
        return self._in_batches(self.decoder, z)[0]

    def decode_mean(self, z):
        """Return the mean image of p(x|z), pixels in [0, 1] if Bernoulli; shapes as in `decode`."""
        if self.likelihood == "gaussian":
            return self.decode(z)
        return ops.convert_to_numpy(ops.sigmoid(self.decode(z)))

    def check_shape(self, shape):
        """Raise a `ValueError` unless this is the shape of some images for this model.

        Args:
            shape: `(n, height, width, channels)`, None for what is not known yet.
        """
        shape = tuple(shape)
        fits = can_be_equal(shape, (None, *self.image_shape)) and shape[0] != 0
        wanted = f"Images must have the shape (n, {', '.join(map(str, self.image_shape))})."
        require(fits, wanted, f"shape {shape}")

    def rows_at_once(self, network=None):
        """Return how many rows a network, or all of the VAE, computes at once in some 100 MB."""
        networks = [network] if network else [self.encoder, self.decoder]
        operations = sum(map(_operations, networks), [])
        tensors = keras.tree.flatten([operation.output for operation in operations])
        widest = max(math.prod(size or 1 for size in tensor.shape[1:]) for tensor in tensors)
        return min(max(NUMBERS_AT_ONCE // widest, 1), MOST_ROWS_AT_ONCE)

    def _in_batches(self, network, rows):
        """Return the network's outputs for all rows, as a list of NumPy arrays."""
        parts, at_once = [], self.rows_at_once(network)
        for start in range(0, len(rows), at_once):
            outputs = network(rows[start : start + at_once], training=False)
            parts.append([ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)])
        return [np.concatenate(part) for part in zip(*parts)]

    def get_config(self):
        names = ("encoder", "decoder", "likelihood", "beta", "seed")
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **keras.saving.serialize_keras_object(own)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return _called(cls(**keras.saving.deserialize_keras_object(config, custom_objects)))


class MeanOverBatch(keras.losses.Loss):
    """The mean of one loss for each image; with several replicas, this one's share of it."""

    def call(self, _, values):
        return values


def build_vae(
    architecture, latent_dim=2, image_shape=(28, 28, 1), likelihood=None, beta=1.0, seed=None
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
    wanted = f"architecture must be one of {tuple(builders)}."
    require(architecture in builders, wanted, f"{architecture=}")
    valid = is_positive_integer(latent_dim)
    require(valid, "latent_dim must be a positive integer.", f"{latent_dim=}")
    sizes = np.shape(image_shape) == (3,) and all(map(is_positive_integer, image_shape))
    require(sizes, "image_shape must be (height, width, channels).", f"{image_shape=}")
    latent_dim, image_shape = int(latent_dim), tuple(map(int, image_shape))
    images = keras.Input(image_shape, name="images")
    latents = keras.Input((latent_dim,), name="z")
    hidden, logits = builders[architecture](images, latents)
    # float32 whatever the dtype policy: e^log_var overflows early in half precision.
    mean = layers.Dense(latent_dim, dtype="float32", name="mean")
    log_var = layers.Dense(latent_dim, dtype="float32", name="log_var")
    vae = VAE(
        keras.Model(images, [mean(hidden), log_var(hidden)], name="encoder"),
        keras.Model(latents, logits, name="decoder"),
        likelihood=likelihood or ("gaussian" if architecture == "linear" else "bernoulli"),
        beta=beta,
        seed=seed,
        name=f"{architecture}_vae",
    )
    return _called(vae)


def _conv_networks(images, latents):
    height, width, channels = images.shape[1:]
    wanted = "The conv network halves the image twice: height and width must be divisible by 4."
    require(height % 4 == width % 4 == 0, wanted, f"image_shape={images.shape[1:]}")
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


def _require_images_alone(*others):
    wanted = "A VAE learns from images alone: fit or evaluate x, or a data set of x, not of (x, y)."
    alone = all(other is None for other in others)
    require(alone, wanted, "targets or sample weights as well")


def _require_logits(decoder):
    """Refuse a decoder that ends in an activation, perhaps with a reshaping after it."""
    for operation in reversed(_operations(decoder)):
        function = getattr(operation, "activation", operation)
        name = getattr(function, "__name__", type(function).__name__)
        is_activation = name.lower().replace("_", "") in ACTIVATIONS
        wanted = "A Bernoulli decoder returns logits: leave out the activation at its end."
        require(not is_activation, wanted, f"{name} in the layer {operation.name!r}")
        inputs = keras.tree.flatten(getattr(operation, "input", []))
        if getattr(operation, "weights", []) or len(inputs) != 1:
            return


def _operations(network):
    """List a network's layers and operations in order, those of networks within it as well."""
    name = "layers" if isinstance(network, keras.Sequential) else "operations"
    parts = getattr(network, name, [])
    return [o for part in parts for o in _operations(part)] or [network]


def _called(vae):
    """Call a model on a symbol, so that it can be summarized, exported and quantized."""
    vae(keras.KerasTensor((None, *vae.image_shape)))
    return vae
