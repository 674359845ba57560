"""Priors that learn: a mixture, the VampPrior and a flow, and a VAE with one of them."""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
import math

import keras
import numpy as np
from keras import layers, ops
from scipy.special import logsumexp

from vae_utils import models
from vae_utils.checks import is_positive_integer, require

LARGEST_LOG_SCALE = 2.0  # of one coupling: e² is a factor of 7


def log_normal(z, mean=0.0, log_var=0.0):
    """log N(z; mean, e^log_var), summed over the last axis; all three broadcast."""
    apart = ops.square(z - mean) * ops.exp(-log_var)
    return -0.5 * ops.sum(apart + log_var + math.log(2 * math.pi), axis=-1)


class Mixture(layers.Layer):
    """A mixture of Gaussians with full covariances, all of it trained.

    Args:
        components: how many Gaussians.
        latent_dim: D, the number of latent dimensions.
        seed: integer from which the first means follow, drawn from N(0, I).
    """

    def __init__(self, components, latent_dim, seed=None, **kwargs):
        super().__init__(**kwargs)
        for name, value in (("components", components), ("latent_dim", latent_dim)):
            wanted = f"{name} must be a positive integer."
            require(is_positive_integer(value), wanted, f"{name}={value!r}")
        self.latent_dim = latent_dim
        start = keras.initializers.RandomNormal(0, 1, seed)
        self.logits = self.add_weight((components,), "zeros", name="logits")
        self.means = self.add_weight((components, latent_dim), start, name="means")
        self.log_diagonals = self.add_weight((components, latent_dim), "zeros", name="diagonals")
        self.uppers = self.add_weight((components, latent_dim, latent_dim), "zeros", name="uppers")
        self.built = True

    def roots(self):
        """U of each precision matrix U Uᵀ, upper triangular: `(components, D, D)`."""
        return ops.triu(self.uppers, 1) + ops.exp(self.log_diagonals)[:, None] * ops.eye(
            self.latent_dim
        )

    def log_prob(self, z):
        """Return log p(z) in nats, shape `(batch,)`, for z of shape `(batch, latent_dim)`."""
        white = ops.einsum("bkd,kde->bke", z[:, None] - self.means, self.roots())
        each = log_normal(white) + ops.sum(self.log_diagonals, axis=-1)
        return ops.logsumexp(each + ops.log_softmax(self.logits), axis=-1)

    def sample(self, count, seed):
        """Return `count` draws as a NumPy array, `(count, latent_dim)`."""
        rng = np.random.default_rng(seed)
        part = _which(self.logits, count, rng)
        roots = ops.convert_to_numpy(self.roots())[part]
        noise = rng.standard_normal((count, self.latent_dim, 1))
        spread = np.linalg.solve(roots.transpose(0, 2, 1), noise)[..., 0]
        return ops.convert_to_numpy(ops.take(self.means, part, axis=0)) + spread


class VampPrior(layers.Layer):
    """The mixture of the posteriors of images that are made up: Tomczak & Welling (2018), eq. 9.

    The pseudo-inputs are trained through the encoder, and so are their weights. The encoder's
    own weights are not this layer's: in a `VAE` they learn as its encoder's.

    Args:
        encoder: of the VAE, from images to `[mean, log_var]`.
        images: what the pseudo-inputs start as, in [0, 1], `(components, height, width, channels)`.
    """

    def __init__(self, encoder, images, **kwargs):
        super().__init__(**kwargs)
        self.encode = lambda x: encoder(x)  # a layer would be tracked, a function is not
        images = np.asarray(images)
        valid = images.ndim == 4 and len(images) and np.all((images > -0.01) & (images < 1.01))
        wanted = "images must be some pixels in [0, 1], (components, height, width, channels)."
        require(valid, wanted, f"shape {images.shape}, {images.dtype}")
        ink = np.clip(images, 0.01, 0.99)
        start = keras.initializers.Constant(np.log(ink / (1 - ink)))
        self.logits = self.add_weight((len(ink),), "zeros", name="logits")
        self.pseudo_inputs = self.add_weight(ink.shape, start, name="pseudo_inputs")
        self.built = True

    def log_prob(self, z):
        """As `Mixture.log_prob`."""
        mean, log_var = self.encode(ops.sigmoid(self.pseudo_inputs))
        each = log_normal(z[:, None], mean, log_var)
        return ops.logsumexp(each + ops.log_softmax(self.logits), axis=-1)

    def sample(self, count, seed):
        """As `Mixture.sample`."""
        rng = np.random.default_rng(seed)
        part = _which(self.logits, count, rng)
        parts = self.encode(ops.sigmoid(self.pseudo_inputs))
        mean, log_var = (ops.convert_to_numpy(values)[part] for values in parts)
        return mean + np.exp(0.5 * log_var) * rng.standard_normal(mean.shape)


def _which(logits, count, rng):
    weights = ops.convert_to_numpy(ops.softmax(logits)).astype(float)
    return rng.choice(len(weights), count, p=weights / weights.sum())


class Flow(layers.Layer):
    """A normalizing flow of affine couplings: Dinh et al. (2017), section 3.

    Each coupling leaves half of the numbers as they are and shifts and scales the others by what
    a small network makes of the first; halves take turns. What comes out is N(0, I).

    Args:
        couplings: how many.
        latent_dim: D, at least 2.
        width: units in each of the two hidden layers of a coupling's network.
    """

    def __init__(self, couplings, latent_dim, width=64, **kwargs):
        super().__init__(**kwargs)
        wanted = "couplings must be a positive integer."
        require(is_positive_integer(couplings), wanted, f"{couplings=}")
        valid = is_positive_integer(latent_dim) and latent_dim > 1
        require(valid, "latent_dim must be an integer above 1.", f"{latent_dim=}")
        self.latent_dim = latent_dim
        self.networks = []
        for turn in range(couplings):
            kept = (latent_dim + turn % 2) // 2
            hidden = [layers.Dense(width, "relu", kernel_initializer="he_uniform") for _ in "12"]
            out = layers.Dense(2 * (latent_dim - kept), kernel_initializer="zeros")
            self.networks.append(keras.Sequential([keras.Input((kept,)), *hidden, out]))
        self.built = True

    def _shift_and_scale(self, network, kept):
        shift, scale = ops.split(network(kept), 2, axis=-1)
        return shift, LARGEST_LOG_SCALE * ops.tanh(scale / LARGEST_LOG_SCALE)

    def to_noise(self, z):
        """Return the noise that z is made of, and log |det ∂noise/∂z|, shape `(batch,)`."""
        log_det = 0.0
        for network in self.networks:
            size = network.input_shape[-1]
            kept, moved = z[:, :size], z[:, size:]
            shift, log_scale = self._shift_and_scale(network, kept)
            moved = (moved - shift) * ops.exp(-log_scale)
            log_det -= ops.sum(log_scale, axis=-1)
            z = ops.concatenate([moved, kept], axis=-1)  # the halves take turns
        return z, log_det

    def from_noise(self, noise):
        """Undo `to_noise`: return z, of the same shape."""
        z = noise
        for network in reversed(self.networks):
            size = self.latent_dim - network.input_shape[-1]
            moved, kept = z[:, :size], z[:, size:]
            shift, log_scale = self._shift_and_scale(network, kept)
            z = ops.concatenate([kept, moved * ops.exp(log_scale) + shift], axis=-1)
        return z

    def log_prob(self, z):
        """As `Mixture.log_prob`."""
        noise, log_det = self.to_noise(z)
        return log_normal(noise) + log_det

    def sample(self, count, seed):
        """As `Mixture.sample`."""
        noise = np.random.default_rng(seed).standard_normal((count, self.latent_dim))
        return ops.convert_to_numpy(self.from_noise(noise.astype("float32")))


class VAE(models.VAE):
    """A `models.VAE` with a prior of its own, trained along with the networks.

    Its KL term is KL(q(z|x) ‖ N(0, I)) in closed form, less the gain log p(z) − log N(z; 0, I) at
    the sampled z: unbiased for any prior, and without noise for N(0, I).

    Args:
        encoder, decoder and all others: as `models.VAE`.
        prior: a layer with `log_prob` and `sample`, such as `Mixture`, `VampPrior`, `Flow`.
    """

    def __init__(self, encoder, decoder, prior, **kwargs):
        self.prior = prior  # before `models.VAE` closes the list of layers
        super().__init__(encoder, decoder, **kwargs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        z = y_pred["z"]
        gain = self.prior.log_prob(z) - log_normal(z)
        self.kl_tracker.total.assign_add(-ops.sum(gain))
        return loss - self.beta * self.mean_over_batch(gain, gain)


def log_weights(vae, x, num_samples=64, seed=0):
    """Draw z ~ q(z|x) and return what log p(x) needs besides the prior.

    Args:
        vae: a `models.VAE`.
        x: images, shape `(n, height, width, channels)`.
        num_samples: K, how many z are drawn for each image.
        seed: integer from which they follow.

    Returns:
        `(z, rest)`, NumPy float32: z of shape `(n, K, latent_dim)`, and
        log p(x|z) − log q(z|x) in nats, shape `(n, K)`.
    """
    wanted = "num_samples must be a positive integer."
    require(is_positive_integer(num_samples), wanted, f"{num_samples=}")
    require(len(x), "x must hold at least one image.", f"shape {np.shape(x)}")
    mean, log_var = (values[:, None] for values in vae.encode(x))
    shape = (len(x), num_samples, vae.latent_dim)
    z = mean + np.exp(0.5 * log_var) * np.random.default_rng(seed).standard_normal(shape, "float32")
    rows, rest = max(vae.rows_at_once(vae.decoder) // num_samples, 1), []
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        logits = vae.decoder(z[part].reshape(-1, vae.latent_dim), training=False)
        nll = vae.reconstruction_term(np.repeat(x[part], num_samples, axis=0), logits)
        rest.append(-ops.convert_to_numpy(nll).reshape(-1, num_samples))
    return z, np.concatenate(rest) - ops.convert_to_numpy(log_normal(z, mean, log_var))


def log_likelihood(log_prob, z, rest):
    """Return the importance-weighted bound on log p(x) under any prior, from `log_weights`.

    Two priors judged on the same draws differ by less noise than either has.

    Args:
        log_prob: function from z, `(m, latent_dim)`, to log p(z), `(m,)`.
        z, rest: what `log_weights` returned.

    Returns:
        Nats per image, NumPy float64, shape `(n,)`.
    """
    flat, at_once = z.reshape(-1, z.shape[-1]), 1024
    parts = [log_prob(flat[row : row + at_once]) for row in range(0, len(flat), at_once)]
    log_w = np.concatenate(parts).reshape(rest.shape) + rest.astype(float)
    return logsumexp(log_w, axis=1) - np.log(rest.shape[1])
