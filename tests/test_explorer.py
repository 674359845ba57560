"""The explorer's networks on a page are Keras's networks, and what cannot be shown is refused."""

import dataclasses
import functools
import json
import re
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import playwright
import pytest
from conftest import wait_until_forgotten
from keras import layers, ops

from vae_utils import evaluation, losses, models
from vae_utils.page import explorer

SCRIPT = explorer.script()
NODE = shutil.which("node") or Path(playwright.__file__).parent / "driver" / "node"
STATE = "document.querySelector('.latent-explorer').explorer.state"
ANSWERS = """
async ({ network, inputs }) => {
  const run = await LatentNetworks.network(network);
  return inputs.map((x) => run(Float32Array.from(x)).map((y) => Array.from(y)));
}
"""


def trained(architecture, digits, seed=0):
    """Return a VAE after a few steps: weights of a real model, biases that are not zero."""
    keras.utils.set_random_seed(seed)
    vae = models.build_vae(architecture, seed=seed)
    vae.compile(keras.optimizers.Adam(1e-3))
    vae.fit(digits.x_train, batch_size=32, epochs=1, verbose=0)
    return vae


@pytest.fixture(scope="module", params=["dense", "conv", "linear"])
def vae(request, digits):
    return trained(request.param, digits)


@pytest.fixture(scope="module")
def dense(digits):
    return trained("dense", digits)


def chain(*hidden, image_shape=(28, 28, 1)):
    """Return a VAE whose encoder is a chain of the given layers between Flatten and the heads."""
    images, z = keras.Input(image_shape), keras.Input((2,))
    h = images
    for layer in hidden:
        h = layer(h)
    h = layers.Flatten()(h)
    encoder = keras.Model(images, [layers.Dense(2)(h), layers.Dense(2)(h)])
    logits = layers.Reshape(image_shape)(layers.Dense(int(np.prod(image_shape)))(z))
    return models.VAE(encoder, keras.Model(z, logits))


# The script against Keras


def in_node(network, inputs):
    question = json.dumps({"network": network, "inputs": inputs})
    program = f"{SCRIPT}\n({ANSWERS})({question}).then((y) => console.log(JSON.stringify(y)))"
    output = subprocess.run([NODE, "-"], input=program, text=True, capture_output=True, check=True)
    return json.loads(output.stdout)


@pytest.fixture(scope="module")
def blank_page(browser):
    page = browser.new_page()
    page.add_script_tag(content=SCRIPT)
    yield page
    page.close()


@pytest.fixture(params=["node", "chromium"])
def answers(request):
    """Return a function that runs an exported network in one of the engines."""
    if request.param == "node":
        return in_node
    page = request.getfixturevalue("blank_page")
    return lambda network, inputs: page.evaluate(ANSWERS, {"network": network, "inputs": inputs})


def plane_grid(n=9, reach=3.0):
    axis = np.linspace(-reach, reach, n)
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def test_the_script_decodes_as_keras_does(vae, answers):
    z = plane_grid()
    here = np.array(answers(explorer.export(vae)["decoder"], z.tolist()))[:, 0]
    keras_says = explorer.rounded(vae).decode(z).reshape(len(z), -1)
    assert np.abs(keras_says).max() > 0.1
    np.testing.assert_allclose(here, keras_says, rtol=0, atol=1e-3)


def test_the_script_encodes_as_keras_does(vae, digits, answers):
    x = digits.x_test[:16]
    here = np.array(answers(explorer.export(vae)["encoder"], x.reshape(len(x), -1).tolist()))
    mean, log_var = explorer.rounded(vae).encode(x)
    np.testing.assert_allclose(here[:, 0], mean, rtol=0, atol=1e-3)
    np.testing.assert_allclose(here[:, 1], log_var, rtol=0, atol=1e-3)


def hold_encoder_to_keras(page, vae, x, atol):
    network, inputs = explorer.export(vae)["encoder"], x.reshape(len(x), -1).tolist()
    (here,) = page.evaluate(ANSWERS, {"network": network, "inputs": inputs})
    keras_says = explorer.rounded(vae).encode(x)
    np.testing.assert_allclose(here, np.concatenate(keras_says), rtol=0, atol=atol)


@pytest.mark.parametrize("activation", explorer.ACTIVATIONS)
def test_the_script_knows_the_activations(activation, digits, blank_page):
    vae = chain(
        layers.Flatten(), layers.Dense(9), layers.Activation(activation), layers.Dropout(0.5)
    )
    hold_encoder_to_keras(blank_page, vae, digits.x_test[:1], atol=1e-4)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel_size", [(3, 3), (2, 5)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
def test_the_script_pads_and_strides_as_keras_does(
    padding, kernel_size, strides, digits, blank_page
):
    vae = chain(
        layers.Conv2D(3, kernel_size, strides=strides, padding=padding, use_bias=False),
        layers.Conv2DTranspose(2, kernel_size, strides=strides, padding=padding),
    )
    hold_encoder_to_keras(blank_page, vae, digits.x_test[:1], atol=1e-3)


# Rounding


def test_rounding_moves_no_weight_by_more_than_half_a_step(vae):
    for network in ("encoder", "decoder"):
        for layer, page_layer in zip(
            getattr(vae, network).layers, getattr(explorer.rounded(vae), network).layers
        ):
            if not hasattr(layer, "kernel"):
                continue
            transposed = isinstance(layer, layers.Conv2DTranspose)
            unit = -2 if transposed else -1  # Keras's own order of axes
            exact, page = (np.moveaxis(one.kernel.numpy(), unit, -1) for one in (layer, page_layer))
            exact, page = (kernel.reshape(-1, kernel.shape[-1]) for kernel in (exact, page))
            step = np.abs(exact).max(axis=0) / 127
            assert np.all(np.abs(page - exact) <= 0.5001 * step)
            np.testing.assert_array_equal(page_layer.get_weights()[1:], layer.get_weights()[1:])


def test_rounding_hardly_changes_the_elbo_and_leaves_the_model_alone(vae, digits):
    before, weights = evaluation.elbo(vae, digits.x_test), vae.get_weights()
    page = explorer.rounded(vae)
    assert evaluation.elbo(page, digits.x_test) != before
    assert evaluation.elbo(page, digits.x_test) == pytest.approx(before, abs=1.0)
    for old, new in zip(weights, vae.get_weights()):
        np.testing.assert_array_equal(old, new)


# The object on the page


def test_what_is_shown_is_small_and_asks_nothing_of_a_network(vae, digits):
    html = explorer.show(vae, digits).data
    assert len(html.encode()) <= 1.5e6
    assert not re.search(r"https?:|\bimport\(|fetch\(", html)
    assert html.count("</script>") == 1  # nothing ends the script early
    assert html == explorer.show(vae, digits).data


def test_the_strokes_of_a_pen_are_as_wide_as_those_of_the_digits():
    x = np.zeros((1, 28, 28))
    x[0, 4:24, 12:15] = 1  # 3 wide, 20 long
    diagonal = np.abs(np.subtract.outer(np.arange(28), np.arange(28)))[np.newaxis] <= 2
    expected = 5 / np.sqrt(2)
    assert explorer.stroke_width(x) == pytest.approx(3, rel=0.15)
    assert explorer.stroke_width(diagonal.astype(float)) == pytest.approx(expected, rel=0.25)


def test_the_parts_of_the_elbo_are_those_of_the_losses(vae, digits, blank_page):
    """What the page shows for its first test image, at the point that it has drawn."""
    state = shown(blank_page, vae, digits)
    page_vae, x = explorer.rounded(vae), np.reshape(state["image"], (1, 28, 28, 1))
    first = np.flatnonzero(digits.y_test == digits.y_test.min())[0]
    np.testing.assert_allclose(x[0], digits.x_test[first], atol=1e-6)
    mean, log_var = page_vae.encode(x.astype("float32"))
    np.testing.assert_allclose(state["mean"], mean[0], atol=1e-3)
    logits = page_vae.decode([state["z"]])
    nll = ops.convert_to_numpy(page_vae.reconstruction_term(x.astype("float32"), logits))
    kl = ops.convert_to_numpy(losses.gaussian_kl(mean, log_var))
    assert state["reconstruction"] == pytest.approx(nll[0], abs=0.05)
    assert state["kl"] == pytest.approx(kl[0], abs=1e-3)


def shown(page, vae, digits):
    """Put the explorer of a VAE on an empty page; return its state once it is alive."""
    page.set_content(f"<!doctype html><body>{explorer.show(vae, digits).data}</body>")
    page.locator(".latent-explorer.alive").wait_for()
    page.wait_for_function(f"{STATE}.mean")
    return page.evaluate(STATE)


def linear_encoder(factors, digits):
    """Return a VAE that encodes an image as its summed pixels times two factors, with σ = 1."""
    vae = chain()
    mean, log_var = vae.encoder.layers[-2:]
    mean.kernel.assign(np.broadcast_to(factors, (784, 2)))
    log_var.kernel.assign(np.zeros((784, 2)))
    return vae, vae.encode(digits.x_test)[0]


def test_the_plane_reaches_as_far_as_the_points_and_so_do_the_keys(digits, blank_page):
    vae, points = linear_encoder((-20, 30), digits)
    shown(blank_page, vae, digits)
    reach = float(blank_page.get_attribute("[data-part=z1]", "max"))
    assert reach >= np.quantile(np.abs(points), 0.98) > 1000
    z = np.round(points[7], -2)
    for name, value in zip(("z1", "z2"), z):
        blank_page.fill(f"[data-part={name}]", str(value))
    near = digits.y_test[np.argsort(np.linalg.norm(points - z, axis=1))[:15]]
    most = np.bincount(near).max()
    words = f"z is at {z[0]:.2f}, {z[1]:.2f}: {most} of the 15 nearest test images".replace(
        "-", "−"
    )
    blank_page.locator("[data-part=words]", has_text=words).wait_for()
    before = blank_page.evaluate(STATE)["z"]
    blank_page.focus("[data-part=plane]")
    blank_page.keyboard.press("ArrowRight")
    blank_page.wait_for_function(f"z => {STATE}.z[0] > z", arg=before[0] + reach / 200)


def test_a_drawing_beyond_the_plane_is_walked_from_the_edge(digits, blank_page):
    vae, _ = linear_encoder((-20, 30), digits)
    shown(blank_page, vae, digits)
    blank_page.locator("[data-part=paper]").scroll_into_view_if_needed()
    box = blank_page.locator("[data-part=paper]").bounding_box()
    blank_page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"])
    blank_page.mouse.down()
    for i in range(12):  # until the paper is black
        right, down = (0.8, 0.2)[i % 2], 0.2 + 0.05 * i
        blank_page.mouse.move(box["x"] + right * box["width"], box["y"] + down * box["height"])
    blank_page.mouse.up()
    reach = float(blank_page.get_attribute("[data-part=z2]", "max"))
    blank_page.wait_for_function(f"reach => {STATE}.z[1] > reach", arg=reach)
    blank_page.focus("[data-part=plane]")
    blank_page.keyboard.press("ArrowDown")
    step = 5 * float(blank_page.get_attribute("[data-part=z2]", "step"))
    blank_page.wait_for_function(f"z => Math.abs({STATE}.z[1] - z) < 1e-6", arg=reach - step)


def test_with_few_test_images_the_words_count_them(digits, blank_page):
    few = dataclasses.replace(digits, test_levels=digits.test_levels[:4], y_test=digits.y_test[:4])
    shown(blank_page, chain(), few)
    blank_page.wait_for_function(
        "/(of the|all) 4 nearest/.test(document.querySelector('[data-part=words]').innerText)"
    )


def test_the_plane_is_sharp_after_every_zoom(digits, browser):
    """Chromium's emulation of another resolution sends no event, so the test sends it."""
    page = browser.new_page()
    page.add_init_script(
        "window.queries = {};window.matchMedia = (query) => (queries[query] ??= new EventTarget());"
    )
    page.goto("about:blank")
    shown(page, chain(), digits)
    plane = "document.querySelector('[data-part=plane]')"
    for before, ratio in ((1, 2), (2, 1.5)):
        page.evaluate(
            "Object.defineProperty(window, 'devicePixelRatio', "
            f"{{ value: {ratio}, configurable: true }});"
            f"queries['(resolution: {before}dppx)'].dispatchEvent(new Event('change'));"
        )
        page.wait_for_function(f"{plane}.width === Math.round({ratio} * {plane}.clientWidth)")
    page.close()


def test_an_output_that_a_notebook_replaces_is_forgotten(digits, blank_page):
    shown(blank_page, chain(), digits)
    blank_page.locator("[data-part=words]", has_text="nearest").wait_for()  # the last timer
    wait_until_forgotten(blank_page, ".latent-explorer")


# Refusals


def relu(x):
    """Leak, whatever the name says."""
    return ops.leaky_relu(x)


def test_a_latent_space_that_is_no_plane_is_refused(digits):
    with pytest.raises(ValueError, match="latent_dim must be 2. Received: latent_dim=3"):
        explorer.show(models.build_vae("dense", 3), digits)


def test_images_of_another_shape_are_refused():
    vae = models.build_vae("dense", 2, (8, 8, 3))
    with pytest.raises(ValueError, match=r"\(28, 28, 1\). Received: \(8, 8, 3\)"):
        explorer.export(vae)


@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        (lambda: layers.MaxPooling2D(), "knows the layers .* Received: MaxPooling2D"),
        (
            lambda: layers.Conv2D(2, 3, activation="gelu"),
            "activations .* Received: activation=<function gelu .* of Conv2D",
        ),
        (
            lambda: layers.Conv2D(2, 3, activation=layers.LeakyReLU()),
            "activations .* Received: activation=<LeakyReLU .* of Conv2D",
        ),
        (
            lambda: layers.Activation(functools.partial(keras.activations.elu, alpha=0.5)),
            "activations .* Received: activation=functools.partial.* of Activation",
        ),
        (
            lambda: layers.Activation(relu, name="mine"),
            "Keras's activations .* Received: activation=<function relu .* of Activation 'mine'",
        ),
        (
            lambda: layers.Flatten(data_format="channels_first"),
            "data_format='channels_last'. Received: data_format='channels_first' of Flatten",
        ),
        (
            lambda: layers.Conv2D(2, 3, dilation_rate=2),
            r"dilation_rate=\(1, 1\). Received: .*\(2, 2\)",
        ),
        (lambda: layers.Dense(3), r"flat inputs. Received: .*\(28, 28, 1\) for Dense"),
    ],
)
def test_a_layer_that_the_script_does_not_know_is_refused(hidden, said):
    with pytest.raises(ValueError, match=said):
        explorer.export(chain(hidden()))


def test_a_network_that_is_no_chain_is_refused():
    images, z = keras.Input((28, 28, 1)), keras.Input((2,))
    h = layers.Flatten()(images)
    h = layers.Add(name="both")([layers.Dense(4)(h), layers.Dense(4)(h)])
    encoder = keras.Model(images, [layers.Dense(2)(h), layers.Dense(2)(h)], name="encoder")
    decoder = keras.Model(z, layers.Reshape((28, 28, 1))(layers.Dense(784)(z)))
    with pytest.raises(ValueError, match="one input each.* Received: Add 'both' in encoder"):
        explorer.export(models.VAE(encoder, decoder))
