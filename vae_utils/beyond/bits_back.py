"""Bits back: images in a file as long as a VAE's negative ELBO, and out of it again."""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
import bz2
import io
import lzma
import math
import zlib

import constriction
import numpy as np
import tensorflow as tf
from PIL import Image
from scipy.special import expit, ndtr, ndtri

from vae_utils.checks import is_positive_integer, require

BINS = 2**8  # of each latent dimension
LEAST = 2.0**-24  # which the coder adds to each probability: nothing is impossible
WORD = 32  # bits

AnsCoder = constriction.stream.stack.AnsCoder
models = constriction.stream.model
LEVELS = models.Categorical(perfect=False)


class Codec:
    """A latent-variable model as a code: pushes images onto a stack of bits and pops them off.

    Each dimension of z is one of `bins` intervals to which the prior N(0, 1) gives equal mass; the
    decoder sees the interval's median. To push an image: pop z with q(z|x), push x with p(x|z),
    push z with p(z). The stack grows by −log p(x|z) − log p(z) + log q(z|x) in bits, on average
    the negative ELBO: Townsend et al. (2019), whose intervals these are.

    Whoever pops has to compute the very numbers that were computed for the push, bit for bit.

    Args:
        posterior: function from an image, `(dimensions,)` integers, to mean and standard deviation
            of q(z|x), each `(latent_dim,)`.
        likelihood: function from z, `(latent_dim,)`, to the probability of each level at each
            pixel, `(dimensions, levels)`.
        latent_dim: D.
        bins: intervals of each dimension.
    """

    def __init__(self, posterior, likelihood, latent_dim, bins=BINS):
        for name, value in (("latent_dim", latent_dim), ("bins", bins)):
            valid = is_positive_integer(value)
            require(valid, f"{name} must be a positive integer.", f"{name}={value!r}")
        self.posterior, self.likelihood = posterior, likelihood
        self.latent_dim, self.bins = latent_dim, bins
        self.medians = ndtri((np.arange(bins) + 0.5) / bins)
        self.prior = models.Uniform(bins)
        self.latent = models.CustomModel(
            lambda edge, mean, sd: ndtr((ndtri((edge + 0.5) / bins) - mean) / sd),
            lambda mass, mean, sd: bins * ndtr(mean + sd * ndtri(mass)) - 0.5,
            0,
            bins - 1,
        )

    def table(self, z):
        """Return p(x|z) for intervals of z; row by row in memory, as the coder reads it."""
        return np.ascontiguousarray(self.likelihood(self.medians[z]), float)

    def push(self, stack, x):
        """Push one image, `(dimensions,)` int32; return the intervals of z, `(latent_dim,)`."""
        mean, sd = self.posterior(x)
        z = stack.decode(self.latent, mean, sd)
        stack.encode_reverse(x, LEVELS, self.table(z))
        stack.encode_reverse(z, self.prior)
        return z

    def pop(self, stack):
        """Pop one image, `(dimensions,)` int32, and give the stack the bits of z back."""
        z = stack.decode(self.prior, self.latent_dim)
        x = stack.decode(LEVELS, self.table(z))
        mean, sd = self.posterior(x)
        stack.encode_reverse(z, self.latent, mean, sd)
        return x

    def lengths(self, x, z):
        """Return −log₂ p(x|z), −log₂ p(z) and log₂ q(z|x) of an image and intervals, in bits."""
        mean, sd = self.posterior(x)
        low, high = ((ndtri((z + step) / self.bins) - mean) / sd for step in (0, 1))
        # On the side of the lower tail, where the difference of two masses is exact.
        low, high = np.where(low > 0, -high, low), np.where(low > 0, -low, high)
        back = _log_of_coder(ndtr(high) - ndtr(low), self.bins)
        table = self.table(z)
        of_x = -_log_of_coder(table[np.arange(len(x)), x], table.shape[1])
        return of_x, self.latent_dim * math.log2(self.bins), back


def _log_of_coder(p, choices):
    """Return Σ log₂ of probabilities of so many choices, as the coder has them."""
    return np.log2(p * (1 - choices * LEAST) + LEAST).sum()


def of_vae(vae, bins=BINS):
    """Return the `Codec` of a `models.VAE` with black and white pixels.

    Its networks see one image at a time, always: in a batch of another size a sum may be taken in
    another order, and the last digit of a probability may differ.
    """
    require(vae.likelihood == "bernoulli", "The pixels must be Bernoulli.", f"{vae.likelihood=}")
    encode, decode = tf.function(vae.encoder), tf.function(vae.decoder)

    def posterior(x):
        outputs = encode(x.reshape(1, *vae.image_shape).astype("float32"))
        mean, log_var = (output[0].numpy().astype(float) for output in outputs)
        return mean, np.exp(0.5 * log_var)

    def likelihood(z):
        ink = expit(decode(z[np.newaxis].astype("float32")).numpy().ravel().astype(float))
        return np.stack([1 - ink, ink], axis=1)

    return Codec(posterior, likelihood, vae.latent_dim, bins)


def pack(codec, images, seed=0):
    """Return the file of some images: the bytes that `unpack` reads.

    The first image borrows its bits from random ones, which stay in the file's bottom.

    Args:
        codec: a `Codec`.
        images: integers, shape `(n, dimensions)`, the first to be popped last.
        seed: integer from which the random bits follow.

    Returns:
        `bytes`: the number of images, then the stack, in words of four bytes, little-endian.
    """
    images = np.asarray(images)
    valid = images.ndim == 2 and images.dtype.kind in "iu" and len(images)
    wanted = "images must be integers, shape (n, dimensions), n > 0."
    require(valid, wanted, f"shape {images.shape}, {images.dtype}")
    stack = AnsCoder(first_words(codec, seed))
    for x in images.astype(np.int32):
        codec.push(stack, x)
    words = np.concatenate([[len(images)], stack.get_compressed()])
    return words.astype("<u4").tobytes()


def unpack(codec, file):
    """Read what `pack` wrote.

    Returns:
        `(images, words)`: int32, shape `(n, dimensions)`, in their order, and the random words
        that the first image had borrowed from, uint32.
    """
    count, *words = np.frombuffer(file, "<u4").astype(np.uint32)
    stack = AnsCoder(np.array(words, np.uint32))
    images = [codec.pop(stack) for _ in range(count)]
    return np.stack(images[::-1]), stack.get_compressed()


def first_words(codec, seed=0):
    """Return random words, uint32, enough for the bits that a typical first image borrows."""
    count = math.ceil(codec.latent_dim * math.log2(codec.bins) / WORD) + 2
    return np.random.default_rng(seed).integers(1, 2**WORD, count, np.uint32)


def sheet(images, columns):
    """Lay images, `(n, height, width, …)`, out in rows as one picture; n divides by columns."""
    rows, (_, height, width, *channels) = len(images) // columns, images.shape
    wanted = "The images must fill the rows."
    require(rows * columns == len(images), wanted, f"{len(images)} images, {columns=}")
    tiles = images.reshape(rows, columns, height, width, *channels).swapaxes(1, 2)
    return tiles.reshape(rows * height, columns * width, *channels)


def image_bytes(picture, form, **options):
    """Return how many bytes a picture takes as an image file.

    Args:
        picture: uint8, shape `(height, width)` or `(height, width, 3)`, or booleans for one bit.
        form, options: as Pillow's `Image.save`.
    """
    file = io.BytesIO()
    Image.fromarray(picture).save(file, form, **options)
    return len(file.getvalue())


def general_bytes(raw):
    """Return how many bytes general compressors make of `bytes`: a dictionary by name."""
    # 9 differs by the size of its dictionary, for more than 8 MiB, and takes 700 MB of memory.
    plain = {"format": lzma.FORMAT_ALONE, "preset": 6 | lzma.PRESET_EXTREME}
    return {
        "zlib": len(zlib.compress(raw, 9)),
        "bz2": len(bz2.compress(raw, 9)),
        "xz": len(lzma.compress(raw, **plain)),
    }
