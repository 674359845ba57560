"""The latent explorer: a trained VAE on a page, encoder and decoder, without a kernel.

The page gets the networks as a list of layers with rounded weights, and scripts of its own that
run them. `rounded` is the model as the page has it.
"""

import keras
import numpy as np

from vae_utils import plots
from vae_utils.page.control import control, joined, packed, picture_of

SCRIPTS = (
    "networks.js",
    "surroundings.js",
    "drawing.js",
    "plane.js",
    "explorer.js",
)  # in this order
IMAGE_SHAPE = (28, 28, 1)
IMAGES_PER_LABEL = 20
POINTS = 2000
KINDS = {
    layer: layer.__name__.lower()
    for layer in (
        keras.layers.Dense,
        keras.layers.Conv2D,
        keras.layers.Conv2DTranspose,
        keras.layers.Flatten,
        keras.layers.Reshape,
        keras.layers.Dropout,
        keras.layers.Activation,
    )
}
ACTIVATIONS = ("linear", "relu", "elu", "silu", "sigmoid", "softplus", "tanh")
PLAIN = {
    "data_format": "channels_last",
    "dilation_rate": (1, 1),
    "groups": 1,
    "output_padding": None,
}
STILL_ALT = (
    "Grid of 12 by 12 handwritten digits that the decoder makes from points of the latent plane, "
    "z1 across and z2 up, both at the prior's quantiles. Neighbours differ little: one digit turns "
    "into the next."
)


def show(vae, digits):
    """Show a VAE's latent plane, alive: draw a digit, drag a point, watch both networks answer.

    What is returned needs neither a kernel nor a network once it is on a page.

    Args:
        vae: a `models.VAE` with two latent dimensions for images of shape `(28, 28, 1)`, built
            with Keras's functional interface from the layers in `KINDS`.
        digits: a `data.Digits`; up to 2,000 of its test images become points of the plane.

    Returns:
        An object that a notebook displays, 1.5 MB or less for the book's networks.

    Raises:
        ValueError: for a model that the page cannot run; the message says what it has met.
    """
    payload = export(vae) | _examples(vae, digits)
    fills = {"still": _still(vae), "alt": STILL_ALT}
    return control("explorer", "LatentExplorer", SCRIPTS, payload, fills)


def script():
    """Return the explorer's script, which defines `LatentExplorer` and what that is made of."""
    return joined(SCRIPTS)


def export(vae):
    """Return both networks and the likelihood of a VAE as what the script reads: a dictionary.

    Raises:
        ValueError: as `show`.
    """
    if vae.latent_dim != 2:
        raise ValueError(
            "The explorer shows a plane, so latent_dim must be 2. "
            f"Received: latent_dim={vae.latent_dim}"
        )
    if vae.image_shape != IMAGE_SHAPE:
        raise ValueError(
            f"The explorer draws images of the shape {IMAGE_SHAPE}. Received: {vae.image_shape}"
        )
    gaussian = vae.likelihood == "gaussian"
    return {
        "encoder": network(vae.encoder),
        "decoder": network(vae.decoder),
        "pixelLogVar": float(vae.pixel_log_var) if gaussian else None,
    }


def rounded(vae):
    """Return a copy of the VAE with the rounded weights that the page has.

    `evaluation.elbo` of both tells what the rounding costs.

    Args:
        vae: a `models.VAE`.

    Returns:
        A new `models.VAE` of the same class.
    """
    copy = type(vae).from_config(vae.get_config())
    copy.set_weights(vae.get_weights())
    for network in (copy.encoder, copy.decoder):
        for layer in network.layers:
            if hasattr(layer, "kernel"):
                steps, step = _rounded(_kernel(layer))
                layer.kernel.assign(_turned(layer, steps * step))
    return copy


def network(model):
    """Return the layers of a functional model in the order of computation, and its outputs."""
    places, layers = {id(tensor): 0 for tensor in model.inputs}, []
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        source = places.get(id(getattr(layer, "input", None)))
        if source is None:
            raise ValueError(
                "The explorer runs chains of layers with one input each, made with Keras's "
                f"functional interface. Received: {_named(layer)} in {model.name}"
            )
        layers.append({"input": source, **_layer(layer)})
        places[id(layer.output)] = len(layers)
    return {"layers": layers, "outputs": [places[id(tensor)] for tensor in model.outputs]}


def _layer(layer):
    """Return what the script needs to know about one layer."""
    if type(layer) not in KINDS:
        known = ", ".join(kind.__name__ for kind in KINDS)
        raise ValueError(f"The explorer knows the layers {known}. Received: {_named(layer)}")
    _require_plain(layer)
    kind = KINDS[type(layer)]
    entry = {"kind": kind, "activation": _activation(layer)}
    if not hasattr(layer, "kernel"):
        return entry
    entry |= {"from": list(layer.input.shape[1:]), "to": list(layer.output.shape[1:])}
    if kind == "dense":
        if len(entry["from"]) > 1:
            raise ValueError(
                "The explorer runs Dense layers on flat inputs. "
                f"Received: inputs of shape {tuple(entry['from'])} for {_named(layer)}"
            )
    else:
        entry["stride"] = list(layer.strides)
    steps, step = _rounded(_kernel(layer))
    bias = layer.bias.numpy() if layer.use_bias else np.zeros(steps.shape[-1])
    arrays = {"kernel": (steps, "int8"), "step": (step, "float32"), "bias": (bias, "float32")}
    shape = {"kernelShape": list(steps.shape)}
    return entry | shape | {key: packed(*array) for key, array in arrays.items()}


def _activation(layer):
    """Return the name of a layer's activation; a function that is only called so will not do."""
    function = getattr(layer, "activation", None) or keras.activations.linear
    for name in ACTIVATIONS:
        if function is keras.activations.get(name):
            return name
    raise ValueError(
        f"The explorer knows Keras's activations {', '.join(ACTIVATIONS)}. "
        f"Received: activation={function!r} of {_named(layer)}"
    )


def _require_plain(layer):
    for name, wanted in PLAIN.items():
        value = getattr(layer, name, wanted)
        if value != wanted:
            raise ValueError(
                f"The explorer runs layers with {name}={wanted!r}. "
                f"Received: {name}={value!r} of {_named(layer)}"
            )


def _named(layer):
    return f"{type(layer).__name__} {layer.name!r}"


def _kernel(layer):
    """Return a layer's kernel with its output units along the last axis."""
    return _turned(layer, layer.kernel.numpy())


def _turned(layer, kernel):
    """Swap the two last axes of a transposed convolution's kernel: there, or back again."""
    return kernel.swapaxes(-1, -2) if isinstance(layer, keras.layers.Conv2DTranspose) else kernel


def _rounded(kernel):
    """Return a kernel as whole steps, -127 to 127, and the size of a step for each output unit."""
    largest = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))
    step = np.maximum(largest / 127, 1e-30).astype("float32")
    return np.rint(kernel / step).astype("float32"), step


def _examples(vae, digits):
    """Return test points for the plane, test images to choose from, and how thick a pen is."""
    mean, _ = vae.encode(digits.x_test[:POINTS])
    labels = digits.y_test
    rows = [np.flatnonzero(labels == label)[:IMAGES_PER_LABEL] for label in np.unique(labels)]
    rows = np.concatenate(rows)
    return {
        "points": packed(mean, "float32"),
        "labels": packed(labels[:POINTS], "uint8"),
        "images": packed(digits.test_levels[rows], "uint8"),
        "imageLabels": labels[rows].tolist(),
        "pen": stroke_width(digits.x_test[:500, ..., 0]),
        "colors": plots.DIGIT_COLORS,
    }


def stroke_width(x):
    """Return the mean width of strokes in pixels: twice their area over their outline.

    The summed differences between neighbours are 4/π times as long as an outline of all directions.
    """
    outline = sum(np.abs(np.diff(x, axis=axis)).sum() for axis in (1, 2)) * np.pi / 4
    return round(float(2 * x.sum() / outline), 2)


def _still(vae, side=12):
    """Return the decoded plane at the prior's quantiles as the URL of a small picture."""
    return picture_of(plots.decoded_plane(vae, side))
