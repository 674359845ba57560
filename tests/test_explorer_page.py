"""The explorer on a built page, from the file system, without a network.

Like those of `test_site.py` these tests need `make book` first, and a Chromium.
"""

import re
import time

import numpy as np
import pytest
from conftest import skip_unless_required, variables_are_copied

from vae_utils import data, training
from vae_utils.page import explorer

PAGES = ("book/index", "book/05_latent_plot/2_decoded_plane")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
THREE = [(0.3, 0.25), (0.6, 0.2), (0.62, 0.35), (0.45, 0.48), (0.65, 0.6), (0.6, 0.78), (0.3, 0.75)]
STATE = "document.querySelector('.latent-explorer').explorer.state"


@pytest.fixture
def opened(browser, site):
    """Return a function that opens a page offline, up to its explorer."""
    contexts = []

    def opened(name=PAGES[0], viewport=WIDE, **options):
        contexts.append(browser.new_context(offline=True, viewport=viewport, **options))
        page = contexts[-1].new_page()
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.goto((site / f"{name}.html").as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def page(opened):
    return alive(opened())


def alive(page):
    page.locator(".latent-explorer").scroll_into_view_if_needed()
    page.locator(".latent-explorer.alive").wait_for()
    page.wait_for_function(f"{STATE}.mean")
    return page


def part(page, name):
    return page.locator(f'.latent-explorer [data-part="{name}"]')


def state_of(page):
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    return page.evaluate(STATE)


def wait_for_words(page, words):
    page.wait_for_function(
        "words => document.querySelector('[data-part=words]').innerText.includes(words)", arg=words
    )


def stroke(page, name, way):
    """Move the mouse along a way on a canvas, given in parts of its sides."""
    part(page, name).scroll_into_view_if_needed()
    box = part(page, name).bounding_box()
    places = [(box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in way]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


def finger_stroke(page, name, way):
    """Move a finger along a way on a canvas, given in parts of its sides."""
    part(page, name).scroll_into_view_if_needed()
    box, finger = part(page, name).bounding_box(), page.context.new_cdp_session(page)
    for i, (u, v) in enumerate(way):
        place = {"x": box["x"] + u * box["width"], "y": box["y"] + v * box["height"]}
        kind = "touchMove" if i else "touchStart"
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [place]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def pixels(page, name):
    """Return a canvas as grey levels from 0 (black) to 255, shape (height, width)."""
    size = part(page, name).evaluate("canvas => [canvas.height, canvas.width]")
    levels = part(page, name).evaluate(
        "c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
    )
    return np.reshape(levels, (*size, 4))[..., :3].mean(axis=-1)


@pytest.mark.parametrize("name", PAGES)
def test_it_comes_alive_offline_on_every_page(name, opened):
    page = alive(opened(name))
    assert page.errors == []
    assert part(page, "plane").is_visible()
    assert not page.locator(".latent-explorer .still").is_visible()


def test_the_pages_share_one_file_of_at_most_1500_kB(site):
    one, other = (
        re.findall(r"_static/explorer-\w+\.js", (site / f"{name}.html").read_text())
        for name in PAGES
    )
    assert one == other
    assert (site / one[0]).stat().st_size <= 1_500_000


def test_nothing_is_loaded_before_the_explorer_comes_into_view(opened):
    page = opened()
    assert page.evaluate("typeof LatentExplorer") == "undefined"
    alive(page)


def test_a_stroke_moves_the_ellipse(page):
    before, plane = state_of(page), pixels(page, "plane")
    stroke(page, "paper", THREE)
    after = state_of(page)
    assert (np.abs(pixels(page, "plane") - plane) > 50).sum() > 20
    assert np.linalg.norm(np.subtract(before["mean"], after["mean"])) > 0.1
    image = np.reshape(after["image"], (28, 28))
    rows, columns = np.nonzero(image)
    assert max(np.ptp(rows), np.ptp(columns)) in range(18, 23)  # fills 20 pixels, as MNIST does
    centre = np.array([(image.sum(axis=1) @ range(28)), (image.sum(axis=0) @ range(28))])
    np.testing.assert_allclose(centre / image.sum(), 13.5, atol=0.3)


def test_the_size_and_place_of_a_drawing_do_not_matter(page):
    stroke(page, "paper", THREE)
    large = state_of(page)
    part(page, "clear").click()
    stroke(page, "paper", [(0.3 + 0.6 * u, 0.1 + 0.6 * v) for u, v in THREE])
    small = state_of(page)
    np.testing.assert_allclose(large["image"], small["image"], atol=0.25)


def test_a_drawing_is_encoded_while_it_is_drawn(page):
    page.evaluate("window.means = new Set()")
    page.evaluate(
        f"setInterval(() => means.add(String({STATE}.mean)), 5)",
    )
    stroke(page, "paper", THREE)
    assert page.evaluate("means.size") > 3


def test_a_tap_leaves_a_dot_in_the_middle(page):
    stroke(page, "paper", [(0.3, 0.7)])
    state = state_of(page)
    image = np.reshape(state["image"], (28, 28))
    assert 0 < (image > 0.5).sum() < 20
    assert (image[12:16, 12:16] > 0.5).any()
    assert np.isfinite(state["mean"]).all()
    assert pixels(page, "paper")[196, 84] > 0  # ink on a canvas without a ground
    assert pixels(page, "paper")[140, 140] == 0
    wait_for_words(page, "Your drawing is encoded")


def test_a_long_stroke_does_not_slow_the_page_down(page):
    """Moves that are too small to be seen are not kept."""
    circles = """(count) => {
      const paper = document.querySelector("[data-part=paper]");
      const box = paper.getBoundingClientRect();
      paper.setPointerCapture = () => {};  // there is no pointer to capture
      const send = (kind, angle) => paper.dispatchEvent(new PointerEvent(kind, {
        pointerId: 9,
        clientX: box.left + 60 + 20 * Math.cos(angle),
        clientY: box.top + 60 + 20 * Math.sin(angle),
      }));
      send("pointerdown", 0);
      for (let i = 0; i < count; i++) send("pointermove", i / 9999);
      send("pointerup", 0);
    }"""
    page.evaluate(circles, 150_000)
    state = state_of(page)
    assert page.errors == []
    assert np.isfinite(state["mean"]).all()
    assert 50 < state["points"] < 1000


def test_clear_takes_the_drawing_away(page):
    stroke(page, "paper", THREE)
    part(page, "clear").click()
    assert state_of(page)["image"] is None
    assert part(page, "kl").inner_text() == "–"
    assert part(page, "posterior").is_disabled()


def test_dragging_the_point_changes_the_decoded_image(page):
    before, kl = pixels(page, "decoded"), part(page, "kl").inner_text()
    stroke(page, "plane", [(0.5, 0.5), (0.4, 0.6), (0.35, 0.7)])
    after = state_of(page)
    assert np.abs(pixels(page, "decoded") - before).max() > 50
    assert after["z"][0] < 0
    assert after["z"][1] < 0
    assert part(page, "kl").inner_text() == kl  # it belongs to the image, not to the point
    assert part(page, "total").inner_text() == "–"  # and the sum would be no estimate of the ELBO


def test_a_finger_drags_as_well(opened):
    page = alive(opened(viewport=PHONE, has_touch=True))
    part(page, "plane").scroll_into_view_if_needed()
    box = part(page, "plane").bounding_box()
    page.touchscreen.tap(box["x"] + 0.25 * box["width"], box["y"] + 0.75 * box["height"])
    state = state_of(page)
    assert state["source"] == "hand"
    assert max(state["z"]) < 0
    assert part(page, "plane").evaluate("c => getComputedStyle(c).touchAction") == "none"


def test_a_finger_draws_as_well(opened):
    page = alive(opened(viewport=PHONE, has_touch=True))
    before = state_of(page)["mean"]
    finger_stroke(page, "paper", THREE)
    after = state_of(page)
    assert after["source"] == "posterior"
    assert np.linalg.norm(np.subtract(before, after["mean"])) > 0.1
    finger_stroke(page, "plane", [(0.5, 0.5), (0.4, 0.6), (0.25, 0.75)])
    state = state_of(page)
    assert state["source"] == "hand"
    assert max(state["z"]) < 0


def test_a_key_in_the_explorer_is_no_command_of_the_notebook_around_it(page):
    page.evaluate("window.keys = []")
    page.evaluate("document.addEventListener('keydown', (event) => keys.push(event.key))")
    for name in ("z1", "clear", "plane"):
        part(page, name).focus()
        for key in ("ArrowDown", "d", "Control+b"):
            page.keyboard.press(key)
    assert page.evaluate("keys") == ["Control", "b"] * 3  # those of the browser and the page


def test_arrow_keys_move_the_point(page):
    part(page, "plane").focus()
    page.keyboard.press("ArrowLeft")
    start = state_of(page)["z"]
    for key, step in (
        ("ArrowRight", [0.05, 0]),
        ("ArrowUp", [0, 0.05]),
        ("Shift+ArrowLeft", [-0.25, 0]),
        ("Shift+ArrowDown", [0, -0.25]),
    ):
        page.keyboard.press(key)
        z = state_of(page)["z"]
        np.testing.assert_allclose(np.subtract(z, start), step, atol=1e-6)
        start = z


def test_sliders_and_samples_move_the_point(page):
    part(page, "z1").fill("1")
    part(page, "z2").fill("-0.5")
    np.testing.assert_allclose(state_of(page)["z"], [1, -0.5])
    part(page, "prior").click()
    assert state_of(page)["source"] == "prior"
    part(page, "temperature").fill("0")
    np.testing.assert_allclose(state_of(page)["z"], [0, 0])
    part(page, "posterior").click()
    state = state_of(page)
    np.testing.assert_allclose(state["z"], state["mean"])


def test_the_temperature_samples_again_where_a_hand_has_moved_the_point(page):
    part(page, "z1").fill("1")
    part(page, "temperature").fill("0")
    state = state_of(page)
    assert state["source"] == "posterior"
    np.testing.assert_allclose(state["z"], state["mean"])
    part(page, "z1").fill("1")
    part(page, "clear").click()
    part(page, "temperature").fill("0")
    state = state_of(page)
    assert state["source"] == "prior"  # nothing is drawn any more
    np.testing.assert_allclose(state["z"], [0, 0])


def test_test_images_can_be_chosen_by_keyboard(page):
    part(page, "thumbs").get_by_role("button").nth(4).focus()
    page.keyboard.press("Enter")
    first = state_of(page)["image"]
    page.keyboard.press("Enter")
    assert state_of(page)["image"] != first
    wait_for_words(page, "A test image, labelled 4")


def test_the_words_say_what_is_seen(page):
    part(page, "z1").fill("0.4")
    part(page, "z2").fill("-1.2")
    words = part(page, "words")
    wait_for_words(page, "at 0.40, −1.20")
    assert re.search(r"(\d+ of the|all) 15 nearest test images are \ds", words.inner_text())
    assert re.search(r"KL \d+\.\d nats", words.inner_text())
    assert words.get_attribute("aria-live") == "polite"


# Where the model is not in the cache it is trained here, and Keras lets NumPy copy its variables.
@variables_are_copied
def test_the_page_shows_the_pixels_that_keras_computes(page):
    """The model is the one that the build trained or found, with the digits that it found."""
    digits = data.load_digits()
    vae = explorer.rounded(training.load_or_train("dense", digits))
    wait_for_words(page, "labelled")
    label = int(part(page, "words").inner_text().split("labelled ")[1].split(",")[0])
    first = np.flatnonzero(digits.y_test == label)[0]
    state = state_of(page)
    if not np.allclose(state["image"], digits.x_test[first].ravel(), atol=1e-6):
        skip_unless_required("the book was built with other digits than the tests run with")
    mean, log_var = vae.encode(digits.x_test[first : first + 1])
    np.testing.assert_allclose(state["mean"], mean[0], atol=1e-3)
    np.testing.assert_allclose(state["logVar"], log_var[0], atol=1e-3)
    for z in ([-1.5, 0.5], [0, 0], [1, -1]):
        part(page, "z1").fill(str(z[0]))
        part(page, "z2").fill(str(z[1]))
        np.testing.assert_allclose(state_of(page)["logits"], vae.decode([z]).ravel(), atol=1e-3)
        ink = vae.decode_mean([z]).reshape(28, 28)
        drawn = pixels(page, "decoded")
        low = part(page, "decoded").evaluate("c => getComputedStyle(c).color.match(/\\d+/)[0]")
        np.testing.assert_allclose(drawn, 255 - (255 - int(low)) * ink, atol=1.0)


def test_the_plane_follows_the_theme(page):
    light = pixels(page, "decoded").mean()
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    deadline = time.monotonic() + 10
    while pixels(page, "decoded").mean() >= light - 50:
        assert time.monotonic() < deadline, "the decoded image stays light"
        page.wait_for_timeout(50)


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_nothing_jumps_when_it_comes_alive(viewport, opened):
    page = opened(viewport=viewport)
    height = "document.querySelector('.latent-explorer').getBoundingClientRect().height"
    before = page.evaluate(height)
    alive(page)
    page.wait_for_timeout(600)
    assert page.evaluate(height) == pytest.approx(before, abs=1)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_without_javascript_there_is_a_picture_of_the_plane(opened):
    page = opened(java_script_enabled=False)
    image = page.locator(".latent-explorer .still img")
    assert image.is_visible()
    assert len(image.get_attribute("alt").split()) >= 15
    assert "With JavaScript" in page.locator(".latent-explorer figcaption").inner_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("delete window.DecompressionStream", "this browser lacks DecompressionStream."),
        ("CSS.supports = () => false", "this browser lacks light-dark()."),
        ("Object.defineProperty(window, 'LatentExplorer', {})", "cannot run the script"),
    ],
)
def test_a_browser_that_lacks_something_shows_the_picture_and_says_what(
    change, said, browser, site
):
    context = browser.new_context(offline=True)
    context.add_init_script(change)
    page = context.new_page()
    page.goto((site / f"{PAGES[0]}.html").as_uri())
    page.locator(".latent-explorer").scroll_into_view_if_needed()
    page.locator(".latent-explorer figcaption", has_text=said).wait_for()
    assert page.locator(".latent-explorer .still img").is_visible()
    assert not part(page, "plane").is_visible()
    context.close()


def test_on_paper_there_is_the_picture(page):
    page.emulate_media(media="print")
    assert page.locator(".latent-explorer .still img").is_visible()
    assert not part(page, "plane").is_visible()


def test_every_control_is_named_and_shows_its_focus(page):
    controls = page.locator(".latent-explorer").locator("button:visible, input, canvas[tabindex]")
    assert controls.count() >= 15
    for control in controls.all():
        named = control.evaluate("e => e.ariaLabel || e.innerText || e.labels?.[0]?.innerText")
        assert named, control
        control.focus()
        if control.is_enabled():
            assert control.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
