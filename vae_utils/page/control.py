"""What every control on a page is made of: its own files, packed data, a picture that stands in."""

import base64
import hashlib
import io
import json
import zlib
from pathlib import Path

import numpy as np
from IPython.display import HTML
from PIL import Image

HERE = Path(__file__).parent


def control(name, defines, scripts, payload, fills):
    """Return a control that a notebook displays and that needs no kernel once it is on a page.

    Args:
        name: "lab" for the one of `lab.html` and `lab.css`.
        defines: the global object of its last script, whose `start` takes a name and the payload.
        scripts: names of its files of script, each after those that it needs.
        payload: what `start` gets, as `json` writes it.
        fills: texts by the names in braces that they replace in the HTML.
    """
    code, content = joined(scripts), json.dumps(payload).replace("<", "\\u003c")
    panels = read(f"{name}.html")
    own_name = hashlib.sha256((code + content).encode()).hexdigest()[:12]
    for key, text in {"drawing": read("drawing.html"), **fills, "name": own_name}.items():
        panels = panels.replace(f"{{{key}}}", text)
    return HTML(
        f"<style>{read('controls.css')}{read(f'{name}.css')}</style>\n{panels}\n"
        f'<script data-lazy="{name}" data-defines="{defines}">{code}\n'
        f'{defines}.start("{own_name}", {content});</script>'
    )


def joined(scripts):
    """Return files of script as one."""
    return "\n".join(map(read, scripts))


def read(name):
    """Return the text of a file that lies beside this one."""
    return (HERE / name).read_text(encoding="utf-8")


def packed(array, dtype):
    """Return an array as text for `unpack` of networks.js: deflated, then written in base64."""
    deflated = zlib.compress(np.ascontiguousarray(array, dtype).tobytes(), 9)
    return base64.b64encode(deflated).decode()


def picture(webp):
    """Return the bytes of a WebP file as the URL of a picture."""
    return "data:image/webp;base64," + base64.b64encode(webp).decode()


def picture_of(ink):
    """Return ink in [0, 1], `(height, width)`, on white paper, as the URL of a small picture."""
    levels, file = np.rint(255 * (1 - np.clip(ink, 0, 1))).astype(np.uint8), io.BytesIO()
    Image.fromarray(levels).save(file, "webp", quality=60)
    return picture(file.getvalue())
