"""Controls stay alive on a page without a kernel, and the prose can quote the run's numbers."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import pytest
from IPython.display import HTML
from matplotlib.figure import Figure
from PIL import Image

from vae_utils.page import glue, numbers, slider


@pytest.fixture
def building(monkeypatch):
    monkeypatch.setenv("VAE_BOOK_BUILD", "1")


@pytest.fixture
def live(monkeypatch):
    monkeypatch.delenv("VAE_BOOK_BUILD", raising=False)


def square(value):
    """Draw a figure whose width says which value it is for."""
    figure = Figure(figsize=(1 + float(value), 1))
    figure.subplots().plot([0, 1], [0, float(value)])
    return figure


def describe(value):
    return f"a line of slope {value}"


class Page(HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open, self.parent = {}, {}, [], {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.setdefault(tag, []).append(dict(attributes))
        self.parent[tag] = self.open[-1] if self.open else None
        if tag not in ("img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open:
            self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + text

    @property
    def frames(self):
        return json.loads(re.search(r"const frames = (\[.*\]);", self.texts["script"])[1])


def size(address):
    """Return the width and height in pixels of an image in a data URL."""
    kind, content = address.split(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert image.format == "WEBP"
        return image.size


def built(values=(0, 1, 2), label="slope", describe=describe):
    return Page(slider(square, values, label, describe).data)


# On the built page


@pytest.mark.usefixtures("building")
def test_a_built_page_holds_a_frame_for_every_value():
    page = built([0, 1.5, 3])
    assert [frame["value"] for frame in page.frames] == ["0", "1.5", "3"]
    assert [frame["alt"] for frame in page.frames] == [describe(value) for value in (0, 1.5, 3)]
    for frame, value in zip(page.frames, (0, 1.5, 3)):
        assert size(frame["image"]) == (90 * (1 + value), 90)


def a_picture(value):
    return square(0)


@pytest.mark.parametrize("mode", ["building", "live"])
def test_a_negative_number_has_a_minus_sign_and_a_word_keeps_its_hyphen(mode, request):
    request.getfixturevalue(mode)
    control = slider(a_picture, [-1.5, "non-linear"], "slope", str)
    if mode == "live":
        assert [text for text, _ in control.children[0].options] == ["−1.5", "non-linear"]
    else:
        assert [frame["value"] for frame in Page(control.data).frames] == ["−1.5", "non-linear"]


@pytest.mark.usefixtures("building")
def test_it_shows_the_first_frame_before_any_script_runs():
    page = built()
    (image,), (control,) = page.elements["img"], page.elements["input"]
    assert image["src"] == page.frames[0]["image"]
    assert image["alt"] == describe(0)
    assert control == control | {"type": "range", "min": "0", "max": "2", "value": "0"}
    assert page.texts["output"].strip() == "0"
    assert page.texts["span"] == "slope"


@pytest.mark.usefixtures("building")
def test_the_control_is_labelled_and_says_its_value():
    page = built()
    assert page.open == []  # every element is closed
    assert page.parent["input"] == "label"
    assert "aria-valuetext" in page.texts["script"]


@pytest.mark.usefixtures("building")
def test_it_asks_nothing_of_a_network():
    html = slider(square, [0, 1], "slope", describe)
    assert isinstance(html, HTML)
    assert not re.search(r"https?:|//\w+\.|\bimport\b|fetch\(", html.data)


@pytest.mark.usefixtures("building")
def test_words_cannot_break_out_of_the_page():
    nasty = '</script><script>alert("&amp;")</script><!-- " \' {0} {frames} \u2028 é'
    page = built(label=nasty, describe=lambda value: nasty)
    assert len(page.elements["script"]) == 1
    assert page.texts["span"] == nasty
    assert page.elements["img"][0]["alt"] == nasty
    assert [frame["alt"] for frame in page.frames] == [nasty] * 3
    assert "<" not in re.search(r"const frames = (\[.*\]);", page.texts["script"])[1]


@pytest.mark.usefixtures("building")
def test_two_controls_on_a_page_do_not_disturb_each_other():
    """Not even if they are the same: each script knows its own by its place."""
    page = built()
    assert page.parent["script"] == "div"
    assert "document.currentScript.parentElement" in page.texts["script"]
    assert not re.search(r"document\.(query|get)", page.texts["script"])
    assert not any("id" in attributes for attributes in page.elements["div"])


@pytest.mark.usefixtures("building")
def test_a_browser_that_reloads_the_page_starts_again():
    (control,) = built().elements["input"]
    assert control["autocomplete"] == "off"


@pytest.mark.usefixtures("building")
def test_a_page_that_is_built_again_is_the_same():
    one, two = (slider(square, [0, 1], "slope", describe) for _ in range(2))
    assert one.data == two.data


@pytest.mark.usefixtures("building")
def test_values_may_come_from_a_generator():
    assert len(built(value / 2 for value in range(4)).frames) == 4


# With a kernel


@pytest.mark.usefixtures("live")
def test_with_a_kernel_the_control_draws_when_it_is_moved():
    drawn = []

    def draw(value):
        drawn.append(value)
        return square(value)

    selection, picture = slider(draw, [0, 1, 2], "slope", describe).children
    assert selection.options == (("0", 0), ("1", 1), ("2", 2))
    assert selection.description == "slope"
    (first,) = Page(picture.value).elements["img"]
    selection.value = 2
    (third,) = Page(picture.value).elements["img"]
    assert [first["alt"], third["alt"]] == [describe(0), describe(2)]
    assert [size(first["src"]), size(third["src"])] == [(90, 90), (270, 90)]
    assert drawn == [0, 2]  # nothing is drawn that nobody asked for


@pytest.mark.parametrize("mode", ["building", "live"])
def test_a_slider_without_values_is_refused(mode, request):
    request.getfixturevalue(mode)
    with pytest.raises(ValueError, match="at least one value. Received: values="):
        slider(square, [], "slope", describe)


# Numbers for the prose


def test_a_glued_number_reaches_the_prose(monkeypatch):
    """What `{glue:text}` reads: a text of papermill's kind, under the name in the metadata."""
    shown = []
    monkeypatch.setattr(numbers, "display", lambda data, **options: shown.append((data, options)))
    glue("training-elbo", "143.3")
    ((data, options),) = shown
    assert data == {"application/papermill.record/text/plain": "'143.3'"}
    assert options == {
        "raw": True,
        "metadata": {
            "scrapbook": {
                "name": "training-elbo",
                "mime_prefix": "application/papermill.record/",
            }
        },
    }


def test_it_is_glued_as_myst_nb_itself_does(monkeypatch):
    myst_nb = pytest.importorskip("myst_nb.ext.glue", reason="the book's tools are not installed")
    shown = []

    def show(data, raw, metadata):
        shown.append((set(data), raw, metadata))

    monkeypatch.setattr(numbers, "display", show)
    monkeypatch.setattr(myst_nb, "ipy_display", show)
    glue("training-elbo", "143.3")
    myst_nb.glue("training-elbo", "143.3", display=False)
    assert shown[0] == shown[1]
