"""Where a progress bar writes, on a terminal and in a notebook."""

import io
import sys

from IPython import get_ipython
from IPython.display import display


def progress_stream():
    """Return a text stream for a progress bar: in a notebook each line replaces the one before.

    On a terminal it is standard output, where a carriage return does that. In a notebook every
    write to standard output would stay on the page as a line of its own.
    """
    return _ReplacedLine() if hasattr(get_ipython(), "kernel") else sys.stdout


class _ReplacedLine(io.TextIOBase):
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
