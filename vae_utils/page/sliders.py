"""A slider over figures that stays alive on a page without a kernel."""

import base64
import html
import io
import json
import os
from numbers import Real
from pathlib import Path
from string import Template

from IPython.display import HTML

from vae_utils.checks import require

WHOLE_LABEL = {"description_width": "initial"}
PAGE = Template(Path(__file__).with_name("slider.html").read_text(encoding="utf-8"))


def slider(draw, values, label, describe):
    """Show one figure for each value, behind a slider: computed live, or drawn once for a page.

    With a kernel at hand it is an ipywidgets control that calls `draw` at each move. While the
    book is built (the environment variable `VAE_BOOK_BUILD` is set) every frame is drawn at once
    and played by the page alone, without a kernel and without a network.

    Args:
        draw: function of a value, returns a Matplotlib `Figure`.
        values: what the slider runs through, at least one value.
        label: what the slider moves, in words.
        describe: function of a value, returns what the figure shows, for those who can't see it.

    Returns:
        An object that a notebook displays.

    Raises:
        ValueError: if there are no values.
    """
    values = list(values)
    require(values, "A slider needs at least one value.", f"{values=}")
    if "VAE_BOOK_BUILD" not in os.environ:
        return _live_slider(draw, values, label, describe)
    frames = [
        {"value": _text(value), "alt": describe(value), "image": _as_data_url(draw(value))}
        for value in values
    ]
    script = json.dumps(frames).replace("<", "\\u003c")  # nothing can end the script early
    return HTML(
        PAGE.substitute(
            first=frames[0]["image"],
            alt=html.escape(frames[0]["alt"]),
            value=html.escape(frames[0]["value"]),
            label=html.escape(label),
            last=len(frames) - 1,
            frames=script,
        )
    )


def _live_slider(draw, values, label, describe):
    """The same with ipywidgets; without its `Output`, on which nbclient can wait for ever."""
    import ipywidgets

    options = [(_text(value), value) for value in values]
    control = ipywidgets.SelectionSlider(options=options, description=label, style=WHOLE_LABEL)
    picture = ipywidgets.HTML()

    def show(_=None):
        alt = html.escape(describe(control.value))
        source = _as_data_url(draw(control.value))
        picture.value = f'<img src="{source}" alt="{alt}" style="max-width: 100%">'

    control.observe(show, names="value")
    show()
    return ipywidgets.VBox([control, picture])


def _text(value):
    """Return a value as text; a number with the sign that is as wide as a plus."""
    return str(value).replace("-", "−", 1) if isinstance(value, Real) else str(value)


def _as_data_url(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=90, pil_kwargs={"quality": 80})
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
