"""The lab: a VAE that learns on the page, in a worker of its own, without a kernel.

The page gets the scripts that learn and draw, and the digits that ship with scikit-learn.
"""

import json

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from vae_utils import plots
from vae_utils.checks import require
from vae_utils.page.control import HERE, control, joined, packed, picture

VIEWS = ("line", "digits")
WORKER_SCRIPTS = (
    "networks.js",
    "products.js",
    "settings.js",
    "learning.js",
    "lab_data.js",
    "truth.js",
    "lab_worker.js",
)
SCRIPTS = (
    "networks.js",
    "settings.js",
    "surroundings.js",
    "charts.js",
    "plane.js",
    "address.js",
    "views.js",
    "lessons.js",
    "keras_code.js",
    "lab.js",
)
WHITE = 16  # the highest grey level of scikit-learn's scans
HELD_OUT = 360
LARGER, LARGER_HELD_OUT = 1000, 200
STILL = HERE / "lab.webp"  # of the digits view; tools/picture_lab.py takes it anew
STILL_ALT = (
    "Picture of the lab after some seconds: held-out digits as points of a latent plane, coloured "
    "by label, beside a grid of twelve by twelve decoded digits."
)


def show(view="line", digits=None):
    """Show a VAE that learns on the page: run it, turn β while it learns, break it.

    What is returned needs neither a kernel nor a network once it is on a page.

    Args:
        view: "line" (one latent dimension, where log p(x) is known exactly) or "digits".
        digits: a `data.Digits`, of which a random thousand can be chosen in place of the 8 × 8
            scans that ship with scikit-learn; None for the scans alone.

    Returns:
        An object that a notebook displays.

    Raises:
        ValueError: for another view.
    """
    require(view in VIEWS, f"view must be one of {VIEWS}.", f"{view=}")
    payload = {
        "view": view,
        "worker": joined(WORKER_SCRIPTS),
        "digits": _payload(*scans()),
        "larger": digits is not None,
        "colors": plots.DIGIT_COLORS,
    }
    with Image.open(STILL) as still:
        width, height = map(str, still.size)
    fills = {"view": view, "width": width, "height": height, "alt": STILL_ALT}
    fills["still"] = picture(STILL.read_bytes())
    shown = control("lab", "LatentLab", SCRIPTS, payload, fills)
    shown.data += _on_demand(digits)
    return shown


def script():
    """Return the page's script, which defines `LatentLab` and what that is made of."""
    return joined(SCRIPTS)


def scans():
    """Return the digits that ship with scikit-learn as the lab has them, in random order.

    Returns:
        `(levels, labels, white, train)`: uint8 grey levels from 0 to `white`, shape
        `(1797, 8, 8, 1)`; uint8 labels, shape `(1797,)`; the first `train` of both are the
        training part, the others are held out.
    """
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    levels = bunch.images[order, :, :, np.newaxis].astype(np.uint8)
    return levels, bunch.target[order].astype(np.uint8), WHITE, len(order) - HELD_OUT


def thousand(digits):
    """Return a random thousand training images, held out 200 validation ones: as `scans`."""
    train, held_out = slice(LARGER), slice(LARGER_HELD_OUT)  # each part is in random order
    levels = np.concatenate([digits.train_levels[train], digits.validation_levels[held_out]])
    labels = np.concatenate([digits.y_train[train], digits.y_validation[held_out]])
    return levels, labels.astype(np.uint8), 255, min(LARGER, len(digits.train_levels))


def _on_demand(digits):
    """Return the larger digits as a script that only runs where somebody asks for them."""
    if digits is None:
        return ""
    content = json.dumps(_payload(*thousand(digits)))
    return (
        '\n<script type="text/plain" data-lazy="lab_digits" data-defines="LatentLabDigits">'
        f"globalThis.LatentLabDigits = {content};</script>"
    )


def _payload(levels, labels, white, train):
    arrays = {"levels": packed(levels, "uint8"), "labels": packed(labels, "uint8")}
    return arrays | {"white": white, "train": train}
