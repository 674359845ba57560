"""What makes a notebook a page: numbers to quote, controls that stay alive, a line of progress."""

import base64
import gc
import html
import io
import json
import os
import sys
from pathlib import Path
from string import Template

from IPython import get_ipython
from IPython.display import HTML, display

from vae_utils.checks import require

RECORD = "application/papermill.record/"
WHOLE_LABEL = {"description_width": "initial"}
PAGE = Template(Path(__file__).with_name("slider.html").read_text(encoding="utf-8"))


glued = {}  # what the notebook has glued so far, for prose that a kernel fills in


def glue(name, value):
    """Give the prose a number to quote: `` {glue:text}`name` `` shows `value` on the built page.

    Args:
        name: a name that no other notebook uses.
        value: the text as it is to be read, "143.3" for one.
    """
    glued[name] = value
    record = {f"{RECORD}text/plain": repr(value)}
    display(record, raw=True, metadata={"scrapbook": {"name": name, "mime_prefix": RECORD}})


def glued_in(executed):
    """Return what an executed notebook has glued: a dictionary of texts by name."""
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    return {
        output.metadata["scrapbook"]["name"]: output.data[f"{RECORD}text/plain"][1:-1]
        for output in outputs
        if "scrapbook" in output.get("metadata", {})
    }


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
        {"value": str(value), "alt": describe(value), "image": _as_data_url(draw(value))}
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

    control = ipywidgets.SelectionSlider(options=values, description=label, style=WHOLE_LABEL)
    picture = ipywidgets.HTML()

    def show(_=None):
        alt = html.escape(describe(control.value))
        source = _as_data_url(draw(control.value))
        picture.value = f'<img src="{source}" alt="{alt}" style="max-width: 100%">'

    control.observe(show, names="value")
    show()
    return ipywidgets.VBox([control, picture])


def release_trained_models():
    """Give back the memory of trained models that nothing refers to any more.

    Call it once before the first training, then after each `del vae`. It collects Python's cycles
    and, from the first call on, spares Keras's optimizers a sum over replicas where there is one
    replica: what that leaves in TensorFlow's gradient registry would keep graph, weights and
    optimizer of every trained model for good (tensorflow/tensorflow#97697).
    """
    import keras

    optimizer_class = keras.optimizers.Optimizer
    sum_over_replicas = optimizer_class._all_reduce_sum_gradients

    def sum_if_replicated(optimizer, grads_and_vars):
        if optimizer._distribution_strategy.num_replicas_in_sync == 1:
            return grads_and_vars
        return sum_over_replicas(optimizer, grads_and_vars)

    if sum_over_replicas.__name__ != sum_if_replicated.__name__:
        optimizer_class._all_reduce_sum_gradients = sum_if_replicated
    gc.collect()


def progress_stream():
    """Return a text stream for a progress bar: in a notebook each line replaces the one before.

    On a terminal it is standard output, where a carriage return does that. In a notebook every
    write to standard output would stay on the page as a line of its own.
    """
    return _ReplacedLine() if hasattr(get_ipython(), "kernel") else sys.stdout


class _ReplacedLine:
    encoding = "utf-8"  # so that a progress bar dares to draw blocks
    handle = None

    def write(self, text):
        line = text.rsplit("\r", 1)[-1].rstrip()
        if not line:
            return
        if self.handle is None:
            self.handle = display({"text/plain": line}, raw=True, display_id=True)
        else:
            self.handle.update({"text/plain": line}, raw=True)

    def flush(self):
        pass


def _as_data_url(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=90, pil_kwargs={"quality": 80})
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
