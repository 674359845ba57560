"""What makes a notebook a living page: numbers for its prose, sliders, the explorer."""

from vae_utils.page.numbers import glue, glued_in
from vae_utils.page.sliders import slider

__all__ = ["glue", "glued_in", "slider"]
