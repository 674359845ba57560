"""Diffusion as a density: a network learns to take away noise, at all levels of it."""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
import math
import time

import keras
import numpy as np
from keras import layers, ops

from vae_utils import training
from vae_utils.beyond.priors import log_normal
from vae_utils.checks import is_positive_integer, require

ENDS = 8.0, -5.0  # log SNR at t = 0, next to the data, and at t = 1, next to pure noise
WAVES = 8  # sines, and as many cosines, by which a network is told the level of noise
HIDDEN = 0.5  # share of the labels that are not shown in training


def alpha_sigma(log_snr):
    """Return α and σ of z = α x + σ ε with α² + σ² = 1 and log α²/σ² = `log_snr`."""
    return ops.sqrt(ops.sigmoid(log_snr)), ops.sqrt(ops.sigmoid(-log_snr))


def even(t):
    """Return the log SNR at t in [0, 1], of t's shape, evenly between the `ENDS`."""
    return ENDS[0] + (ENDS[1] - ENDS[0]) * t


def cosine(t):
    """Return the log SNR at t in [0, 1], of t's shape, for α = cos(πt/2), cut at the `ENDS`.

    Nichol & Dhariwal (2021), section 3.2, without their offset.
    """
    first, last = (math.atan(math.exp(-0.5 * end)) for end in ENDS)
    return -2 * ops.log(ops.tan(first + (last - first) * t))


def cost(velocity, x, log_snr, noise):
    """Return the bound on −log p(x) in nats, as one level of noise estimates it.

    −log N(x; 0, I) + ½ ∫ α² E[‖v̂ − v‖² − ‖v‖²] dλ, with λ = log SNR between the `ENDS`, and v̂ = 0
    beyond them: Kingma et al. (2021), section 5, with the error of x̂ written as that of v̂.

    Args:
        velocity: function of noisy data and their log SNR, returns v̂, of the data's shape.
        x, noise: data and noise, `(batch, dimensions)`.
        log_snr: the levels, `(batch,)`. If they are drawn evenly, the mean is the bound.

    Returns:
        Nats, `(batch,)`.
    """
    alpha, sigma = (part[:, None] for part in alpha_sigma(log_snr))
    v = alpha * noise - sigma * x
    error = ops.square(velocity(alpha * x + sigma * noise, log_snr) - v) - ops.square(v)
    weight = 0.5 * (ENDS[0] - ENDS[1]) * ops.square(alpha[:, 0])
    return weight * ops.sum(error, axis=-1) - log_normal(x)


def bound(velocity, x, levels=64, seed=0):
    """Return an upper bound on −log p(x) for each x: an estimate of it without bias.

    Args:
        velocity: as `cost` takes it.
        x: data, `(n, dimensions)`.
        levels: in how many equal parts of the log SNR one level is drawn, with its noise.
        seed: integer from which levels and noise follow.

    Returns:
        Nats, NumPy float64, `(n,)`.

    Raises:
        ValueError: if `levels` is not a positive integer, or unless x is a finite matrix.
    """
    require(is_positive_integer(levels), "levels must be a positive integer.", f"{levels=}")
    x = np.asarray(x, "float32")
    valid = x.ndim == 2 and np.isfinite(x).all()
    require(valid, "x must be finite numbers, (n, dimensions).", f"shape {x.shape}")
    rng, total = np.random.default_rng(seed), 0.0
    for level in range(levels):
        log_snr = even((level + rng.random(len(x))) / levels).astype("float32")
        found = cost(velocity, x, log_snr, rng.standard_normal(x.shape, "float32"))
        total += ops.convert_to_numpy(found).astype(float)
    return total / levels


def denoise(velocity, noise, steps=64, schedule=cosine):
    """Turn noise into data, step by step, from the last level of a schedule to its first.

    A step goes to α_s x̂ + σ_s ε̂, without fresh noise: Song, Meng & Ermon (2021), equation 12. The
    last step returns x̂.

    Args:
        velocity: as `cost` takes it.
        noise: draws from N(0, I), `(count, dimensions)`.
        steps: how often `velocity` is asked.
        schedule: where the levels lie, `even` or `cosine`.

    Returns:
        NumPy array, float32, of the noise's shape.

    Raises:
        ValueError: if `steps` is not a positive integer.
    """
    require(is_positive_integer(steps), "steps must be a positive integer.", f"{steps=}")
    z = np.asarray(noise, "float32")
    levels = ops.convert_to_numpy(schedule(np.linspace(1, 0, steps, dtype="float32")))
    alphas, sigmas = map(ops.convert_to_numpy, alpha_sigma(levels))
    for now in range(steps):
        v = ops.convert_to_numpy(velocity(z, np.repeat(levels[now], len(z))))
        x, eps = alphas[now] * z - sigmas[now] * v, sigmas[now] * z + alphas[now] * v
        if now + 1 == steps:
            return x.astype("float32")
        z = alphas[now + 1] * x + sigmas[now + 1] * eps


class Diffusion(keras.Model):
    """A density by diffusion: a network that says v = α ε − σ x of noisy data, at first v̂ = 0.

    From v̂ follow x̂ = α z − σ v̂ and ε̂ = σ z + α v̂ (Salimans & Ho 2022, section 4). With v̂ = 0
    the model is N(0, I): what it learns is how the data differ from that, as in the mixed scores
    of Vahdat et al. (2021).

    Called with data it returns the `cost` of each row at a level drawn for it. Compile it with
    `loss=lambda _, cost: cost`, and `fit` it to data, and to targets that nothing looks at.

    Args:
        dimensions: of the data, which should have about mean 0 and variance 1.
        labels: how many classes there are; 0 for data without. With labels it is called with
            `(x, label)`; a part of them is hidden in training. The label −1 stands for none.
        width, depth: units of each hidden layer, and how many layers.
        schedule: levels at which it trains, `even` or `cosine`. Only with `even` is the loss that
            `fit` logs the bound, in nats.
        seed: integer from which the noise of training follows, or None.

    Raises:
        ValueError: unless all sizes are positive integers, or for labels that are no count.
    """

    def __init__(
        self, dimensions, labels=0, *, width=128, depth=3, schedule=even, seed=None, **kwargs
    ):
        super().__init__(**kwargs)
        sizes = {"dimensions": dimensions, "width": width, "depth": depth}
        for name, value in sizes.items():
            wanted = f"{name} must be a positive integer."
            require(is_positive_integer(value), wanted, f"{name}={value!r}")
        valid = labels == 0 or is_positive_integer(labels)
        require(valid, "labels must be a number of classes, or 0.", f"{labels=}")
        self.dimensions, self.labels, self.schedule = dimensions, labels, schedule
        self.random = keras.random.SeedGenerator(seed)
        inputs = h = keras.Input((dimensions + 2 * WAVES + labels,))
        for _ in range(depth):
            h = layers.Dense(width, "silu", kernel_initializer="he_uniform")(h)
        self.network = keras.Model(inputs, layers.Dense(dimensions, kernel_initializer="zeros")(h))
        self.built = True

    def velocity(self, z, log_snr, label=None):
        """Return v̂, of z's shape.

        Args:
            z: noisy data, `(batch, dimensions)`.
            log_snr: their levels, `(batch,)`.
            label: classes, integers `(batch,)`; None where no label is known.
        """
        place = (log_snr - ENDS[1]) / (ENDS[0] - ENDS[1])
        angle = math.pi * place[:, None] * ops.arange(1, WAVES + 1, dtype="float32")
        parts = [z, ops.sin(angle), ops.cos(angle)]
        if self.labels:
            label = -ops.ones_like(log_snr) if label is None else label
            parts.append(ops.one_hot(ops.cast(label, "int32"), self.labels))
        return self.network(ops.concatenate(parts, axis=-1))

    def of(self, label, guidance=0.0):
        """Return the function that `bound` and `denoise` ask, for labels, guided towards them.

        Classifier-free guidance, (1 + w) v̂(z, label) − w v̂(z): Ho & Salimans (2022), equation 6.

        Args:
            label: classes, integers, one for all rows or one for each.
            guidance: w; 0 for the model itself.

        Raises:
            ValueError: for a model without labels, or labels that are none of its classes.
        """
        label = np.asarray(label)
        valid = np.issubdtype(label.dtype, np.integer)
        valid = valid and np.all((label >= 0) & (label < self.labels))
        require(valid, f"label must be integers from 0 to below {self.labels}.", f"{label}")

        def velocity(z, log_snr):
            known = self.velocity(z, log_snr, np.broadcast_to(label, (len(z),)))
            if not guidance:
                return known
            return (1 + guidance) * known - guidance * self.velocity(z, log_snr)

        return velocity

    def call(self, inputs, training=False):
        x, label = inputs if self.labels else (inputs, None)
        count = ops.shape(x)[0]
        noise = keras.random.normal(ops.shape(x), seed=self.random)
        if self.labels and training:
            hidden = keras.random.uniform((count,), seed=self.random) < HIDDEN
            label = ops.where(hidden, -1, ops.cast(label, "int32"))
        start = keras.random.uniform((), seed=self.random)
        t = (start + ops.arange(count, dtype="float32") / ops.cast(count, "float32")) % 1
        return cost(lambda *z: self.velocity(*z, label), x, self.schedule(t), noise)


def train(model, inputs, epochs, *, batch=250, peak=5e-3):
    """Compile a `Diffusion` with `training.warm_up_and_decay`, and fit it.

    Args:
        model: the `Diffusion`.
        inputs: data, `(n, dimensions)`, or with labels `(data, labels)`, all NumPy arrays.
        epochs: passes over the data.
        batch: rows for each gradient step.
        peak: the highest learning rate.

    Returns:
        The seconds that it took.
    """
    count = len(inputs[0] if model.labels else inputs)
    rate = training.warm_up_and_decay(peak, math.ceil(count / batch) * epochs)
    model.compile(
        keras.optimizers.Adam(rate),
        loss=lambda _, cost: cost,
        steps_per_execution=training.STEPS_PER_EXECUTION,
        jit_compile=False,  # to compile it takes longer than it saves
    )
    start = time.perf_counter()
    model.fit(inputs, np.zeros(count, "float32"), batch, epochs, verbose=0)
    return time.perf_counter() - start
