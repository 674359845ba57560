"""Take the picture that stands for the lab where no script runs: vae_utils/page/lab.webp."""

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from vae_utils.page import lab

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
STATE = "lab=digits&speed=full&until=3000"
PAGE = '<!doctype html><html data-theme="light"><body style="width: 44rem">{}</body></html>'


def main():
    command = next(filter(None, map(shutil.which, BROWSERS)))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "lab.html"
        path.write_text(PAGE.format(lab.show("digits").data), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=command, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{path.as_uri()}#{STATE}")
        page.wait_for_function("document.querySelector('.latent-lab').lab?.state?.step === 0")
        page.locator("[data-part=run]").click()
        page.wait_for_function("document.querySelector('.latent-lab').lab.state.step === 3000")
        page.wait_for_timeout(500)
        left, right = (page.locator(f"[data-part={name}]") for name in ("plane", "decoded"))
        left.scroll_into_view_if_needed()
        first, last = left.bounding_box(), right.bounding_box()
        width = last["x"] + last["width"] - first["x"]
        png = page.screenshot(clip={**first, "width": width})
        browser.close()
    Image.open(io.BytesIO(png)).convert("RGB").save(lab.STILL, "webp", quality=80)


if __name__ == "__main__":
    main()
