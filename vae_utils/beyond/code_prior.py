"""An autoregressive prior over the discrete codes of a VQ-VAE."""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
import time

import keras
import numpy as np
from keras import layers, ops

from vae_utils import training


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

    Codes become vectors of its own; a masked hidden layer follows, then C logits a position.

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


def fit(codes, count, *, steps=400, peak=1e-2, batch_size=250, seed=0, **kwargs):
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
    )
    begun = time.perf_counter()
    rows = np.random.default_rng(seed).permutation(np.arange(steps * batch_size) % len(codes))
    prior.fit(codes[rows], codes[rows], batch_size, verbose=0)
    return prior, time.perf_counter() - begun
