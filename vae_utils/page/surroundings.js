"use strict";
/* A control and the page around it: how it starts, the colours there, news of their change. */
globalThis.LatentPage = (() => {
  const rgb = (color, alpha = 1) => `rgba(${color.join()},${alpha})`;
  const channels = (css) => css.match(/[\d.]+/g).slice(0, 3).map(Number);

  /** Paper, ink and accent as the style sheet gives them to a canvas and to a slider. */
  function themeOf(canvas, slider) {
    const style = getComputedStyle(canvas);
    const [paper, ink] = [style.backgroundColor, style.color].map(channels);
    return { paper, ink, accent: channels(getComputedStyle(slider).accentColor), dark: paper[0] < ink[0] };
  }

  /** A colour of the book's figures, lighter where the paper is dark. */
  function shade(hex, { dark }) {
    const color = hex.match(/\w\w/g).map((each) => parseInt(each, 16));
    return dark ? color.map((value) => Math.round(value + 0.5 * (255 - value))) : color;
  }

  /** Call `restyle(root)` whenever colours or the resolution change. What the document holds must not
   *  hold the root, nor may `restyle`, or a notebook would keep the networks of every output that it has replaced. */
  function watch(root, restyle) {
    const reference = new WeakRef(root);
    const gone = new AbortController(), { signal } = gone, themes = new MutationObserver(tell);
    function tell() {
      const still = reference.deref();
      if (still) return restyle(still);
      themes.disconnect();
      gone.abort();
    }
    function watchResolution() {
      const resolution = matchMedia(`(resolution: ${devicePixelRatio}dppx)`);  // left at any change
      resolution.addEventListener("change", () => {
        watchResolution();
        tell();
      }, { once: true, signal });
    }
    for (const element of [document.documentElement, document.body])
      themes.observe(element, { attributeFilter: ["data-theme", "data-jp-theme-light"] });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tell, { signal });
    watchResolution();
  }

  /** Bring every element with data-`kind`="`name`" to life that lives not yet, if the browser has what
   *  it `needs` (whether it does, by name); where that fails, the caption says why. */
  function start(kind, name, needs, liven) {
    const all = { ...needs, DecompressionStream: "DecompressionStream" in window,
                  "light-dark()": CSS.supports("color", "light-dark(red, red)") };
    for (const root of document.querySelectorAll(`[data-${kind}="${name}"]`)) {
      if (root[kind]) continue;
      root[kind] = {};
      const lacking = Object.keys(all).filter((need) => !all[need]);
      const told = lacking.length
        ? Promise.reject(new Error(`this browser lacks ${lacking.join(", ")}`))
        : liven(root);
      told.catch((error) => {
        root.classList.remove("alive");
        root.querySelector("figcaption").textContent = `The ${kind} cannot run here: ${error.message}.`;
      });
    }
  }

  return { rgb, shade, start, themeOf, watch };
})();
