"""Refuses arguments with a message that says what is wanted, and what was received."""

import numpy as np


def require(condition, wanted, received):
    """Raise a `ValueError` unless `condition` holds; both texts end up in its message."""
    if not condition:
        raise ValueError(f"{wanted} Received: {received}")


def is_positive_integer(value):
    """Return whether `value` is one of Python's or NumPy's integers above 0; a bool is none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and value > 0
