"""The two terms of the negative ELBO, in nats per image: summed over pixels or latent dimensions.

Nothing here averages over the batch, so that nothing hides which sums were taken.
"""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
import math

from keras import ops

from vae_utils.checks import can_be_equal, require


def gaussian_kl(mean, log_var):
    """KL(N(mean, e^log_var) ‖ N(0, I)) of a diagonal Gaussian from the standard normal prior.

    ½ Σ (μ² + σ² − 1 − log σ²), which is ≥ 0: Kingma & Welling (2013), appendix B, negated.

    Args:
        mean: float tensor, shape `(batch, latent_dim)`.
        log_var: log σ², of the same shape.

    Returns:
        Nats per image, summed over latent dimensions, shape `(batch,)`.

    Raises:
        ValueError: if the shapes differ.
    """
    _require_same_shape(mean=mean, log_var=log_var)
    return 0.5 * ops.sum(ops.square(mean) + ops.exp(log_var) - 1.0 - log_var, axis=-1)


def bernoulli_nll(x, logits):
    """−log p(x|z) of independent Bernoulli pixels, the cross-entropy of x and sigmoid(logits).

    Σ log(1 + e^logit) − x · logit: Kingma & Welling (2013), appendix C.1, written in logits. For
    pixels between 0 and 1 it is no likelihood, only the usual loss that has its form.

    Args:
        x: pixels in [0, 1], shape `(batch, ...)`.
        logits: log odds of ink, of the same shape.

    Returns:
        Nats per image, summed over pixels, shape `(batch,)`.

    Raises:
        ValueError: if the shapes differ.
    """
    _require_same_shape(x=x, logits=logits)
    return _sum_over_pixels(ops.softplus(logits) - x * logits)


def gaussian_nll(x, mean, log_var):
    """−log p(x|z) of independent Gaussian pixels: Kingma & Welling (2013), appendix C.2.

    Args:
        x: pixels, shape `(batch, ...)`.
        mean: the decoder's mean image, of the same shape.
        log_var: log σ² of the pixel noise, a scalar or of the same shape.

    Returns:
        Nats per image, summed over pixels, shape `(batch,)`. It is a density and may be negative.

    Raises:
        ValueError: if the shapes differ.
    """
    _require_same_shape(x=x, mean=mean)
    if ops.ndim(log_var):
        _require_same_shape(x=x, log_var=log_var)
    weighted_error = ops.multiply(ops.square(x - mean), ops.exp(-log_var))
    return 0.5 * _sum_over_pixels(math.log(2 * math.pi) + log_var + weighted_error)


def _sum_over_pixels(values):
    return ops.sum(values, axis=tuple(range(1, len(values.shape))))


def _require_same_shape(**tensors):
    """Refuse what would broadcast: a (batch, 28, 28) and a (batch,) tensor do, into nonsense."""
    (first, a), (second, b) = ((name, tuple(tensor.shape)) for name, tensor in tensors.items())
    received = f"{first} of shape {a}, {second} of shape {b}"
    require(can_be_equal(a, b), f"{first} and {second} must have the same shape.", received)
