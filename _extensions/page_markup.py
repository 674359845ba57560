"""A Sphinx extension that makes pages light, still while they load, and clear to all.

Figures become WebP, half the size or less, and say their width and height, so that the text below
does not move when they arrive. Equations in a line say about how wide they will be when typeset,
and keep the mark behind them on their line. References are items of their list: the role that
docutils gives them is deprecated.
"""

import html
import io
import re
from pathlib import Path

from PIL import Image

EQUATION = re.compile(r'([(“]*)<span class="math ([^"]*)">\\\(([^<]*)\\\)</span>([,.;:?!)”’]*)')
EMS, EMS_PER_SYMBOL = 0.15, 0.74  # fitted to the book's equations: off by 0.3 em in the median
FIGURE = re.compile(r'(<img\b[^>]*\bsrc="[^"]*_images/)([^"/]+)\.png"')


def setup(app):
    app.connect("html-page-context", _mend_page)
    app.connect("build-finished", _shrink_figures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _mend_page(app, page, template, context, doctree):
    sources = {
        Path(name).stem: Path(app.srcdir) / path for path, name in app.builder.images.items()
    }

    def sized(match):
        with Image.open(sources[match[2]]) as image:
            width, height = image.size
        return f'{match[1]}{match[2]}.webp" width="{width}" height="{height}"'

    body = FIGURE.sub(sized, context.get("body", ""))
    body = EQUATION.sub(_settled, body)
    context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')


def _settled(match):
    before, classes, tex, after = match.groups()
    symbols = re.sub(r"\\[a-zA-Z]+", "x", html.unescape(tex))
    width = EMS + EMS_PER_SYMBOL * len(re.sub(r"[\\{}\s^_,;!]", "", symbols))
    equation = f'<span style="--width: {width:.1f}em" class="math {classes}">\\({tex}\\)</span>'
    if not (before or after):
        return equation
    return f'<span class="on-one-line">{before}{equation}{after}</span>'


def _shrink_figures(app, error):
    if error is not None or app.builder.format != "html":
        return
    for path in Path(app.outdir, "_images").glob("*.png"):
        with Image.open(path) as image:
            path.with_suffix(".webp").write_bytes(_as_webp(image))
        path.unlink()


def _as_webp(image):
    """Return the smaller one of two files: lossless for lines, lossy for clouds of points."""
    files = []
    for options in ({"lossless": True}, {"quality": 90}):
        buffer = io.BytesIO()
        image.save(buffer, "webp", **options)
        files.append(buffer.getvalue())
    return min(files, key=len)
