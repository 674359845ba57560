"""Numbers that a notebook hands to its prose."""

from IPython.display import display

RECORD = "application/papermill.record/"


def glue(name, value):
    """Give the prose a number to quote: `` {glue:text}`name` `` shows `value` on the built page.

    Args:
        name: a name of its own on this page, with the chapter's word first.
        value: the text as it is to be read, "143.3" for one.
    """
    glue.values[name] = value
    record = {f"{RECORD}text/plain": repr(value)}
    display(record, raw=True, metadata={"scrapbook": {"name": name, "mime_prefix": RECORD}})


glue.values = {}  # what the notebook has glued so far, for prose that a kernel fills in


def glued_in(executed):
    """Return what an executed notebook has glued: a dictionary of texts by name."""
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    return {
        output.metadata["scrapbook"]["name"]: output.data[f"{RECORD}text/plain"][1:-1]
        for output in outputs
        if "scrapbook" in output.get("metadata", {})
    }
