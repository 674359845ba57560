"""What chapter 11 builds in the open is what `vae_utils.beyond` offers."""

import keras
import numpy as np
import pytest

from vae_utils import models
from vae_utils.beyond import judge, priors

CHAPTER = "11_priors"


@pytest.fixture(scope="module")
def chapter(chapter_code):
    cells = (
        "imports",
        "seed",
        "log-normal",
        "vamp",
        "couplings",
        "flow-forward",
        "vae-with-a-prior",
    )
    return chapter_code(CHAPTER, *cells)


@pytest.fixture
def random():
    keras.utils.set_random_seed(0)
    return np.random.default_rng(0)


def small_vae():
    return models.build_vae("dense", latent_dim=4, image_shape=(4, 4, 1), seed=0)


def shaken(layer, random):
    for weight in layer.weights:
        weight.assign(weight + 0.3 * random.standard_normal(weight.shape))
    return layer


def test_the_vamp_prior_has_the_same_density(chapter, random):
    encoder, images = small_vae().encoder, random.random((6, 4, 4, 1), dtype="float32")
    ours = shaken(chapter["VampPrior"](encoder, images), random)
    theirs = priors.VampPrior(encoder, images)
    theirs.pseudo_inputs.assign(ours.inputs_made_up)
    theirs.logits.assign(ours.weight_logits)
    z = random.standard_normal((20, 4)).astype("float32")
    np.testing.assert_allclose(ours(z), theirs.log_prob(z), rtol=1e-5)
    assert len(ours.trainable_variables) == 2  # none of the encoder's


def test_the_flow_has_the_same_density_and_the_same_way_back(chapter, chapter_code, random):
    ours, theirs = chapter["Flow"](4, couplings=3, width=8), priors.Flow(3, 4, width=8)
    shaken(ours, random)
    theirs_nets = [weight for net in theirs.networks for weight in net.weights]
    our_nets = [weight for net in ours.nets for weight in net.weights]
    for weight, other in zip(theirs_nets, our_nets, strict=True):
        weight.assign(other)
    z = random.standard_normal((20, 4)).astype("float32")
    np.testing.assert_allclose(ours(z), theirs.log_prob(z), rtol=1e-4)
    np.testing.assert_allclose(ours.to_noise(z)[0], theirs.to_noise(z)[0], rtol=1e-4, atol=1e-5)


def test_the_loss_with_a_prior_is_the_same(chapter, random):
    base, prior = small_vae(), priors.Mixture(3, 4, seed=0)
    ours = chapter["VAE"](base.encoder, base.decoder, prior)
    theirs = priors.VAE(base.encoder, base.decoder, prior)
    x = random.integers(0, 2, (30, 4, 4, 1)).astype("float32")
    outputs = base(x)
    losses = [float(vae.compute_loss(x, y_pred=outputs)) for vae in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(float(base.compute_loss(x, y_pred=outputs)), rel=1e-3)


def test_the_log_density_of_the_normal_prior_is_the_same(chapter, random):
    z = random.standard_normal((20, 4)).astype("float32")
    np.testing.assert_allclose(chapter["log_normal"](z), priors.log_normal(z), rtol=1e-5)


def test_the_judges_distance_is_chapter_sixs(chapter_code, random):
    chapter = chapter_code("06_generation", "imports", "frechet", "frechet-of-features")
    a, b = random.normal(size=(2, 300, 5))
    assert judge.frechet(a, 2 * b) == pytest.approx(chapter["frechet"](a, 2 * b))
