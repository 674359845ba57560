"""What chapter 14 builds in the open is what `vae_utils.beyond` offers."""

import keras
import numpy as np
import pytest
from conftest import variables_are_copied
from keras import ops

from vae_utils.beyond import code_prior, codes

CHAPTER = "14_discrete_codes"
pytestmark = variables_are_copied


@pytest.fixture(scope="module")
def chapter(chapter_code):
    cells = ("imports", "seed", "quantizer", "vq-loss", "masked", "network")
    return chapter_code(CHAPTER, *cells)


@pytest.fixture
def random():
    keras.utils.set_random_seed(0)
    return np.random.default_rng(0)


def test_the_quantizer_and_the_loss_are_the_same(chapter, random):
    vqvae = codes.build(grid=2, codes=5, dimensions=3, width=8, beta=0.3, seed=0)
    x = random.integers(0, 2, (20, 28, 28, 1)).astype("float32")
    quantizer = chapter["Quantizer"](5, 3)
    quantizer.codebook.assign(vqvae.codebook)
    z = vqvae.encoder(x)
    chosen, through = quantizer(z)
    outputs = vqvae(x)
    np.testing.assert_array_equal(quantizer.nearest(z), outputs["codes"])
    np.testing.assert_allclose(chosen, outputs["chosen"])
    np.testing.assert_allclose(vqvae.decoder(through), outputs["logits"], rtol=1e-5, atol=1e-6)
    loss = chapter["vq_loss"](x, z, chosen, outputs["logits"], beta=0.3)
    theirs = float(vqvae.compute_loss(x, y_pred=outputs))
    assert float(ops.mean(loss)) == pytest.approx(theirs, rel=1e-6)


def test_the_prior_is_the_same(chapter, random):
    theirs, ours = code_prior.CodePrior(4, 3, width=5), chapter["autoregressive"](4, 3, width=5)
    c = random.integers(0, 3, (30, 4)).astype("int32")
    theirs(c)
    for weight, other in zip(ours.weights, theirs.weights, strict=True):
        weight.assign(other + 0.3 * random.standard_normal(other.shape))
        other.assign(weight)
    np.testing.assert_allclose(ours(c), theirs(c), rtol=1e-5, atol=1e-6)
