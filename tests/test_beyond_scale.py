"""The scale of Part IV: the same black-and-white images for all, and results that are kept."""

import numpy as np
import pytest
from scipy.stats import sem

from vae_utils import data
from vae_utils.beyond import scale


@pytest.fixture(scope="module")
def digits():
    return data.load_digits("bundled")


def test_a_pixel_is_ink_as_often_as_it_is_grey():
    levels = np.tile(np.uint8([0, 51, 128, 255]), (40_000, 1))
    ink = scale.binarize(levels, seed=0)
    assert set(np.unique(ink)) == {0, 1}
    grey = levels[0] / 255
    error = np.sqrt(grey * (1 - grey) / len(ink))
    assert (abs(ink.mean(0) - grey) <= 4 * error).all()
    correlation = np.corrcoef(ink[:, 1], ink[:, 2])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(len(ink))  # each pixel is drawn by itself


def test_images_of_both_parts_are_the_same_each_time_and_not_each_others(digits):
    test, validation = scale.test_images(digits), scale.validation_images(digits)
    assert np.array_equal(test, scale.test_images(digits))
    assert len(test) == min(scale.TEST_IMAGES, len(digits.x_test))
    assert (test <= (digits.test_levels[: len(test)] > 0)).all()  # no ink on paper
    assert not np.array_equal(test[:100], validation[:100])


def test_an_image_is_drawn_anew_in_each_epoch_and_seen_once_in_each(digits):
    few = digits.train_levels[:40]
    some = data.Digits("some", "", few, digits.y_train[:40], few, None, few, None)
    pipeline = scale.batches(some, batch_size=10, seed=0)
    first, second = (np.concatenate(list(pipeline.as_numpy_iterator())) for _ in range(2))
    assert len(first) == 40
    assert set(np.unique(first)) == {0, 1}
    assert not np.array_equal(first, second)
    ink = few.sum() / 255
    error = np.sqrt(np.sum(few / 255 * (1 - few / 255)))
    assert abs(first.sum() - ink) < 5 * error
    assert abs(second.sum() - ink) < 5 * error


def test_a_number_of_steps_goes_through_the_images_again(digits):
    once = scale.batches(digits, 5_000, seed=0)
    more = scale.batches(digits, 5_000, seed=0, steps=len(once) + 2)
    sizes = [len(batch) for batch in more]
    assert len(more) == len(sizes) == len(once) + 2
    assert sizes == ([len(batch) for batch in once] * 2)[: len(sizes)]


def test_the_error_of_a_mean_is_scipy_s():
    values = np.random.default_rng(0).normal(90, 5, 40)
    assert scale.mean_and_error(values) == pytest.approx((np.mean(values), sem(values)))


def test_what_is_recorded_comes_back_in_order_and_a_second_replaces_the_first(
    digits, tmp_path, monkeypatch
):
    monkeypatch.setenv("VAE_UTILS_CACHE", str(tmp_path))
    count = len(scale.test_images(digits))
    nats = np.random.default_rng(0).normal(90, 5, count)
    scale.record(digits, "VAE", nats, "K = 64", 20)
    scale.record(digits, "two layers", nats - 1, "K = 64", 31.5)
    scale.record(digits, "VAE", nats + 3, "K = 64", 21)
    scale.record(digits, "VAE", nats, "K = 64", 1, seed=100)
    first, second = scale.results(digits)
    assert (first.idea, first.seconds) == ("VAE", 21)
    assert (second.idea, second.bound, second.seconds) == ("two layers", "K = 64", 31.5)
    assert first.mean == pytest.approx(np.mean(nats) + 3)
    assert first.error == pytest.approx(np.std(nats, ddof=1) / np.sqrt(count))
    assert [result.seconds for result in scale.results(digits, seed=100)] == [1]


def test_ideas_of_like_names_are_kept_apart(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_UTILS_CACHE", str(tmp_path))
    nats = np.ones(len(scale.test_images(digits)))
    names = {"flow/mixture", "flow-mixture", "flow mixture", "Fluss, größer"}
    for name in names:
        scale.record(digits, name, nats, "exact", 1)
    assert {result.idea for result in scale.results(digits)} == names


@pytest.mark.parametrize("nats", [[1.0, 2.0], 90.0, "nan"])
def test_a_result_needs_a_finite_number_for_each_image(digits, tmp_path, monkeypatch, nats):
    monkeypatch.setenv("VAE_UTILS_CACHE", str(tmp_path))
    if nats == "nan":
        nats = np.full(len(scale.test_images(digits)), np.nan)
    with pytest.raises(ValueError, match="finite number for each"):
        scale.record(digits, "VAE", nats, "", 1)
    assert scale.results(digits) == []


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword"
)  # Keras reading HDF5
def test_the_first_vae_is_trained_once_and_knows_how_long_it_took(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_UTILS_CACHE", str(tmp_path))
    some = data.Digits(
        "some",
        "",
        digits.train_levels[:400],
        digits.y_train[:400],
        digits.validation_levels,
        digits.y_validation,
        digits.test_levels,
        digits.y_test,
    )
    vae, seconds = scale.load_or_train(some, latent_dim=3, epochs=1)
    again, same = scale.load_or_train(some, latent_dim=3, epochs=1)
    assert same == seconds > 0
    assert all(np.array_equal(a, b) for a, b in zip(vae.get_weights(), again.get_weights()))
