"""What chapter 7 builds agrees with vae_utils and with NumPy."""

import keras
import numpy as np
import pytest

from vae_utils import models


@pytest.fixture(scope="module")
def chapter(chapter_code):
    """Return what the defining cells of the chapter define."""
    return chapter_code("07_pros_and_cons", "imports", "networks", "grace")


def loss_of(vae, x):
    vae.compile("sgd")
    vae.optimizer.build(vae.trainable_variables)
    return vae.evaluate(x, batch_size=len(x), verbose=0, return_dict=True)["loss"]


def twin(vae, kind, **dials):
    """Return another model with the same networks and the same noise."""
    model = kind(vae.encoder, vae.decoder, seed=3)
    for name, value in dials.items():
        setattr(model, name, value)
    return model


def rates(vae, x):
    mean, log_var = vae.encode(x)
    return np.mean(0.5 * (mean**2 + np.exp(log_var) - 1 - log_var), axis=0)


@pytest.fixture
def vae(chapter):
    keras.utils.set_random_seed(0)
    return models.VAE(*chapter["networks"](4, hidden=8), seed=3)


def test_without_its_dials_it_has_the_loss_of_the_module(chapter, digits, vae):
    x = digits.x_test
    assert loss_of(twin(vae, chapter["Grace"]), x) == pytest.approx(loss_of(vae, x), rel=1e-5)


def test_free_bits_charge_each_unit_for_its_first_nats(chapter, digits, vae):
    x, free = digits.x_test, 0.7
    more = np.maximum(rates(vae, x), free) - rates(vae, x)
    assert more.sum() > 0.1
    assert loss_of(twin(vae, chapter["Grace"], free_nats=free), x) == pytest.approx(
        loss_of(vae, x) + more.sum(), rel=1e-5
    )


def test_at_the_first_step_of_annealing_the_rate_is_nearly_free(chapter, digits, vae):
    x, steps = digits.x_test, 3
    saved = rates(vae, x).sum() * steps / (steps + 1)
    assert loss_of(twin(vae, chapter["Grace"], warm_up_steps=steps), x) == pytest.approx(
        loss_of(vae, x) - saved, rel=1e-5
    )
