"""How good is a VAE? Numbers in nats per image, all with sampled z and a seed."""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
import numpy as np
from keras import ops
from scipy.special import logsumexp

from vae_utils import losses
from vae_utils.checks import is_positive_integer, require


def elbo_terms(vae, x, seed=0):
    """Return the two parts of the negative ELBO for each image, with one sampled z each.

    Args:
        vae: a `models.VAE`.
        x: images in [0, 1] (any finite pixels, if Gaussian), shape `(n, height, width, channels)`.
        seed: integer from which the sampled z follow.

    Returns:
        `(reconstruction, kl)`: distortion and rate in nats per image, NumPy, each `(n,)`.

    Raises:
        ValueError: for images of the wrong shape or with other pixels.
    """
    mean, log_var = vae.encode(x)
    noise = np.random.default_rng(seed)
    reconstruction = [
        _sample(vae, x[rows], mean[rows], log_var[rows], 1, noise)[0]
        for rows in _slices(len(x), vae.rows_at_once(vae.decoder))
    ]
    kl = ops.convert_to_numpy(losses.gaussian_kl(mean, log_var))
    return np.concatenate(reconstruction)[:, 0], kl


def elbo(vae, x, seed=0):
    """Return the evidence lower bound in nats per image, averaged over `x`: a float, mostly < 0.

    Args, errors: as `elbo_terms`.
    """
    reconstruction, kl = elbo_terms(vae, x, seed)
    return -float(np.mean(reconstruction + kl))


def log_likelihood(vae, x, num_samples=64, seed=0):
    """Return the importance-weighted lower bound on log p(x) for each image.

    log 1/K Σ p(x, z_k) / q(z_k|x) with z_k ~ q(z|x): Burda et al. (2015), equation 8. Its
    expectation rises with K and converges to log p(x); K = 1 is the ELBO.

    Args:
        vae, x: as `elbo_terms`.
        num_samples: K, how many z are drawn for each image.
        seed: integer from which they follow.

    Returns:
        Nats per image, NumPy float64, shape `(n,)`.

    Raises:
        ValueError: as `elbo_terms`, or if `num_samples` is not a positive integer.
    """
    valid = is_positive_integer(num_samples)
    require(valid, "num_samples must be a positive integer.", f"{num_samples=}")
    mean, log_var = vae.encode(x)
    noise = np.random.default_rng(seed)
    bounds = []
    at_once = vae.rows_at_once(vae.decoder)
    samples_at_once = min(num_samples, at_once)
    for rows in _slices(len(x), at_once // samples_at_once):
        log_weights = []
        for samples in _slices(num_samples, samples_at_once):
            count = samples.stop - samples.start
            nll, log_ratio = _sample(vae, x[rows], mean[rows], log_var[rows], count, noise)
            log_weights.append(log_ratio - nll)
        bounds.append(logsumexp(np.concatenate(log_weights, 1), axis=1) - np.log(num_samples))
    return np.concatenate(bounds).astype(np.float64)


def active_units(vae, x, threshold=0.01):
    """Return which latent dimensions carry information: Var_x[mean] > threshold.

    Burda et al. (2015), section 5.2.

    Returns:
        NumPy booleans, shape `(latent_dim,)`.
    """
    mean, _ = vae.encode(x)
    return mean.var(axis=0) > threshold


def _sample(vae, x, mean, log_var, count, noise):
    """Draw `count` z for each image: −log p(x|z) and log p(z) − log q(z|x), both (n, count)."""
    shape = (len(x), count, vae.latent_dim)
    eps = noise.standard_normal(shape, dtype=np.float32)
    mean, log_var = mean[:, np.newaxis], log_var[:, np.newaxis]
    z = mean + np.exp(0.5 * log_var) * eps
    log_ratio = 0.5 * np.sum(eps**2 - z**2 + log_var, axis=-1)  # their constants cancel
    logits = vae.decoder(z.reshape(-1, vae.latent_dim), training=False)
    images = ops.repeat(ops.convert_to_tensor(x, "float32"), count, axis=0)
    nll = ops.convert_to_numpy(vae.reconstruction_term(images, logits))
    return nll.reshape(shape[:2]), log_ratio


def _slices(total, size):
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]
