"""The grid of codes: a trained VQ-VAE on a page, whose codes one changes by hand.

The page gets both networks as the explorer does, the codebook, and test images to choose from.
"""

import numpy as np

from vae_utils.page.control import control, joined, packed, picture_of
from vae_utils.page.explorer import IMAGE_SHAPE, network, stroke_width

SCRIPTS = ("networks.js", "surroundings.js", "drawing.js", "grid.js")  # in this order
STILL_ALT = (
    "Two rows of ten handwritten digits: test images above, and below what the decoder makes of "
    "the codes that the encoder has chosen for them. The lower ones are a little smoother."
)


def show(vqvae, digits, seed=0):
    """Show the codes of a digit as a grid: draw, change a code, watch the decoder answer.

    All images are made black and white, as a Bernoulli likelihood wants them. What is returned
    needs neither a kernel nor a network once it is on a page.

    Args:
        vqvae: a `beyond.codes.VQVAE` for images of shape `(28, 28, 1)`, of layers that the
            explorer knows.
        digits: a `data.Digits`; a test image of each label can be chosen.
        seed: integer by which these images are drawn.

    Returns:
        An object that a notebook displays.

    Raises:
        ValueError: for a model that the page cannot run.
    """
    rows = _examples(digits, seed)
    images = digits.x_test[rows].round()
    payload = export(vqvae) | {
        "images": packed(images, "uint8"),
        "imageLabels": digits.y_test[rows].tolist(),
        "pen": stroke_width(digits.x_test[:500, ..., 0]),
    }
    fills = {"still": _still(vqvae, images), "alt": STILL_ALT}
    return control("grid", "LatentGrid", SCRIPTS, payload, fills)


def script():
    """Return the grid's script, which defines `LatentGrid` and what that is made of."""
    return joined(SCRIPTS)


def export(vqvae):
    """Return networks and codebook as what the script reads: a dictionary.

    Raises:
        ValueError: as `show`.
    """
    shape = tuple(vqvae.decoder.output_shape[1:])
    if shape != IMAGE_SHAPE:
        raise ValueError(f"The grid draws images of the shape {IMAGE_SHAPE}. Received: {shape}")
    return {
        "encoder": network(vqvae.encoder),
        "decoder": network(vqvae.decoder),
        "codebook": packed(vqvae.codebook.numpy(), "float32"),
        "grid": list(vqvae.grid),
    }


def _examples(digits, seed):
    """Return the row of one test image of each label."""
    order = np.random.default_rng(seed).permutation(len(digits.y_test))
    return [next(n for n in order if digits.y_test[n] == label) for label in range(10)]


def _still(vqvae, images):
    """Return images and their reconstructions as the URL of a small picture."""
    rows = [images, vqvae.decode_mean(vqvae.encode(images))]
    return picture_of(np.block([list(row[..., 0]) for row in rows]))
