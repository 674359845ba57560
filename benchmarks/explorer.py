"""How long one frame of the latent explorer takes in Chromium, and how large it is.

Usage: python benchmarks/explorer.py [--architecture dense] [--epochs 2]

A frame encodes the drawing, decodes the point and draws all panels; a stroke and a drag of a few
hundred moves are played, one frame each, on one core where the system lets us choose. Prints
percentiles of the script's time per frame.
"""

import argparse
import os
import shutil

import numpy as np
from playwright.sync_api import sync_playwright

from vae_utils import data, evaluation, training
from vae_utils.page import explorer

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FRAMES = """
async (name) => {
  const root = document.querySelector(".latent-explorer"), times = [];
  const canvas = root.querySelector(`[data-part=${name}]`), box = canvas.getBoundingClientRect();
  canvas.setPointerCapture = () => {};  // there is no real pointer to capture
  const send = (kind, right, down) => {
    const place = { clientX: box.left + right * box.width, clientY: box.top + down * box.height };
    canvas.dispatchEvent(new PointerEvent(kind, { pointerId: 1, button: 0, ...place }));
  };
  for (let i = 0; i < 400; i++) {
    const angle = i / 20, radius = 0.15 + 0.0005 * i;
    const place = [0.5 + radius * Math.cos(angle), 0.5 + radius * Math.sin(angle)];
    send(i % 100 ? "pointermove" : "pointerdown", ...place);
    if (i % 100 === 99) send("pointerup", ...place);
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    times.push(root.explorer.state.milliseconds);
  }
  return times;
}
"""


def main(architecture, epochs):
    digits = data.load_digits()
    vae = training.load_or_train(architecture, digits, epochs=epochs)
    shown = explorer.show(vae, digits).data
    change = evaluation.elbo(vae, digits.x_test) - evaluation.elbo(
        explorer.rounded(vae), digits.x_test
    )
    print(f"{architecture}, {digits.name}: {len(shown.encode()):,} bytes")
    print(f"rounding changes the negative ELBO by {change:+.3f} nats per image")
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    executable = next(filter(None, map(shutil.which, BROWSERS)))
    if hasattr(os, "sched_setaffinity"):  # the browser inherits it: the target is for one core
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--disable-gpu", *root]
        )
        page = browser.new_page(viewport={"width": 900, "height": 800})
        page.set_content(f"<!doctype html><body>{shown}</body>")
        page.wait_for_selector(".latent-explorer.alive")
        page.wait_for_timeout(500)
        for name, what in (("paper", "drawing"), ("plane", "dragging")):
            times = page.evaluate(FRAMES, name)
            middle, high, most = np.percentile(times, [50, 95, 100])
            print(f"{what}: {middle:.1f} ms median, {high:.1f} ms at 95 %, {most:.1f} ms at most")
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", choices=("dense", "conv", "linear"), default="dense")
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    main(arguments.architecture, arguments.epochs)
