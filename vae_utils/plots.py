"""The figures that more than one chapter draws; each function returns a `Figure`, shows nothing."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from scipy.stats import norm

from vae_utils.checks import require

# Paul Tol's "muted" scheme and black: ten colours that colour-blind readers can tell apart.
DIGIT_COLORS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933",
    "#DDCC77", "#CC6677", "#882255", "#AA4499", "#000000",
)  # fmt: skip
INK = "gray_r"
NAME_INCHES = 0.25  # from one digit's name to the next
ROW_NAME_INCHES = 1.3
HALO = [withStroke(linewidth=3, foreground="white")]  # around black text, on any colour


def image_grid(images, columns=10, scale=0.8):
    """Draw images side by side, dark ink on white paper.

    Args:
        images: pixels in [0, 1], shape `(n, height, width)` or `(n, height, width, 1)`.
        columns: images per row.
        scale: width of an image in inches.

    Returns:
        A Matplotlib `Figure`.
    """
    rows = -(-len(images) // columns)
    size = (columns * scale, rows * scale)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image in zip(axes.flat, images):
        ax.imshow(np.squeeze(image), cmap=INK, vmin=0, vmax=1)
    return _finished(figure)


def reconstructions(vae, x):
    """Draw images above their reconstructions, the mean of p(x|z) at z = the posterior's mean.

    Args:
        vae: a `models.VAE`.
        x: images in [0, 1], shape `(n, height, width, 1)`.

    Returns:
        A Matplotlib `Figure` of two rows.
    """
    mean, _ = vae.encode(x)
    figure = image_grid(np.concatenate([x, vae.decode_mean(mean)]), columns=len(x))
    width = figure.get_figwidth() + ROW_NAME_INCHES
    figure.set_figwidth(width)
    figure.subplots_adjust(left=ROW_NAME_INCHES / width)
    for ax, name in zip(figure.axes[:: len(x)], ("image", "mean of p(x|z)")):
        ax.text(-0.15, 0.5, name, ha="right", va="center", transform=ax.transAxes)
    return figure


def latent_scatter(z, labels=None, ax=None):
    """Draw points of a latent plane, coloured by label, each label's name at its median.

    Names that would cover each other stand beside it. Digits have the colours of `DIGIT_COLORS`,
    other labels those in turn, more than ten labels a colour map's.

    Args:
        z: points, shape `(n, 2)`.
        labels: one for each point, shape `(n,)`: integers, strings, booleans; or None.
        ax: axes to draw on; a new figure if None.

    Returns:
        The Matplotlib `Figure`.

    Raises:
        ValueError: if the points are not in a plane, or the labels not one for each.
    """
    z = np.asarray(z)
    in_plane = z.ndim == 2 and z.shape[1] == 2
    require(in_plane, "z must have the shape (n, 2) to be drawn in a plane.", z.shape)
    if ax is None:
        _, ax = plt.subplots(figsize=(6.5, 5.5))
    ax.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    points = {"s": 4, "alpha": 0.5, "lw": 0, "rasterized": True}
    if labels is None:
        ax.scatter(*z.T, **points)
        return _finished(ax.figure)
    labels = np.asarray(labels)
    wanted = f"labels must be one for each of the {len(z)} points, one-hot rows by argmax(axis=1)."
    require(labels.shape == z.shape[:1], wanted, f"shape {labels.shape}")
    names = np.unique(labels)
    medians = np.array([np.median(z[labels == name], axis=0) for name in names])
    side = min(ax.get_window_extent().size) / ax.figure.dpi
    room = NAME_INCHES / side * np.ptp(z, axis=0).max()
    for name, color, place in zip(names, _colors(names), _apart(medians, room)):
        ax.scatter(*z[labels == name].T, **points, color=color, label=str(name))
        ax.text(*place, str(name), ha="center", va="center", weight="bold", path_effects=HALO)
    style = {"markerscale": 4, "loc": "center left", "bbox_to_anchor": (1, 0.5)}
    title = "digit" if _are_digits(names) else "label"
    legend = ax.legend(title=title, ncols=-(-len(names) // 20), **style)
    for handle in legend.legend_handles:
        handle.set_alpha(1)
    return _finished(ax.figure)


def _colors(names):
    """Return a colour for each name, a digit's own if all are digits."""
    if _are_digits(names):
        return [DIGIT_COLORS[digit] for digit in names]
    if len(names) <= len(DIGIT_COLORS):
        return DIGIT_COLORS
    return plt.get_cmap("turbo")(np.linspace(0, 1, len(names)))


def _are_digits(names):
    return names.dtype.kind in "iu" and bool(np.isin(names, range(10)).all())


def _apart(places, least):
    """Move points that are nearer to each other than `least` away from each other."""
    for _ in range(50):
        gaps = places[:, np.newaxis] - places
        near = np.linalg.norm(gaps, axis=2, keepdims=True) < least
        places = places + 0.1 * np.sum(gaps * near, axis=1)
    return places


def posterior_ellipses(ax, mean, log_var, deviations=2.0, **style):
    """Add the ellipse of q(z|x) within `deviations` standard deviations for each image.

    Args:
        ax: axes of a latent plane.
        mean, log_var: as `models.VAE.encode` returns them, shape `(n, 2)`.
        deviations: half axes in standard deviations.
        **style: passed to Matplotlib's `Ellipse`.
    """
    for centre, sigma in zip(mean, np.exp(0.5 * np.asarray(log_var))):
        ax.add_patch(Ellipse(centre, *(2 * deviations * sigma), **{"fill": False, **style}))


def prior_quantiles(n):
    """Return n points on a line that cut N(0, 1) into pieces of equal probability, ascending."""
    return norm.ppf((np.arange(n) + 0.5) / n)


def decoded_plane(vae, n):
    """Return the decoded mean images at the prior's quantiles side by side, z₂ upwards.

    Equal steps in probability, not in z: each image stands for the same share of prior samples.

    Args:
        vae: a `models.VAE` with two latent dimensions.
        n: images per side.

    Returns:
        Pixels, shape `(n * height, n * width)`, or `(n * height, n * width, channels)` in colour.
    """
    ticks = prior_quantiles(n)
    z = np.stack(np.meshgrid(ticks, ticks[::-1]), axis=-1).reshape(-1, 2)
    images = vae.decode_mean(z)
    rows = np.concatenate(images.reshape(n, n, *images.shape[1:]), axis=1)
    return np.concatenate(rows, axis=1).squeeze()


def manifold(vae, n=15):
    """Draw the plane that `decoded_plane` returns, with its axes.

    Args:
        vae: a `models.VAE` with two latent dimensions.
        n: images per side.

    Returns:
        A Matplotlib `Figure`.

    Raises:
        ValueError: if the model has not two latent dimensions.
    """
    wanted = "A manifold is drawn for 2 latent dimensions."
    require(vae.latent_dim == 2, wanted, f"latent_dim={vae.latent_dim}")
    ticks, (height, width, _) = prior_quantiles(n), vae.image_shape
    figure, ax = plt.subplots(figsize=(6.5, 6.5))
    ax.imshow(decoded_plane(vae, n), cmap=INK, vmin=0, vmax=1)
    shown = np.unique(np.linspace(0, n - 1, min(n, 7)).round().astype(int))
    names = [f"{ticks[i]:.1f}".replace("-", "−") for i in shown]
    ax.set_xticks((shown + 0.5) * width, names)
    ax.set_yticks((n - shown - 0.5) * height, names)
    ax.set(xlabel="$z_1$ at the prior's quantiles", ylabel="$z_2$ at the prior's quantiles")
    ax.grid(False)
    return _finished(figure)


def _finished(figure):
    """Lay the figure out and take it from pyplot, so that a notebook shows it once."""
    if not figure.get_layout_engine():
        figure.tight_layout()
    plt.close(figure)
    return figure
