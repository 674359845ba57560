"""Several layers of latents: a VAE with a VAE for its prior, inferred bottom-up or by a ladder."""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
from collections import namedtuple
from itertools import pairwise

import keras
import numpy as np
from keras import layers, ops
from scipy.special import logsumexp

from vae_utils import data, models
from vae_utils.beyond import scale
from vae_utils.beyond.priors import log_normal
from vae_utils.checks import is_positive_integer, require

LATENT_DIMS = (32, 8)  # from the image upwards
WIDTH, STEPS = 128, 1_000
LARGEST_LOG_VAR = 5.0
STANDARD_NORMAL = (0.0, 0.0)

Layer = namedtuple("Layer", "z posterior prior")  # both of them (mean, log_var)


def product(first, second):
    """Return the Gaussian that the product of two is proportional to, each `(mean, log_var)`.

    Precisions add, and weigh the means: Sønderby et al. (2016), section 2.
    """
    (m1, v1), (m2, v2) = first, second
    log_var = -ops.logaddexp(-v1, -v2)
    return m1 * ops.exp(log_var - v1) + m2 * ops.exp(log_var - v2), log_var


def kl_by_unit(posterior, prior):
    """Return KL(posterior ‖ prior) in nats for each dimension; both are `(mean, log_var)`."""
    (m1, v1), (m2, v2) = posterior, prior
    return 0.5 * (ops.exp(v1 - v2) + ops.square(m1 - m2) * ops.exp(-v2) - 1 - v1 + v2)


def log_ratio_by_unit(layer):
    """Return log q(z) − log p(z) of a `Layer` in nats for each dimension, at the z drawn."""
    off_q, off_p = (ops.square(layer.z - m) * ops.exp(-v) + v for m, v in layer[1:])
    return 0.5 * (off_p - off_q)


@keras.saving.register_keras_serializable("vae_utils")
class HierarchicalVAE(models.VAE):
    """A VAE with L layers of latents, p(z_L) … p(z_1|z_2) p(x|z_1); one layer is the plain VAE.

    Bottom-up inference is q(z_1|x), then q(z_2|z_1) from the z_1 drawn (Burda et al. 2015). In a
    ladder the same networks send Gaussian messages up without a draw; on the way down each is
    multiplied with its layer's prior, p(z_1|z_2) for the z_2 drawn (Sønderby et al. 2016, who
    leave out the product in the top layer).

    `fit` logs the rate of each layer as `kl_1`, …, their sum as `kl`; `predict` returns `logits`
    and `kl`, `(n, L)`. `evaluation` is for one layer: use `log_likelihood` of this module.

    Args:
        encoder, decoder, kwargs: as `models.VAE`, for z_1 and the image.
        ups: L − 1 networks to `[mean, log_var]` of z_2, …, z_L; bottom-up from the z below, in a
            ladder from mean and log-variance of the message below, side by side.
        downs: L − 1 networks from z_2, …, z_L to `[mean, log_var]` of the z below.
        ladder: whether inference is that of a ladder, or bottom-up.
        annealing: gradient steps in which the weight of the KL rises from 0 to 1.
        free_nats: how much of a layer's rate, averaged over the batch, costs nothing in training.

    Raises:
        ValueError: as `models.VAE`, or unless each layer above the first has an up and a down.
    """

    def __init__(
        self, encoder, decoder, ups, downs, ladder=True, annealing=0, free_nats=0.0, **kwargs
    ):
        wanted = "Each layer above the first needs a network up and one down."
        require(len(ups) == len(downs), wanted, f"{len(ups)} up, {len(downs)} down")
        self.ups, self.downs = list(ups), list(downs)
        names = [f"kl_{number + 1}" for number in range(len(ups) + 1)]
        self.layer_trackers = [keras.metrics.Mean(name=name) for name in names]
        super().__init__(encoder, decoder, **kwargs)
        self.ladder, self.annealing, self.free_nats = ladder, annealing, free_nats

    def infer(self, message, draw=None):
        """Draw z of all layers from the approximate posterior.

        Args:
            message: what the encoder says of the images, `[mean, log_var]`.
            draw: function of `(mean, log_var)`, returns a z; None for the model's own noise.

        Returns:
            A list of `Layer`s from z_1 upwards, each tensor `(batch, dimensions of the layer)`.
        """
        return (self._ladder if self.ladder else self._bottom_up)(message, draw or self.sampling)

    def _bottom_up(self, message, draw):
        posteriors, zs = [message], [draw(message)]
        for up in self.ups:
            posteriors.append(up(zs[-1]))
            zs.append(draw(posteriors[-1]))
        priors = [down(z) for down, z in zip(self.downs, zs[1:])]
        return [Layer(*each) for each in zip(zs, posteriors, [*priors, STANDARD_NORMAL])]

    def _ladder(self, message, draw):
        messages = [message]
        for up in self.ups:
            messages.append(up(ops.concatenate(messages[-1], axis=-1)))
        found, prior = [], STANDARD_NORMAL
        for message, down in zip(messages[::-1], [*self.downs[::-1], None]):
            posterior = product(message, prior)
            found.append(Layer(draw(posterior), posterior, prior))
            prior = down(found[-1].z) if down else None
        return found[::-1]

    def rates(self, found):
        """Return the KL term of each layer by unit, what `infer` found: a list of `(batch, dims)`.

        Closed where the prior was known before z was drawn: in a ladder, and in the top layer.
        Bottom-up, the prior of a layer depends on its own z, and only the log ratio is unbiased.
        """
        closed = [self.ladder] * len(self.ups) + [True]
        return [
            kl_by_unit(layer.posterior, layer.prior) if known else log_ratio_by_unit(layer)
            for layer, known in zip(found, closed)
        ]

    def call(self, x, training=False):
        self.check_shape(x.shape)
        x = ops.cast(x, self.compute_dtype)
        valid = ops.all(data.are_pixels(x, self.likelihood), axis=(1, 2, 3), keepdims=True)
        found = self.infer(self.encoder(ops.where(valid, x, 0), training=training))
        kl = ops.stack([ops.sum(rate, axis=-1) for rate in self.rates(found)], axis=-1)
        logits = self.decoder(found[0].z, training=training)
        return {"logits": ops.where(valid, logits, np.nan), "kl": kl}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Return the negative ELBO over the batch; in training annealed, with free nats."""
        alone = y is None and sample_weight is None
        require(alone, "A VAE learns from images alone.", "targets or sample weights as well")
        nll = self.reconstruction_term(ops.cast(x, "float32"), y_pred["logits"])
        kl = ops.sum(y_pred["kl"], axis=1)
        self.reconstruction_tracker.update_state(nll)
        self.kl_tracker.update_state(kl)
        for number, tracker in enumerate(self.layer_trackers):
            tracker.update_state(y_pred["kl"][:, number])
        if training:
            kl = ops.sum(ops.maximum(ops.mean(y_pred["kl"], axis=0), self.free_nats))
            if self.annealing:
                step = ops.cast(self.optimizer.iterations + 1, "float32")
                kl *= ops.minimum(1.0, step / self.annealing)
        return self.mean_over_batch(nll, nll + self.beta * kl)

    def to_noise(self, x, seed=0):
        """Return (z − mean) / σ of each layer's prior, z ~ q: a list of `(n, dimensions)`."""
        found = self.infer(self.encode(x), models.Sampling(seed))
        noise = [(z - mean) * ops.exp(-0.5 * log_var) for z, _, (mean, log_var) in found]
        return [ops.convert_to_numpy(part) for part in noise]

    def from_noise(self, noise):
        """Return the mean images, pixels in [0, 1], of a list such as `to_noise` returns."""
        z = np.asarray(noise[-1], "float32")
        for down, part in zip(self.downs[::-1], noise[-2::-1]):
            mean, log_var = down(z)
            z = mean + ops.exp(0.5 * log_var) * np.asarray(part, "float32")
        return self.decode_mean(ops.convert_to_numpy(z))

    def sample(self, count, seed, keep=()):
        """Draw images from the model, with the noise of some layers kept.

        Args:
            count, seed: how many, and the integer from which the noise follows.
            keep: dictionary from a layer's number, 1 at the bottom, to its noise, which broadcasts
                to `(count, dimensions)`.

        Returns:
            Mean images, shape `(count, height, width, channels)`.
        """
        rng = np.random.default_rng(seed)
        sizes = [self.latent_dim, *(down.input_shape[-1] for down in self.downs)]
        noise = [rng.standard_normal((count, size)) for size in sizes]
        for number, kept in dict(keep).items():
            noise[number - 1] = np.broadcast_to(kept, noise[number - 1].shape)
        return self.from_noise(noise)

    def get_config(self):
        own = {name: getattr(self, name) for name in ("ladder", "annealing", "free_nats")}
        own |= {"ups": list(self.ups), "downs": list(self.downs)}
        return {**super().get_config(), **keras.saving.serialize_keras_object(own)}


def log_likelihood(vae, x, num_samples=64, seed=0):
    """Return the importance-weighted bound on log p(x), with one draw of all layers a sample.

    Args, returns, errors: as `evaluation.log_likelihood`, for a `HierarchicalVAE`.
    """
    valid = is_positive_integer(num_samples)
    require(valid, "num_samples must be a positive integer.", f"{num_samples=}")
    draw, message, bounds = models.Sampling(seed), vae.encode(x), []
    at_once = max(vae.rows_at_once(vae.decoder) // num_samples, 1)
    for start in range(0, len(x), at_once):
        rows = slice(start, start + at_once)
        *parts, images = (np.repeat(t[rows], num_samples, axis=0) for t in (*message, x))
        found = vae.infer(parts, draw)
        log_w = -vae.reconstruction_term(images, vae.decoder(found[0].z, training=False))
        for z, posterior, prior in found:
            log_w += log_normal(z, *prior) - log_normal(z, *posterior)
        log_w = ops.convert_to_numpy(log_w).reshape(-1, num_samples).astype(float)
        bounds.append(logsumexp(log_w, axis=1) - np.log(num_samples))
    return np.concatenate(bounds)


def build(latent_dims=LATENT_DIMS, ladder=True, *, width=WIDTH, seed=None, **kwargs):
    """Build an untrained dense `HierarchicalVAE` for 28 × 28 images.

    Args:
        latent_dims: dimensions of z_1, …, z_L.
        ladder, seed, kwargs: as `HierarchicalVAE`.
        width: units of each hidden layer, two next to the image, one between layers of latents.
    """
    valid = all(map(is_positive_integer, latent_dims))
    require(valid, "latent_dims must be positive integers.", f"{latent_dims=}")
    images, z = keras.Input((28, 28, 1)), keras.Input((latent_dims[0],))
    encoder = keras.Model(images, _heads(layers.Flatten()(images), width, latent_dims[0], 2))
    logits = layers.Dense(784)(_hidden(z, width, 2))
    decoder = keras.Model(z, layers.Reshape((28, 28, 1))(logits))
    ups = [_gaussian((1 + ladder) * low, width, high) for low, high in pairwise(latent_dims)]
    downs = [_gaussian(high, width, low) for low, high in pairwise(latent_dims)]
    return HierarchicalVAE(encoder, decoder, ups, downs, ladder, seed=seed, **kwargs)


def _hidden(h, width, count):
    for _ in range(count):
        h = layers.Dense(width, "relu", kernel_initializer="he_uniform")(h)
    return h


def _heads(inputs, width, outputs, count):
    """[mean, log_var]; the latter starts at 0 and stays bounded, as others divide by it."""
    h = _hidden(inputs, width, count)
    log_var = layers.Dense(outputs, kernel_initializer="zeros")(h)
    bounded = LARGEST_LOG_VAR * ops.tanh(log_var / LARGEST_LOG_VAR)
    return [layers.Dense(outputs)(h), bounded]


def _gaussian(inputs, width, outputs):
    z = keras.Input((inputs,))
    return keras.Model(z, _heads(z, width, outputs, 1))


def load_or_train(digits, *arguments, steps=STEPS, seed=0, **kwargs):
    """Return a hierarchy, its KL annealed in the first half: cached, or trained now and cached.

    Args:
        digits, seed: as `scale.load_or_train`.
        arguments, kwargs: as `build`.
        steps: of gradient, with 200 images each.

    Returns:
        `(vae, seconds)`: a trained `HierarchicalVAE`, and how long its training took.
    """

    def start():
        return build(*arguments, seed=seed, annealing=steps // 2, **kwargs)

    settings = (*arguments, *sorted(kwargs.items()))
    return scale.train_for(steps, digits, start, __file__, settings, seed)
