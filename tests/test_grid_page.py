"""The grid of codes, in a browser, from a file, without a network."""

import keras
import numpy as np
import pytest
from conftest import variables_are_copied, wait_until_forgotten

from vae_utils.beyond import codes
from vae_utils.page import explorer, grid

pytestmark = variables_are_copied
STATE = "document.querySelector('.latent-grid').grid.state"
SEVEN = [(0.3, 0.2), (0.7, 0.2), (0.45, 0.8)]


@pytest.fixture(scope="module")
def vqvae(bundled):
    keras.utils.set_random_seed(0)
    model = codes.build(codes=9, width=16, seed=0)
    model.start_from(bundled.x_test[:100], 0)
    return model


@pytest.fixture(scope="module")
def path(vqvae, bundled, tmp_path_factory):
    """Return a page that shows nothing but the grid."""
    path = tmp_path_factory.mktemp("grid") / "page.html"
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Codes</title>'
    path.write_text(f"{head}<main>{grid.show(vqvae, bundled).data}</main>", encoding="utf-8")
    return path


@pytest.fixture
def page(browser, path):
    context = browser.new_context(offline=True, viewport={"width": 900, "height": 800})
    page = context.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(path.as_uri())
    page.locator(".latent-grid.alive").wait_for()
    page.wait_for_function(f"{STATE}.chosen")
    yield page
    assert page.errors == []
    context.close()


def part(page, name):
    return page.locator(f'.latent-grid [data-part="{name}"]')


def cell(page, k):
    return part(page, "cells").locator("button").nth(k)


def state_of(page):
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    return page.evaluate(STATE)


def image_of(state):
    return np.reshape(state["image"], (1, 28, 28, 1)).astype("float32")


def assert_it_is_kerass(state, vqvae):
    same = explorer.rounded(vqvae)
    assert same.encode(image_of(state))[0].tolist() == state["chosen"]
    c = np.array([state["codes"]])
    np.testing.assert_allclose(state["logits"], same.decode(c).ravel(), atol=1e-4)
    assert state["distortion"] == pytest.approx(same.distortion(image_of(state), c)[0], abs=1e-2)


def test_the_page_chooses_and_decodes_as_keras_does(page, vqvae):
    for n in (0, 7):
        part(page, "thumbs").locator("button").nth(n).click()
        state = state_of(page)
        assert set(state["image"]) == {0, 1}
        assert state["codes"] == state["chosen"]
        assert_it_is_kerass(state, vqvae)


def test_a_click_and_the_arrow_keys_change_a_code(page, vqvae):
    before = state_of(page)
    cell(page, 5).click()
    cell(page, 5).press("ArrowUp")
    cell(page, 5).press("ArrowRight")
    page.keyboard.press("ArrowDown")
    state = state_of(page)
    wanted = list(before["chosen"])
    wanted[5], wanted[6] = (wanted[5] + 2) % 9, (wanted[6] - 1) % 9
    assert state["codes"] == wanted
    assert state["cell"] == 6
    assert_it_is_kerass(state, vqvae)
    assert part(page, "changed").inner_text() == "2"
    assert "changed from" in cell(page, 5).get_attribute("aria-label")
    part(page, "back").click()
    assert state_of(page)["codes"] == before["chosen"]


def test_the_slider_sets_the_code_of_the_cell_in_hand(page, vqvae):
    cell(page, 2).focus()
    page.keyboard.press("ArrowUp")
    part(page, "code").fill("8")
    state = state_of(page)
    assert (state["cell"], state["codes"][2]) == (2, 8)
    assert_it_is_kerass(state, vqvae)


def test_a_drawing_gets_codes(page, vqvae):
    part(page, "clear").click()
    assert state_of(page)["image"] is None
    assert part(page, "back").is_disabled()
    box = part(page, "paper").bounding_box()
    for number, (u, v) in enumerate(SEVEN):
        page.mouse.move(box["x"] + u * box["width"], box["y"] + v * box["height"], steps=5)
        if number == 0:
            page.mouse.down()
    page.mouse.up()
    state = state_of(page)
    assert 20 < sum(state["image"]) < 300
    assert_it_is_kerass(state, vqvae)
    page.wait_for_function(
        "document.querySelector('[data-part=words]').innerText.startsWith('Your drawing')"
    )


def test_it_is_described_and_small_and_nothing_holds_it(page, path):
    assert path.stat().st_size < 1_500_000
    assert cell(page, 0).get_attribute("aria-label").startswith("Code ")
    assert cell(page, 0).get_attribute("aria-pressed") == "true"
    assert len(part(page, "thumbs").locator("button").all()) == 10
    wait_until_forgotten(page, ".latent-grid")


def test_without_a_script_there_is_a_picture(browser, path):
    context = browser.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator(".latent-grid .still img").is_visible()
    assert "With JavaScript" in page.locator(".latent-grid figcaption").inner_text()
    context.close()


def test_a_model_for_other_images_is_refused(bundled):
    images, vectors = keras.Input((8, 8, 1)), keras.Input((2, 2, 3))
    encoder = keras.Model(images, keras.layers.Conv2D(3, 4, 4)(images))
    flat = keras.layers.Dense(64)(keras.layers.Flatten()(vectors))
    decoder = keras.Model(vectors, keras.layers.Reshape((8, 8, 1))(flat))
    with pytest.raises(ValueError, match=r"\(8, 8, 1\)"):
        grid.show(codes.VQVAE(encoder, decoder, 4), bundled)
