"""Refuses arguments with a message that says what is wanted, and what was received."""

import numpy as np


def require(condition, wanted, received):
    """Raise a `ValueError` unless `condition` holds; both texts end up in its message."""
    if not condition:
        raise ValueError(f"{wanted} Received: {received}")


def is_positive_integer(value):
    """Return whether `value` is one of Python's or NumPy's integers above 0; a bool is none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and value > 0


def can_be_equal(shape, other):
    """Return whether two shapes are equal as far as both are known; what is not, is None."""
    return len(shape) == len(other) and all(None in (m, n) or m == n for m, n in zip(shape, other))
