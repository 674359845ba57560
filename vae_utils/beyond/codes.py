"""Discrete codes: a VQ-VAE, for which `code_prior` has a prior."""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
import keras
import numpy as np
from keras import layers, ops

from vae_utils import losses, models
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
        self.positions = self.grid[0] * self.grid[1]
        start = keras.initializers.RandomNormal(0, 1, seed)
        self.codebook = self.add_weight((codes, self.grid[-1]), start, name="codebook")
        self.usage = self.add_weight((codes,), "ones", trainable=False, name="usage")
        self.noise = keras.random.SeedGenerator(seed)
        names = ("reconstruction", "perplexity")
        self.trackers = {name: keras.metrics.Mean(name=name) for name in names}
        self.built = True

    def rows_at_once(self):
        """Return how many images are computed at once, as `models.VAE` does."""
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
        shares = ops.mean(ops.one_hot(y_pred["codes"], self.codes), axis=(0, 1, 2))
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
            size, dead = ops.shape(vectors)[0], usage < DEAD
            picks = keras.random.randint((self.codes,), 0, size, seed=self.noise)
            fresh = ops.take(vectors, picks, axis=0)
            self.codebook.assign(ops.where(dead[:, None], fresh, self.codebook))
            usage = ops.where(dead, 1.0, usage)
        self.usage.assign(usage)

    def start_from(self, images, seed=None):
        """Let each code begin as one of the encoder's vectors for some images, no two the same.

        Raises:
            ValueError: if the images have fewer different vectors than there are codes.
        """
        z = self._vectors(images).reshape(-1, self.grid[-1])
        z = np.unique(z.round(5), axis=0)  # blank patches have one vector, but for the last bits
        wanted = f"{self.codes} codes need as many different vectors. Give more images."
        require(len(z) >= self.codes, wanted, f"{len(z)} vectors")
        picks = np.random.default_rng(seed).choice(len(z), self.codes, replace=False)
        self.codebook.assign(z[picks])

    def encode(self, x):
        """Return the codes of images: NumPy integers, shape `(n, K)`, row by row of the grid."""
        codes = ops.convert_to_numpy(self.nearest(self._vectors(x)))
        return codes.reshape(len(x), -1).astype("int32")

    def _vectors(self, x):
        parts = [ops.convert_to_numpy(self.encoder(x[rows])) for rows in _slices(len(x))]
        return np.concatenate(parts)

    def decode(self, codes):
        """Return the decoder's logits, `(n, height, width, channels)`, for codes `(n, K)`."""
        codes = np.asarray(codes)
        valid = codes.ndim == 2 and codes.shape[1] == self.positions and codes.dtype.kind == "i"
        wanted = f"codes must be integers below {self.codes}, of shape (n, {self.positions})."
        inside = valid and np.all((codes >= 0) & (codes < self.codes))
        require(inside, wanted, f"shape {codes.shape}, {codes.dtype}")
        grids = ops.convert_to_numpy(self.codebook)[codes].reshape(-1, *self.grid)
        parts = [self.decoder(grids[rows]) for rows in _slices(len(codes))]
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


def _slices(count):
    return [slice(row, row + ROWS_AT_ONCE) for row in range(0, count, ROWS_AT_ONCE)]


def perplexity(shares):
    """Return e to the entropy of shares that add up to 1: C if all C are equal, 1 if one is 1."""
    return ops.exp(-ops.sum(shares * ops.log(ops.maximum(shares, 1e-12))))


def build(grid=GRID, codes=CODES, *, dimensions=DIMENSIONS, width=WIDTH, seed=None, **kwargs):
    """Build an untrained `VQVAE` for 28 × 28 images, cut into patches.

    The same small network makes a vector of each patch; the dense decoder sees all codes.

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
    """Return a VQ-VAE, cached, or trained and cached; its codes start as vectors of the encoder.

    Args:
        digits, seed: as `scale.load_or_train`.
        arguments, kwargs: as `build`.
        steps: of gradient, with 200 images each.

    Returns:
        `(vqvae, seconds)`: a trained `VQVAE`, and how long its training took.
    """

    def start():
        vqvae = build(*arguments, seed=seed, **kwargs)
        vqvae.start_from(scale.binarize(digits.train_levels[:1000], seed), seed)
        return vqvae

    settings = (*arguments, *sorted(kwargs.items()))
    return scale.train_for(steps, digits, start, __file__, settings, seed)
