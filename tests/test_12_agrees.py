"""What chapter 12 builds in the open is what `vae_utils.beyond` offers."""

import keras
import numpy as np
import pytest
from keras import ops

from vae_utils.beyond import hierarchy

CHAPTER = "12_several_layers"


@pytest.fixture(scope="module")
def chapter(chapter_code):
    cells = ("imports", "product", "standard", "bottom-up", "ladder", "rates", "rates-closed")
    return chapter_code(CHAPTER, *cells)


@pytest.fixture
def random():
    keras.utils.set_random_seed(0)
    return np.random.default_rng(0)


def the_mean(gaussian):
    """Draws without noise are the same in whatever order."""
    return ops.convert_to_tensor(gaussian[0]) + 0.1


def test_the_product_is_the_same(chapter, random):
    first, second = random.normal(size=(2, 2, 5)).astype("float32")
    for ours, theirs in zip(
        chapter["product"](first, second), hierarchy.product(first, second), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "by_ladder"), [("bottom_up", False), ("ladder", True)])
def test_inference_and_its_rates_are_the_same(chapter, random, name, by_ladder):
    vae = hierarchy.build((5, 4, 3), by_ladder, width=8)
    for weight in vae.weights[:-1]:
        if "kernel" in weight.path or "bias" in weight.path:
            weight.assign(weight + 0.1 * random.standard_normal(weight.shape))
    message = random.normal(size=(2, 7, 5)).astype("float32")
    theirs = vae.infer(tuple(message), the_mean)
    ours = chapter[name](tuple(message), vae.ups, vae.downs, the_mean)
    rates = vae.rates(theirs)
    for number, (mine, layer) in enumerate(zip(ours, theirs, strict=True)):
        np.testing.assert_allclose(mine[0], layer.z, rtol=1e-4, atol=1e-5)
        closed = by_ladder or number == 2
        rate = chapter["closed_kl" if closed else "log_ratio"](*mine)
        np.testing.assert_allclose(rate, rates[number], rtol=1e-3, atol=1e-5)


def test_the_bound_is_the_same_but_for_the_draws(chapter_code, random):
    names = ("imports", "seed", "draws", "bound", "standard-prior")
    page = chapter_code(CHAPTER, *names)
    vae = hierarchy.build((4, 2), width=8)
    x = random.integers(0, 2, (100, 28, 28, 1)).astype("float32")
    ours = page["bound"](vae, x, page["standard"])
    gap = ours + hierarchy.log_likelihood(vae, x, page["K"], seed=1)
    assert abs(gap.mean()) < 5 * gap.std() / np.sqrt(len(gap))
    assert gap.std() < 0.5 * ours.std()
