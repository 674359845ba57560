"""A trained VAE judged in one call: yardsticks, curves, pictures, and warnings in words."""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
import textwrap
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from scipy.special import entr, xlogy

from vae_utils import data, evaluation, models
from vae_utils.checks import require
from vae_utils.yours.folder import INKS

MOST = 5000  # images from which a yardstick is computed
FEW = 100  # held-out images, on which little can be said
SHOWN = 8
ROUNDING = 1 / 12 / 255**2  # the variance of rounding to whole levels
SMALL = 0.2  # share of the way from the mean image to the grey floor
OWN = "a likelihood of its own"
WIDTH = 88


@dataclass(frozen=True)
class Report:
    """What `judge` returns; `print` it for the text.

    Attributes:
        figure: a Matplotlib `Figure`, which has the text as well.
        text: all numbers and warnings in words.
        nats: the VAE's negative ELBO on the held-out images, nats per image.
        error: its standard error over these images.
        yardsticks: dictionary from names to nats per held-out image; the grey floor among them is
            what cannot be beaten, all others are to be.
        active: for each latent dimension, whether it carries information, NumPy booleans.
        warnings: list of sentences, each with what to try.
    """

    figure: plt.Figure
    text: str
    nats: float
    error: float
    yardsticks: dict
    active: np.ndarray
    warnings: list

    def __str__(self):
        return self.text


def judge(vae, train, validation, history=None, *, yardsticks=None, ink="light", seed=0):
    """Judge a trained VAE on held-out images.

    Args:
        vae: a `models.VAE`.
        train, validation: images as `training.train` takes them, an array or a `tf.data.Dataset`
            of batches; of more than 5,000 a random part, of a data set the first.
        history: what `training.train` returned, for the curves; or None.
        yardsticks: further ones, a dictionary from names to nats per held-out image. A VAE with a
            `reconstruction_term` of its own has no others.
        ink: as `folder.read` got it; "dark" draws images turned round again, as they are on paper.
        seed: integer from which the sampled z follow.

    Returns:
        A `Report`.

    Raises:
        ValueError: for images that the model cannot take, for none, or another `ink`.
    """
    require(ink in INKS, f"ink must be one of {INKS}.", f"{ink=}")
    random = np.random.default_rng(seed)
    x_train, x = (_pixels(vae, images, random) for images in (train, validation))
    reconstruction, kl = evaluation.elbo_terms(vae, x, seed)
    per_image = reconstruction + kl
    nats, error = per_image.mean(), per_image.std(ddof=1) / len(x) ** 0.5 if len(x) > 1 else np.inf
    kind = _kind(vae)
    compared = dict(yardsticks or {})
    if kind == "bernoulli":
        compared = bernoulli_yardsticks(x_train, x) | compared
    elif kind == "gaussian":
        compared = gaussian_yardsticks(x_train, x, vae.latent_dim) | compared
    active = evaluation.active_units(vae, x)
    found = _Findings(kind, x_train, x, nats, error, kl.mean(), compared, active)
    warnings = [*found.of_images(), *found.of_curves(history), *found.of_model()]
    head = [
        f"{vae.name}, {kind}, {vae.latent_dim} latent dimensions, {vae.count_params():,} weights",
        f"{len(x):,} held-out images of {' × '.join(map(str, vae.image_shape))}",
        f"negative ELBO {nats:.1f} ± {error:.1f} nats per image{_bits(kind, nats, x)}",
        f"  = {reconstruction.mean():.1f} reconstruction + {kl.mean():.1f} KL",
        *(f"{name}: {value:.1f}" for name, value in compared.items()),
        f"{active.sum()} of {len(active)} latent dimensions in use",
    ]
    advice = [f"• {warning}" for warning in warnings] or ["Nothing stands out."]
    figure = _drawn(vae, x, history, nats, compared, head, advice, ink, random)
    text = "\n".join([*head, *(_wrapped(line) for line in advice)])
    return Report(figure, text, float(nats), float(error), compared, active, warnings)


def bernoulli_yardsticks(x_train, x):
    """Return what an image costs without a network under the Bernoulli likelihood.

    Args:
        x_train, x: training and held-out pixels in [0, 1], shapes `(n, height, width, channels)`.

    Returns:
        A dictionary of nats per held-out image: "even odds" for every pixel; the "mean image" of
        the training images, smoothed by Laplace's rule; the "grey floor", the entropy of the
        pixels, which no model gets below.
    """
    p = (len(x_train) * x_train.mean(axis=0) + 1) / (len(x_train) + 2)
    mean = x.mean(axis=0, dtype="float64")  # the loss is linear in x
    return {
        "even odds": p.size * np.log(2),
        "mean image": -np.sum(xlogy(mean, p) + xlogy(1 - mean, 1 - p)),
        "grey floor": np.sum(entr(x) + entr(1 - x)) / len(x),
    }


def gaussian_yardsticks(x_train, x, latent_dim):
    """Return what an image costs under two Gaussians fitted in closed form.

    Args:
        x_train, x: training and held-out pixels, shapes `(n, height, width, channels)`.
        latent_dim: number of principal components.

    Returns:
        A dictionary of nats per held-out image: "independent pixels", each with its own mean and
        variance; "PCA, k dimensions", probabilistic PCA (Tipping and Bishop 1999), the best that
        a linear VAE of as many latent dimensions can do. No variance is taken below that of the
        rounding to 256 levels.
    """
    flat, held_out = (images.reshape(len(images), -1).astype("float64") for images in (x_train, x))
    mean, pixels = flat.mean(axis=0), flat.shape[1]
    centred, left = flat - mean, held_out - mean
    variance = np.maximum((centred**2).mean(axis=0), ROUNDING)
    independent = np.log(2 * np.pi * variance) + left**2 / variance
    compared = {"independent pixels": independent.sum() / 2 / len(x)}
    if latent_dim >= min(pixels, len(flat)):
        return compared
    _, singular, axes = np.linalg.svd(np.linalg.qr(centred, mode="r"), full_matrices=False)
    spread = singular**2 / len(flat)
    noise = max(spread[latent_dim:].sum() / (pixels - latent_dim), ROUNDING)
    spread, scores = np.maximum(spread[:latent_dim], noise), left @ axes[:latent_dim].T
    rest = (left**2).sum(axis=1) - (scores**2).sum(axis=1)
    logs = np.log(spread).sum() + (pixels - latent_dim) * np.log(noise)
    cost = pixels * np.log(2 * np.pi) + logs + (scores**2 / spread).sum(axis=1) + rest / noise
    return compared | {f"PCA, {latent_dim} dimensions": cost.mean() / 2}


@dataclass
class _Findings:
    """Warnings, each with what to try."""

    kind: str
    x_train: np.ndarray
    x: np.ndarray
    nats: float
    error: float
    kl: float
    compared: dict
    active: np.ndarray

    def of_images(self):
        seen = {image.tobytes() for image in self.x_train}
        if twice := sum(image.tobytes() in seen for image in self.x):
            yield (
                f"{twice} of {len(self.x)} held-out images are training images as well: "
                "remove copies before you split."
            )
        if len(self.x) < FEW:
            few = f"Only {len(self.x)} held-out images"
            yield f"{few}: differences of less than {2 * self.error:.0f} nats say little."
        if np.ptp(self.x_train, axis=0).max() == 0:
            yield "All training images are equal: there is nothing to learn."
        if self.kind == "gaussian":
            still = (self.x_train.var(axis=0) < ROUNDING).mean()
            if still > 0.02:
                yield (
                    f"{still:.0%} of the pixels never change: a density has no limit there, and "
                    "decides the comparison. Crop them away."
                )
        if self.kind != "bernoulli":
            return
        if self.x.max() < 0.5:
            yield (
                f"The brightest pixel is {self.x.max():.2f} of 1: were 12-bit images saved with "
                "16 bits? Divide by their largest level."
            )
        if self.x.mean() > 0.5:
            yield 'More light than dark: if it is dark ink on paper, read it with ink="dark".'
        grey = ((self.x > 0.1) & (self.x < 0.9)).mean()
        if grey > 0.4:
            yield (
                f"{grey:.0%} of the pixels are grey, neither ink nor paper: a Bernoulli loss "
                'says little about them. Try likelihood="gaussian".'
            )

    def of_curves(self, history):
        curve = np.array(history.history.get("val_loss", ())) if history else np.array(())
        if len(curve) < 3:
            return
        best, fall = int(curve.argmin()), curve[0] - curve.min()
        if curve[-1] - curve[best] > max(0.05 * fall, self.error):
            yield (
                f"The validation loss has risen since epoch {best + 1} of {len(curve)}: "
                "overfitting. More images, or stop there (EarlyStopping)."
            )
        if fall > 0 and curve[-1 - max(len(curve) // 4, 1)] - curve[-1] > 0.05 * fall:
            yield "The validation loss still falls: more epochs."

    def of_model(self):
        count, total = self.active.sum(), len(self.active)
        if not count:
            yield (
                "Posterior collapse: no latent dimension is in use. More steps, a warm-up of "
                "beta, or a smaller beta."
            )
        elif count < total:
            idle = f"{total - count} of {total} latent dimensions are idle"
            yield f"{idle}: fewer would do, or more steps."
        elif total > 2 and self.kl / total > 2:
            yield "All latent dimensions are busy: more of them may help."
        mean, floor = self.compared.get("mean image"), self.compared.get("grey floor")
        if mean and self.nats < mean < self.nats + SMALL * (mean - floor):
            yield "Hardly better than the mean image: more steps first, then a larger network."
        for name, value in self.compared.items():
            if name == "grey floor":
                if self.nats < value:
                    yield "Below the grey floor, which cannot be: are the pixels in [0, 1]?"
            elif self.nats > value:
                yield f"No better than “{name}”: more steps first, then a larger network."


def _kind(vae):
    changed = type(vae).reconstruction_term is not models.VAE.reconstruction_term
    return OWN if changed else vae.likelihood


def _bits(kind, nats, x):
    """Say how many bits the levels of a [0, 1] image take, where the likelihood can tell."""
    if kind == "bernoulli" or x.min() < 0 or x.max() > 1:
        return ""
    width = 1 / 255 if kind == "gaussian" else 1  # a density, or taken for a probability
    return f", {bits_per_dimension(nats, x[0].size, width):.2f} bits per dimension"


def bits_per_dimension(nats, dimensions, width=1 / 255):
    """Return nats per image as bits per dimension: per pixel, and in colour per channel.

    Args:
        nats: −log p(x), or its bound; a number or an array.
        dimensions: height times width times channels.
        width: distance of two levels, by which a density of [0, 1] pixels becomes a probability;
            1 for a likelihood that is one already.

    Returns:
        Bits per dimension; 8 is what raw bytes take.
    """
    return nats / (dimensions * np.log(2)) - np.log2(width)


def _pixels(vae, images, random):
    """Return up to `MOST` images as float32 pixels."""
    if isinstance(images, tf.data.Dataset):
        batches = list(images.unbatch().take(MOST).batch(MOST).as_numpy_iterator())
        require(batches, "There must be images to judge by.", "an empty data set")
        images = batches[0]
    vae.check_shape(np.shape(images))
    if len(images) > MOST:
        images = images[np.sort(random.choice(len(images), MOST, replace=False))]
    scale = data.full_scale(images, vae.likelihood)
    return np.divide(images, scale, dtype=np.float32)


def _drawn(vae, x, history, nats, compared, head, advice, ink, random):
    """Draw everything as one figure."""
    figure = plt.figure(figsize=(8, 8), layout="constrained")
    top, pictures, words = figure.subfigures(3, 1, height_ratios=(3, 3, 2))
    left, right = top.subplots(1, 2)
    _ladder(left, nats, compared)
    _curves(right, history)
    mean, _ = vae.encode(x[:SHOWN])
    z = random.standard_normal((SHOWN, vae.latent_dim))
    rows = {
        "held out": x[:SHOWN],
        "reconstructed": vae.decode_mean(mean),
        "sampled": vae.decode_mean(z),
    }
    low, high = (x.min(), x.max()) if _kind(vae) == "gaussian" else (0, 1)
    axes = pictures.subplots(len(rows), SHOWN, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for line, (name, images) in zip(axes, rows.items()):
        line[0].text(-0.15, 0.5, name, ha="right", va="center", transform=line[0].transAxes)
        for ax, image in zip(line, images):
            shown = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
            shown = 1 - shown if ink == "dark" else shown
            ax.imshow(np.squeeze(shown), cmap="gray", vmin=0, vmax=1)
    text = "\n".join([*head[:4], *head[-1:], "", *(_wrapped(line) for line in advice)])
    words.text(0.02, 0.98, text, va="top", fontsize=9, linespacing=1.35)
    plt.close(figure)
    return figure


def _ladder(ax, nats, compared):
    rungs = sorted({**compared, "this VAE": nats}.items(), key=lambda rung: -rung[1])
    for row, (name, value) in enumerate(rungs):
        ax.plot(value, row, "C0o" if name == "this VAE" else "kD")
        ax.annotate(
            f"{value:.0f}".replace("-", "−"),
            (value, row),
            (0, 6),
            textcoords="offset points",
            ha="center",
        )
    ax.set_yticks(range(len(rungs)), [name for name, _ in rungs])
    ax.invert_yaxis()
    ax.margins(0.25)
    ax.set(title="less is better", xlabel="nats per held-out image")


def _curves(ax, history):
    ax.set(title="the training", xlabel="epoch", ylabel="negative ELBO, nats per image")
    for key, name, style in (("loss", "training", "o--"), ("val_loss", "validation", "s-")):
        if history and key in history.history:
            values = np.array(history.history[key], "float64")
            if key == "loss" and len(values) > 2:
                values[0] = np.nan  # mean over an epoch in which all was new, far above the rest
            ax.plot(range(1, len(values) + 1), values, style, ms=3, label=name)
    if ax.lines:
        ax.legend()
        ax.xaxis.get_major_locator().set_params(integer=True)
    else:
        ax.text(0.5, 0.5, "no history was given", ha="center", transform=ax.transAxes)


def _wrapped(line):
    return textwrap.fill(line, WIDTH, subsequent_indent="  ")
