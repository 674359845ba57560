"""A Sphinx extension that loads the large scripts of outputs when they come into view.

A `<script data-lazy="name" data-defines="Global">` in the output of a cell moves into a file of its
own, named after its content, so that pages with the same output share it. What stays on the page
adds that file once the element before it is about to be seen, and says so where the file is missing
or defines nothing. It is no module and nothing is fetched: this works from `file://` too. A script
of the type text/plain, which no browser runs, moves as well and is left to its page: it finds the
file's address in `data-src`.
"""

import hashlib
import re
from pathlib import Path

from docutils import nodes

SCRIPT = re.compile(
    r'<script( type="text/plain")? data-lazy="(\w+)" data-defines="(\w+)">(.*?)</script>', re.DOTALL
)
ON_DEMAND = '<script type="text/plain" data-defines="{defines}" data-src="{path}"></script>'
LOADER = """
<script>
  (() => {{
    const place = document.currentScript.previousElementSibling;
    const say = (words) => {{ place.querySelector("figcaption").textContent = words; }};
    const load = () => {{
      const script = document.createElement("script");
      script.src = "{path}";
      script.onerror = () => say("The file of this control is missing.");
      script.onload = () => {{
        if (!window.{defines}) say("This browser cannot run the script of this control.");
      }};
      document.head.append(script);
    }};
    if (!window.IntersectionObserver) return load();
    new IntersectionObserver((entries, observer) => {{
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      load();
    }}, {{ rootMargin: "400px" }}).observe(place);
  }})();
</script>
"""


def setup(app):
    app.connect("doctree-resolved", _move_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _move_scripts(app, doctree, page):
    if app.builder.format != "html":
        return
    root = "../" * page.count("/")

    def move(match):
        on_demand, name, defines, script = match.groups()
        file = f"_static/{name}-{hashlib.sha256(script.encode()).hexdigest()[:12]}.js"
        target = Path(app.outdir) / file
        target.parent.mkdir(exist_ok=True)
        target.write_text(script, encoding="utf-8")
        loader = ON_DEMAND if on_demand else LOADER
        return loader.format(path=root + file, defines=defines).strip()

    for node in doctree.findall(nodes.raw):
        if "data-lazy" in node.astext():
            node.children[:] = [nodes.Text(SCRIPT.sub(move, node.astext()))]
