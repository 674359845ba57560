"""The networks and the sampling layer of chapter 3 are those of `vae_utils.models`."""

import keras
import numpy as np
import pytest

from vae_utils import models

CHAPTER = "03_architecture"
PARTS = ("encoder", "decoder")


@pytest.fixture(scope="module")
def chapter(chapter_code):
    cells = [f"build-{name}{part}" for name in ("", "dense-", "linear-") for part in PARTS]
    return chapter_code(CHAPTER, "imports", *cells, "sampling-layer", "saved-sampling")


def settings(network):
    """Return kind and settings of each layer; names are free."""
    return [
        (type(layer), layer.get_config() | {"name": None, "dtype": layer.dtype_policy.name})
        for layer in network.layers
    ]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", ["conv", "dense", "linear"])
def test_networks_are_the_same_layer_by_layer(chapter, name, part):
    ours = chapter[part if name == "conv" else f"{name}_{part}"]
    theirs = getattr(models.build_vae(name, latent_dim=2), part)
    assert settings(ours) == settings(theirs)
    theirs.set_weights(ours.get_weights())
    inputs = np.random.default_rng(0).uniform(size=(5, *ours.input_shape[1:])).astype("float32")
    for a, b in zip(keras.tree.flatten(ours(inputs)), keras.tree.flatten(theirs(inputs))):
        np.testing.assert_array_equal(a, b)


def test_the_likelihoods_are_the_ones_that_the_race_names():
    kinds = {name: models.build_vae(name).likelihood for name in ("conv", "dense", "linear")}
    assert kinds == {"conv": "bernoulli", "dense": "bernoulli", "linear": "gaussian"}


@pytest.mark.parametrize("name", ["Sampling", "SavedSampling"])
def test_sampling_draws_the_same_noise(chapter, name):
    mean, log_var = np.random.default_rng(0).normal(size=(2, 100, 3)).astype("float32")
    ours, theirs = chapter[name](seed=4), models.Sampling(seed=4)
    for _ in range(2):  # the second draw follows from the state that the first one left
        np.testing.assert_array_equal(ours((mean, log_var)), theirs((mean, log_var)))


def test_saved_sampling_has_the_same_settings(chapter):
    ours, theirs = chapter["SavedSampling"](seed=4), models.Sampling(seed=4)
    assert ours.get_config() | {"name": None} == theirs.get_config() | {"name": None}
