"""Factors: sprites whose causes are known, many small VAEs at once, measures of disentanglement."""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
import math

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from scipy.special import ndtr
from sklearn.linear_model import LogisticRegression

from vae_utils import models, training
from vae_utils.beyond.hierarchy import kl_by_unit
from vae_utils.beyond.priors import log_normal
from vae_utils.checks import require

FACTORS = {"shape": 3, "x": 8, "y": 8, "size": 4, "angle": 8}
COUNTS = tuple(FACTORS.values())
SIDE = 20  # pixels
LABEL_LOG_VAR = math.log(0.01)  # of the prior of a latent whose factor is told
EDGES = np.concatenate([[-np.inf], np.linspace(-4, 4, 81), [np.inf]])  # of bins of a latent


def sprites():
    """Draw all sprites: black-and-white images of every combination of the five factors.

    A half disc, an isosceles triangle or an ellipse; none looks the same after a turn by less than
    180°, and angles run from −60° to 60°, so that each image has one angle.

    Returns:
        `(images, values)`: float32 of zeros and ones, `(6144, SIDE, SIDE, 1)`, and integers, the
        number of each factor's value, `(6144, 5)`, the last factor running fastest.
    """
    values = np.stack(np.meshgrid(*map(np.arange, COUNTS), indexing="ij"), -1).reshape(-1, 5)
    shape, x, y, size, angle = np.float32(values.T)[..., None, None]
    down, across = np.mgrid[:SIDE, :SIDE].astype("float32")
    radius, turn = 3.4 + 0.8 * size, np.radians(-60 + angle * 120 / 7)
    right, up = (across - 6 - x) / radius, (13 - y - down) / radius
    u = np.cos(turn) * right + np.sin(turn) * up
    v = np.cos(turn) * up - np.sin(turn) * right
    half_disc = (u**2 + (v + 0.4) ** 2 < 1) & (v > -0.4)
    triangle = (v > -0.7) & (v + 2.6 * abs(u) < 1)
    rounded = np.where(shape == 0, half_disc, u**2 + (v / 0.4) ** 2 < 1)
    ink = np.where(shape == 1, triangle, rounded)
    return ink[..., None].astype("float32"), values


def total_correlation(z, mean, log_var):
    """Estimate KL(q(z) ‖ Π_j q(z_j)) of each model, with q(z) the mean posterior of the batch.

    Up to a constant the minibatch-weighted sampling of Chen et al. (2018). With all images in the
    batch it has no bias; with a part of them it estimates the total correlation of that part.

    Args:
        z: a draw from each posterior, `(batch, models, latent_dim)`.
        mean, log_var: of the posteriors, of the same shape.

    Returns:
        Nats, shape `(batch, models)`: their mean over the batch is the estimate.
    """
    each = log_normal(z[:, None, ..., None], mean[None, ..., None], log_var[None, ..., None])
    count = math.log(each.shape[1])
    joint = ops.logsumexp(ops.sum(each, axis=-1), axis=1) - count
    return joint - ops.sum(ops.logsumexp(each, axis=1) - count, axis=-1)


@keras.saving.register_keras_serializable("vae_utils")
class Crowd(keras.Model):
    """Many small dense VAEs, trained side by side on images of their own order.

    Model m minimizes D + beta[m] R + (tc[m] − 1) · total correlation: a VAE with 1 and 1, a β-VAE
    with β and 1 (Higgins et al. 2017), a β-TCVAE with 1 and β (Chen et al. 2018). Where `told[m]`
    is 1, the prior of an image whose factors are told is N(factors, 0.01) in the first latents.

    Args:
        beta, tc, told: one number for each model.
        size: pixels of an image.
        latent_dim, width: of each model.
        seed: integer that makes the sampled z repeatable, or None.

    Raises:
        ValueError: unless the three lists are of one length.
    """

    def __init__(self, beta, tc, told, size=SIDE**2, latent_dim=6, width=128, seed=None, **kwargs):
        super().__init__(**kwargs)
        lengths = [len(beta), len(tc), len(told)]
        require(len(set(lengths)) == 1, "Each model needs beta, tc and told.", f"{lengths=}")
        self.beta, self.tc, self.told = (np.array(v, "float32") for v in (beta, tc, told))
        self.latent_dim = latent_dim
        self.encoder = _networks(len(beta), size, width, 2 * latent_dim)
        self.decoder = _networks(len(beta), latent_dim, width, size)
        self.sampling = models.Sampling(seed)
        names = ("reconstruction", "kl", "tc")
        self.trackers = [keras.metrics.Mean(name=name) for name in names]
        self.built = True

    def call(self, inputs):
        x, factors, shown = inputs
        mean, log_var = ops.split(self.encoder(x), 2, axis=-1)
        z = self.sampling((mean, log_var))
        known = (shown * self.told)[..., None]
        pad = ((0, 0), (0, 0), (0, self.latent_dim - factors.shape[-1]))
        known *= ops.pad(ops.ones_like(factors), pad)
        prior = known * ops.pad(factors, pad), known * LABEL_LOG_VAR
        logits = self.decoder(z)
        return {
            "reconstruction": ops.sum(ops.softplus(logits) - x * logits, axis=-1),
            "kl": ops.sum(kl_by_unit((mean, log_var), prior), axis=-1),
            "tc": self._total_correlation(z, mean, log_var),
        }

    def _total_correlation(self, *parts):
        paying = np.flatnonzero(self.tc != 1)
        if not len(paying):
            return ops.zeros_like(parts[0][..., 0])
        found = total_correlation(*(ops.take(part, paying, axis=1) for part in parts))
        return found @ np.eye(len(self.tc), dtype="float32")[paying]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        parts = [y_pred[tracker.name] for tracker in self.trackers]
        for tracker, values in zip(self.trackers, parts):
            tracker.update_state(values)
        nll, kl, tc = parts
        return ops.sum(ops.mean(nll + self.beta * kl + (self.tc - 1) * tc, axis=0))

    def encode(self, images):
        """Return `(mean, log_var)` by all models, `(models, n, latent_dim)`; images `(n, size)`."""
        parts = []
        for rows in np.array_split(np.asarray(images, "float32"), -(-len(images) // 512)):
            x = np.repeat(rows[:, None], len(self.beta), axis=1)
            parts.append(ops.convert_to_numpy(self.encoder(x)))
        return np.split(np.concatenate(parts).swapaxes(0, 1), 2, axis=-1)

    def decode(self, model, z):
        """Return mean images of one model for z, `(n, latent_dim)`: `(n, side, side, 1)`."""
        z = np.repeat(np.asarray(z, "float32")[:, None], len(self.beta), axis=1)
        means = ops.convert_to_numpy(ops.sigmoid(self.decoder(z)))[:, model]
        side = math.isqrt(means.shape[-1])
        return means.reshape(-1, side, side, 1)


def _networks(count, inputs, width, outputs):
    """A network with two hidden layers for each of `count` models, `(batch, count, …)`."""

    def layer(units, **kwargs):
        shape = {"output_shape": (count, units), "bias_axes": "mo"}
        return layers.EinsumDense("bmi,mio->bmo", **shape, **kwargs)

    hidden = [layer(width, activation="relu", kernel_initializer="he_uniform") for _ in "12"]
    return keras.Sequential([keras.Input((count, inputs)), *hidden, layer(outputs)])


def standardized(values):
    """Return the numbers of the factors' values with mean 0 and variance 1, float32."""
    counts = np.array(COUNTS)
    return ((values - (counts - 1) / 2) / np.sqrt((counts**2 - 1) / 12)).astype("float32")


def batches(images, values, models, steps, told, batch_size=64, seed=0):
    """Return batches for a `Crowd`: the first quarter from the images whose factors are told.

    Args:
        images: `(n, size)`.
        values: numbers of the factors' values, `(n, factors)`.
        models: how many, each with a draw of its own.
        steps: how many batches.
        told: row numbers of images whose factors are told.
        batch_size: images for each model.
        seed: integer from which the draws follow.

    Returns:
        A `tf.data.Dataset` of tuples of a tuple `(x, factors, shown)`.
    """
    images, factors = tf.constant(images), tf.constant(standardized(values))
    told, few = tf.constant(told), batch_size // 4
    shown = tf.repeat(tf.constant([1.0, 0.0]), [few, batch_size - few])[:, None]
    shown = tf.tile(shown, [1, models])

    def draw(step):
        seeds = tf.stack([step + seed * steps, step])
        first = tf.random.stateless_uniform((few, models), seeds, 0, len(told), tf.int32)
        shape = (batch_size - few, models)
        rest = tf.random.stateless_uniform(shape, seeds + 1, 0, len(images), tf.int32)
        rows = tf.concat([tf.gather(told, first), rest], 0)
        return ((tf.gather(images, rows), tf.gather(factors, rows), shown),)

    return tf.data.Dataset.range(steps).map(draw).prefetch(2)


def train(crowd, dataset, learning_rate=3e-3):
    """Compile and fit a `Crowd` on `batches`, with the book's schedule; return the `History`."""
    training.prepare(crowd, dataset, 1, learning_rate)
    return crowd.fit(dataset, verbose=0, shuffle=False)


def information(mean, log_var, counts=COUNTS):
    """Return I(z_j; v_k) / H(v_k) for each latent and factor, `(latent_dim, factors)`.

    z_j is drawn from the posterior of an image drawn at random, v_k is the image's factor. The
    latent is put into bins, so that the sums are exact and a little below the information itself.

    Args:
        mean, log_var: posteriors of all images, `(n, latent_dim)`, the last factor running fastest.
        counts: how many values each factor has; their product is n.
    """
    wanted = f"mean must have a row for each of {math.prod(counts)} images."
    require(len(mean) == math.prod(counts), wanted, f"shape {np.shape(mean)}")
    found = np.empty((mean.shape[1], len(counts)))
    for j, (m, s) in enumerate(zip(mean.T, np.exp(0.5 * log_var.T))):
        share = np.diff(ndtr((EDGES - m[:, None]) / s[:, None]), axis=1)
        share = share.reshape(*counts, -1)
        for k, count in enumerate(counts):
            others = tuple(axis for axis in range(len(counts)) if axis != k)
            given = share.mean(axis=others)
            saved = _entropy(given.mean(axis=0)) - _entropy(given).mean()
            found[j, k] = saved / math.log(count)
    return found


def _entropy(shares):
    return -np.sum(shares * np.log(np.maximum(shares, 1e-300)), axis=-1)


def gap(found):
    """Mutual information gap: the lead of the best latent of each factor over the next, averaged.

    Chen et al. (2018), equation 6; `found` as `information` returns it.
    """
    ordered = np.sort(found, axis=0)
    return float(np.mean(ordered[-1] - ordered[-2]))


def beta_vae_metric(mean, seed=0, counts=COUNTS, pairs=32, votes=600):
    """How often a linear classifier tells what pairs of images share: Higgins et al. (2017).

    For each vote a factor is drawn, then `pairs` of images that agree in it and are random
    otherwise; the classifier sees their mean |difference| in each latent. Two thirds of the votes
    train it, the others judge it.

    Args:
        mean: of the posteriors of all images, `(n, latent_dim)`, the last factor running fastest.
        seed: integer from which the draws follow.
        counts: as `information`.
        pairs, votes: how many.

    Returns:
        The share of right answers, 1 / factors by guessing.
    """
    rng = np.random.default_rng(seed)
    factor = rng.integers(len(counts), size=votes)
    first, second = rng.integers(counts, size=(2, votes, pairs, len(counts)))
    every = np.arange(votes)
    second[every, :, factor] = first[every, :, factor]
    rows = [np.ravel_multi_index(tuple(np.moveaxis(v, -1, 0)), counts) for v in (first, second)]
    scaled = mean / np.maximum(mean.std(axis=0), 1e-6)
    seen = np.abs(scaled[rows[0]] - scaled[rows[1]]).mean(axis=1)
    split = 2 * votes // 3
    judge = LogisticRegression(C=100, max_iter=500).fit(seen[:split], factor[:split])
    return float(judge.score(seen[split:], factor[split:]))
