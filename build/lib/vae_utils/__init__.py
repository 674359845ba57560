"""The small module that the chapters share: data, losses, models, training, evaluation, plots.

Every idea in it is built in the open in a chapter first; the tests hold the two together.
Importing the package is cheap: TensorFlow is loaded with `models`, not with `data`.
"""

import os

__version__ = "1.0.0"

# TensorFlow greets on stderr, which would stand above the first figure of every chapter.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
