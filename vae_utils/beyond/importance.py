"""The importance-weighted autoencoder: a VAE that learns from K samples of z for each image."""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
import math

import keras
from keras import ops

from vae_utils import losses, models
from vae_utils.checks import is_positive_integer, require


@keras.saving.register_keras_serializable("vae_utils")
class IWAE(models.VAE):
    """A VAE that climbs the bound with K samples, log 1/K Σ p(x, z_k) / q(z_k|x).

    Burda et al. (2015), equation 8. Its loss is the negative of it, averaged over the batch; for
    K = 1 it is the negative ELBO with the KL from the sample that was drawn. `fit` and `evaluate`
    log both parts of the negative ELBO beside it: the loss is below their sum by what the K
    samples gain.

    Args:
        encoder, decoder, likelihood, seed: as `models.VAE`.
        samples: K, how many z are drawn for each image.

    Raises:
        ValueError: as `models.VAE`, if `samples` is not a positive integer, or for another beta
            than 1, which would not be a bound.
    """

    def __init__(self, encoder, decoder, samples=5, **kwargs):
        valid = is_positive_integer(samples)
        require(valid, "samples must be a positive integer.", f"{samples=}")
        require(kwargs.get("beta", 1) == 1, "An IWAE has no beta: leave it 1.", f"{kwargs=}")
        super().__init__(encoder, decoder, **kwargs)
        self.samples = samples

    def bound(self, log_weights):
        """Return log 1/K Σ w_k for log w_k of shape `(batch, K)`: nats per image, `(batch,)`."""
        return ops.logsumexp(log_weights, axis=1) - math.log(self.samples)

    def log_weights(self, x, mean, log_var, training=False):
        """Draw K samples z_k of each image's posterior and weigh them.

        Args:
            x: images, shape `(batch, height, width, channels)`.
            mean, log_var: of the approximate posterior, each `(batch, latent_dim)`.
            training: whether the decoder is in training.

        Returns:
            `(log_weights, nll)`: log p(x, z_k) / q(z_k|x) and −log p(x|z_k), each `(batch, K)`.
        """
        x, mean, log_var = (ops.repeat(t, self.samples, axis=0) for t in (x, mean, log_var))
        z = self.sampling((mean, log_var))
        nll = self.reconstruction_term(x, self.decoder(z, training=training))
        noise = ops.square(z - mean) * ops.exp(-log_var)
        log_ratio = 0.5 * ops.sum(noise + log_var - ops.square(z), axis=-1)
        return tuple(ops.reshape(t, (-1, self.samples)) for t in (log_ratio - nll, nll))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Return the loss, averaged over the batch, and record the parts of the negative ELBO.

        The single z in `y_pred` is not used, and a compiled graph does not decode it.
        """
        alone = y is None and sample_weight is None
        require(alone, "An IWAE learns from images alone.", "targets or sample weights as well")
        # As in `VAE.call`: an image that is none gets NaN, and no weight learns from it.
        valid = ops.isfinite(y_pred["mean"][:, :1])
        mean, log_var = (ops.where(valid, y_pred[name], 0) for name in ("mean", "log_var"))
        x = ops.where(valid[:, :, None, None], ops.cast(x, "float32"), 0)
        log_weights, nll = self.log_weights(x, mean, log_var, training)
        nan = ops.where(valid[:, 0], 0.0, math.nan)
        self.reconstruction_tracker.update_state(ops.mean(nll, axis=1) + nan)
        self.kl_tracker.update_state(losses.gaussian_kl(mean, log_var) + nan)
        loss = ops.where(valid[:, 0], -self.bound(log_weights), math.nan)
        loss += sum(ops.sum(ops.cast(term, "float32")) for term in self.losses)
        return self.mean_over_batch(loss, loss)

    def get_config(self):
        return {**super().get_config(), "samples": self.samples}
