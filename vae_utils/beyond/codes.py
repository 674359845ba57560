"""Discrete codes: a VQ-VAE, and an autoregressive prior over the codes that it chooses."""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
import time
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from vae_utils import losses, models, training
from vae_utils.beyond import scale
from vae_utils.checks import is_positive_integer, require

GRID, CODES, DIMENSIONS = 4, 32, 8
WIDTH, STEPS = 384, 2_000
COMMITMENT = 0.25  # β in van den Oord et al. (2017), section 3.2
MEMORY, DEAD = 0.95, 0.05  # of the usage; a share of what each code would get of an even use
ROWS_AT_ONCE = models.MOST_ROWS_AT_ONCE


@keras.saving.register_keras_serializable("vae_utils")
class VQVAE(keras.Model):
    """A VQ-VAE: the encoder's vectors are replaced by the nearest of a few, with a number each.

    Van den Oord et al. (2017), equation 3. The decoder's gradient passes to the encoder as if
    nothing had been replaced; two squared distances pull code and vector towards each other. Its
    loss is −log p(x|c) + ‖sg[z] − e‖² + β ‖z − sg[e]‖² in nats per image, summed over pixels,
    positions and dimensions; `fit` logs the first as `reconstruction`, and the `perplexity` of
    the codes within a batch: how many codes used alike would have the same entropy.

    Args:
        encoder: from images `(batch, height, width, channels)` to `(batch, rows, columns, D)`.
        decoder: from such a grid of vectors to an image of logits.
        codes: C, how many vectors the codebook has.
        beta: β, the weight of the encoder's commitment to the codes that it has chosen.
        restart: whether a code that is hardly used moves to a vector of the current batch.
        seed: integer that makes the choice of that vector repeatable, or None.

    Raises:
        ValueError: unless `codes` is a positive integer and the networks fit together.
    """

    def __init__(
        self, encoder, decoder, codes=CODES, beta=COMMITMENT, restart=True, seed=None, **kwargs
    ):
        super().__init__(**kwargs)
        require(is_positive_integer(codes), "codes must be a positive integer.", f"{codes=}")
        fits = encoder.output_shape == decoder.input_shape and len(encoder.output_shape) == 4
        wanted = "The decoder must take the grid of vectors that the encoder gives."
        require(fits, wanted, f"shapes {encoder.output_shape} and {decoder.input_shape}")
        self.encoder, self.decoder = encoder, decoder
        self.codes, self.beta, self.restart, self.seed = codes, beta, restart, seed
        self.grid = encoder.output_shape[1:]
        start = keras.initializers.RandomNormal(0, 1, seed)
        self.codebook = self.add_weight((codes, self.grid[-1]), start, name="codebook")
        self.usage = self.add_weight((codes,), "ones", trainable=False, name="usage")
        self.noise = keras.random.SeedGenerator(seed)
        names = ("reconstruction", "perplexity")
        self.trackers = {name: keras.metrics.Mean(name=name) for name in names}
        self.built = True

    @property
    def positions(self):
        """K, how many codes an image has."""
        return self.grid[0] * self.grid[1]

    def rows_at_once(self):
        """Return how many images are computed at once."""
        return ROWS_AT_ONCE

    def nearest(self, z):
        """Return the numbers of the nearest codes, `(…)`, for vectors of shape `(…, D)`."""
        lengths = ops.sum(ops.square(self.codebook), axis=-1)
        return ops.argmin(lengths - 2 * ops.matmul(z, ops.transpose(self.codebook)), axis=-1)

    def call(self, x, training=False):
        z = self.encoder(x, training=training)
        codes = self.nearest(z)
        chosen = ops.take(self.codebook, codes, axis=0)
        through = z + ops.stop_gradient(chosen - z)  # its value is chosen, its gradient z's
        logits = self.decoder(through, training=training)
        return {"logits": logits, "z": z, "codes": codes, "chosen": chosen}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Return the loss, averaged over the batch, and record its first part."""
        alone = y is None and sample_weight is None
        require(alone, "A VQ-VAE learns from images alone.", "targets or sample weights as well")
        z, chosen = y_pred["z"], y_pred["chosen"]
        nll = losses.bernoulli_nll(ops.cast(x, "float32"), y_pred["logits"])
        to_code = ops.square(ops.stop_gradient(z) - chosen)
        to_vector = ops.square(z - ops.stop_gradient(chosen))
        apart = ops.sum(to_code + self.beta * to_vector, axis=(1, 2, 3))
        shares = ops.mean(ops.one_hot(ops.reshape(y_pred["codes"], (-1,)), self.codes), axis=0)
        self.trackers["reconstruction"].update_state(nll)
        self.trackers["perplexity"].update_state(perplexity(shares))
        if training:
            self._remember(shares, z)
        return ops.mean(nll + apart)

    def _remember(self, shares, z):
        """Follow how much each code is used; move those that hardly are, if asked to."""
        usage = MEMORY * self.usage + (1 - MEMORY) * self.codes * shares
        if self.restart:
            vectors = ops.reshape(ops.stop_gradient(z), (-1, self.grid[-1]))
            count = ops.shape(vectors)[0]
            picks = keras.random.randint((self.codes,), 0, count, seed=self.noise)
            dead = usage < DEAD
            fresh = ops.take(vectors, picks, axis=0)
            self.codebook.assign(ops.where(dead[:, None], fresh, self.codebook))
            usage = ops.where(dead, 1.0, usage)
        self.usage.assign(usage)

    def start_from(self, images, seed=None):
        """Let each code begin as one of the encoder's vectors for some images."""
        z = np.concatenate([z.reshape(-1, self.grid[-1]) for z in self._in_batches(images)])
        picks = np.random.default_rng(seed).choice(len(z), self.codes, replace=False)
        self.codebook.assign(z[picks])

    def encode(self, x):
        """Return the codes of images: NumPy integers, shape `(n, K)`, row by row of the grid."""
        codes = [ops.convert_to_numpy(self.nearest(z)) for z in self._in_batches(x)]
        return np.concatenate(codes).reshape(len(x), -1).astype("int32")

    def _in_batches(self, x):
        for start in range(0, len(x), ROWS_AT_ONCE):
            rows = x[start : start + ROWS_AT_ONCE]
            yield ops.convert_to_numpy(self.encoder(rows, training=False))

    def decode(self, codes):
        """Return the decoder's logits, `(n, height, width, channels)`, for codes `(n, K)`."""
        codes = np.asarray(codes)
        valid = codes.ndim == 2 and codes.shape[1] == self.positions and len(codes)
        wanted = f"codes must be integers below {self.codes}, of shape (n, {self.positions})."
        whole = np.issubdtype(codes.dtype, np.integer)
        inside = valid and whole and codes.min() >= 0 and codes.max() < self.codes
        require(inside, wanted, f"shape {codes.shape}, {codes.dtype}")
        vectors = ops.convert_to_numpy(self.codebook)
        parts = [
            self.decoder(vectors[codes[row : row + ROWS_AT_ONCE]].reshape(-1, *self.grid))
            for row in range(0, len(codes), ROWS_AT_ONCE)
        ]
        return np.concatenate([ops.convert_to_numpy(part) for part in parts])

    def decode_mean(self, codes):
        """Return the mean images, pixels in [0, 1]; shapes as in `decode`."""
        return ops.convert_to_numpy(ops.sigmoid(self.decode(codes)))

    def distortion(self, x, codes):
        """Return −log p(x|c) of images given codes `(n, K)`: nats per image, shape `(n,)`."""
        nll = losses.bernoulli_nll(ops.cast(x, "float32"), self.decode(codes))
        return ops.convert_to_numpy(nll)

    def get_config(self):
        names = ("encoder", "decoder", "codes", "beta", "restart", "seed")
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **keras.saving.serialize_keras_object(own)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects))


def perplexity(shares):
    """Return e to the entropy of shares that add up to 1: C if all C are equal, 1 if one is 1."""
    return ops.exp(-ops.sum(shares * ops.log(ops.maximum(shares, 1e-12))))


def build(grid=GRID, codes=CODES, *, dimensions=DIMENSIONS, width=WIDTH, seed=None, **kwargs):
    """Build an untrained `VQVAE` for 28 × 28 images, cut into patches.

    Each vector is made from one patch, by the same small network; the decoder is dense and sees
    all codes.

    Args:
        grid: rows and columns of the grid of codes, a divisor of 28.
        codes, seed, kwargs: as `VQVAE`.
        dimensions: D, of each code.
        width: units of each of the decoder's two hidden layers.
    """
    valid = is_positive_integer(grid) and 28 % grid == 0
    require(valid, "grid must divide 28.", f"{grid=}")
    relu = {"activation": "relu", "kernel_initializer": "he_uniform"}
    images, patch = keras.Input((28, 28, 1)), 28 // grid
    h = layers.Conv2D(64, patch, patch, **relu)(images)
    h = layers.Conv2D(64, 1, **relu)(h)
    encoder = keras.Model(images, layers.Conv2D(dimensions, 1)(h))
    vectors = keras.Input((grid, grid, dimensions))
    h = layers.Flatten()(vectors)
    for _ in range(2):
        h = layers.Dense(width, **relu)(h)
    decoder = keras.Model(vectors, layers.Reshape((28, 28, 1))(layers.Dense(784)(h)))
    return VQVAE(encoder, decoder, codes, seed=seed, **kwargs)


def load_or_train(digits, *arguments, steps=STEPS, seed=0, **kwargs):
    """Return a VQ-VAE whose codes start as the encoder's vectors: cached, or trained and cached.

    Args:
        digits, seed: as `scale.load_or_train`.
        arguments, kwargs: as `build`.
        steps: of gradient, with 200 images each.

    Returns:
        `(vqvae, seconds)`: a trained `VQVAE`, and how long its training took.
    """
    settings = (*arguments, steps, seed, *sorted(kwargs.items()))
    key = training.cache_key(digits.fingerprint, settings, Path(__file__).read_bytes())

    def start():
        vqvae = build(*arguments, seed=seed, **kwargs)
        vqvae.start_from(scale.binarize(digits.train_levels[:1000], seed), seed)
        return vqvae, scale.batches(digits, seed=seed, steps=steps)

    return scale.train_once(f"codes-{key}", start, 1, seed)


class Masked(layers.Layer):
    """A dense layer over positions that looks backwards only: Germain et al. (2015), equation 8.

    Args:
        positions: K.
        inputs, outputs: numbers that each position takes in and puts out.
        strict: whether a position must not see itself.
    """

    def __init__(self, positions, inputs, outputs, strict, **kwargs):
        super().__init__(**kwargs)
        seen = np.triu(np.ones((positions, positions), "float32"), int(strict))
        self.mask = np.kron(seen, np.ones((inputs, outputs), "float32"))
        self.kernel = self.add_weight(self.mask.shape, "glorot_uniform", name="kernel")
        self.bias = self.add_weight(self.mask.shape[1:], "zeros", name="bias")
        self.built = True

    def call(self, x):
        return ops.matmul(x, self.kernel * self.mask) + self.bias


class CodePrior(keras.Model):
    """A prior over K codes, one after the other: p(c) = Π p(c_k | c_1, …, c_{k−1}).

    Codes become vectors of the prior's own; one masked hidden layer, then C logits a position.

    Args:
        positions: K, how many codes an image has.
        codes: C, how many there are to choose from.
        width: hidden units, and numbers of a code's vector, per position.
    """

    def __init__(self, positions, codes, width=16, **kwargs):
        super().__init__(**kwargs)
        self.sizes = (positions, codes)
        start = keras.initializers.RandomNormal(0, 1)
        self.vectors = layers.Embedding(positions * codes, width, start)
        self.hidden = Masked(positions, width, width, strict=True)
        self.out = Masked(positions, width, codes, strict=False)

    def call(self, codes):
        """Return logits of p(c_k | c_1, …, c_{k−1}), shape `(batch, K, C)`."""
        positions, count = self.sizes
        h = self.vectors(codes + count * np.arange(positions, dtype="int32"))
        h = ops.relu(self.hidden(ops.reshape(h, (-1, positions * h.shape[-1]))))
        return ops.reshape(self.out(h), (-1, positions, count))

    def log_prob(self, codes):
        """Return log p(c) in nats, a NumPy array `(n,)`, for integers of shape `(n, K)`."""
        codes = np.asarray(codes)
        log_p = ops.convert_to_numpy(ops.log_softmax(self.predict(codes, 1000, verbose=0)))
        return np.take_along_axis(log_p, codes[..., None], -1)[..., 0].sum(axis=1, dtype=float)

    def sample(self, count, seed, given=()):
        """Return `count` draws, one position after the other: integers, shape `(count, K)`.

        Args:
            count, seed: how many, and the integer from which they follow.
            given: the first codes of all of them, at most K integers.
        """
        rng = np.random.default_rng(seed)
        codes = np.zeros((count, self.sizes[0]), "int32")
        codes[:, : len(given)] = given
        for k in range(len(given), self.sizes[0]):
            logits = ops.convert_to_numpy(self(codes))[:, k]
            codes[:, k] = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
        return codes


def fit_prior(codes, count, *, steps=400, peak=1e-2, batch_size=250, seed=0, **kwargs):
    """Fit a `CodePrior` to codes by Adam; it starts as the histogram of each position.

    Args:
        codes: of training images, integers of shape `(n, K)`.
        count: C, how many codes there are.
        steps, peak, batch_size: of gradient; the highest learning rate; images a step.
        seed: integer from which weights and order follow.
        kwargs: as `CodePrior`.

    Returns:
        `(prior, seconds)`: the fitted prior, and how long that took.
    """
    keras.utils.set_random_seed(seed)
    prior = CodePrior(codes.shape[1], count, **kwargs)
    counts = [np.bincount(place, minlength=count) + 0.5 for place in codes.T]
    prior.out.bias.assign(np.log(np.stack(counts) / (len(codes) + count / 2)).ravel())
    prior.compile(
        keras.optimizers.Adam(training.warm_up_and_decay(peak, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=20,
    )
    start = time.perf_counter()
    at_a_time = steps * batch_size
    rows = np.random.default_rng(seed).permutation(np.arange(at_a_time) % len(codes))
    prior.fit(codes[rows], codes[rows], batch_size, verbose=0)
    return prior, time.perf_counter() - start
