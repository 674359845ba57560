"""Loads Keras without TensorFlow's greeting, which would stand above a page's first figure.

To be imported before Keras. TensorFlow's own switch comes too late for some of its lines, so
standard error is turned away while the libraries load. Set TF_CPP_MIN_LOG_LEVEL=0 to see all.
"""

import os
import sys

if os.environ["TF_CPP_MIN_LOG_LEVEL"] != "0" and "tensorflow" not in sys.modules:
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import keras  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
