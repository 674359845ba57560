"""Draw the book's mark and its icon: outlines of what the decoder of the bundled digits draws.

The mark is a walk around the prior: each digit stands where it lies in the latent plane. The icon
is the 2 that looks like a z. Usage: python tools/draw_mark.py
"""

from pathlib import Path

import numpy as np
from contourpy import contour_generator

from vae_utils import data, training

STATIC = Path(__file__).parent.parent / "book" / "_static"
ACCENT = "#3d85d1"  # stands out from white and from the dark theme's black alike
RADIUS, STEPS = 1.7, 12
LEVELS = (0.3, 0.5, 0.7)
SIDE = 28


def outline(image, x, y, scale, level):
    """Return SVG path data around the ink of `image` beyond `level`, its centre moved to (x, y)."""
    lines = contour_generator(z=np.pad(image, 1)).lines(level)
    corner = np.array([x, y]) - scale * (SIDE + 1) / 2
    return "".join(
        "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in corner + scale * line[:-1]) + "Z"
        for line in lines
    )


def svg(width, shapes):
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {width}">{shapes}</svg>\n'


def shape(path, fill, opacity=1):
    return f'<path fill="{fill}" fill-opacity="{opacity}" fill-rule="evenodd" d="{path}"/>'


vae = training.load_or_train("dense", data.load_digits("bundled"))

angles = np.linspace(0, 2 * np.pi, STEPS, endpoint=False)
circle = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
places = 100 + 74 * circle * (1, -1)  # an SVG's y points down
digits = vae.decode_mean(RADIUS * circle)[..., 0]
ring = "".join(
    shape(outline(digit, *place, 1.75, level), ACCENT, 0.6)
    for digit, place in zip(digits, places)
    for level in LEVELS
)
(STATIC / "mark.svg").write_text(svg(200, ring))

two = digits[4]
tile = f'<rect width="64" height="64" rx="14" fill="{ACCENT}"/>'
soft = "".join(shape(outline(two, 32, 32, 2.5, level), "white", 0.6) for level in LEVELS)
(STATIC / "icon.svg").write_text(svg(64, tile + soft))
