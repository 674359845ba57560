"""The tests that chapter 9 gives the reader agree with closed forms and find each mistake."""

import keras
import numpy as np
import pytest

from vae_utils import losses, models

BENCH = ("imports", "seed", "bench", "price", "test-distortion", "test-rate", "test-noise")
CLINIC = ("test-books", "test-sums", "test-floor", "fails", "examine", "steps", "patient", "admit")


@pytest.fixture(scope="module")
def chapter(chapter_code):
    return chapter_code("09_corrections", *BENCH, *CLINIC)


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    ink = random.random((400, 1, 1, 1)) * random.random((400, 28, 28, 1))
    return (ink / ink.max()).astype("float32")


def failed(chapter, model, images):
    model.compile(run_eagerly=True)
    return [test.__name__ for test in chapter["FRESH"] if chapter["fails"](test, model, images)]


def test_quadrature_gives_the_closed_form_of_the_kl(chapter):
    mean, log_var = np.array([[0.3, -1.2]]), np.array([[-2.0, 0.7]])
    exact = chapter["exact_kl"](mean[0], log_var[0])
    assert exact == pytest.approx(float(losses.gaussian_kl(mean, log_var)[0]), rel=1e-6)


@pytest.mark.parametrize("architecture", ["dense", "linear"])
def test_the_price_of_a_pixel_is_that_of_the_module(chapter, images, architecture):
    vae = models.build_vae(architecture)
    x = images[:5]
    output = np.full_like(x, 0.7)
    expected = vae.reconstruction_term(x, output)
    price = chapter["price"](vae, x, output).sum(axis=(1, 2, 3))
    assert price == pytest.approx(np.asarray(expected), rel=1e-5)


def test_the_bench_computes_the_loss_of_known_networks(chapter, images):
    vae = models.build_vae("dense")
    vae.compile(run_eagerly=True)
    mean, log_var = np.array([0.5, -1.0]), np.array([0.2, -0.4])
    loss, z = chapter["bench"](vae, images, mean, log_var, 0.3)
    rate = losses.gaussian_kl(mean[np.newaxis], log_var[np.newaxis])
    distortion = losses.bernoulli_nll(images, np.full_like(images, 0.3))
    assert loss == pytest.approx(float(rate[0]) + np.mean(distortion), rel=1e-5)
    assert z.shape == (len(images), 2)


@pytest.mark.parametrize("architecture", ["conv", "dense", "linear"])
def test_the_models_of_the_module_pass(chapter, images, architecture):
    assert failed(chapter, models.build_vae(architecture), images) == []


def test_the_healthy_patient_passes_and_has_the_loss_of_the_module(chapter, images):
    patient = chapter["admit"]()
    assert failed(chapter, patient, images) == []
    keras.utils.set_random_seed(0)
    ours = patient.compute_loss(images, None, patient(images), None)
    twin = models.VAE(patient.encoder, patient.decoder)
    keras.utils.set_random_seed(0)
    theirs = twin.compute_loss(x=images, y_pred=twin(images))
    assert float(ours) == pytest.approx(float(theirs), abs=1.0)  # other noise


@pytest.mark.parametrize(
    ("step", "mistake", "found"),
    [
        ("kl", lambda patient, mean, log_var: -losses.gaussian_kl(mean, log_var), ["rate"]),
        ("kl", lambda patient, mean, log_var: losses.gaussian_kl(mean, log_var) / 2, ["rate"]),
        ("draw", lambda patient, mean, log_var, training: mean, ["noise"]),
        ("reconstruction", lambda patient, x, a: losses.bernoulli_nll(x, a) / 784, ["distortion"]),
        ("total", lambda patient, r, kl: keras.ops.mean(r + kl), ["books"]),
    ],
)
def test_each_mistake_fails_its_test(chapter, images, step, mistake, found):
    sick = type("Sick", (chapter["Patient"],), {step: mistake})
    assert failed(chapter, chapter["admit"](sick), images) == found


def test_pixels_are_found_that_were_scaled_twice_or_not_at_all(chapter, images):
    for wrong in (255 * images, images / 255):
        assert chapter["fails"](chapter["pixels"], None, wrong)
    assert not chapter["fails"](chapter["pixels"], None, images)
