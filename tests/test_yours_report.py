"""The report's yardsticks are those of independent computations, its warnings come when due."""

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from sklearn.decomposition import PCA

from vae_utils import data, evaluation, models, training
from vae_utils.yours import report

RANDOM = np.random.default_rng(0)


class History:
    def __init__(self, *curve):
        self.history = {"loss": list(curve), "val_loss": list(curve)}


def images(count, *shape):
    """Return correlated pixels in (0, 1): a random linear map of few numbers, and noise."""
    pixels = np.prod(shape)
    mixed = RANDOM.normal(size=(count, 3)) @ np.random.default_rng(1).normal(size=(3, pixels))
    grey = 0.5 + 0.08 * mixed + 0.02 * RANDOM.normal(size=(count, pixels))
    return np.clip(grey, 0.01, 0.99).reshape(count, *shape).astype("float32")


X_TRAIN, X = images(400, 4, 4, 1), images(150, 4, 4, 1)


@pytest.fixture
def vae():
    keras.utils.set_random_seed(0)
    return models.build_vae("dense", 2, (4, 4, 1))


def test_the_bernoulli_yardsticks_are_sums_over_pixels_and_images():
    found = report.bernoulli_yardsticks(X_TRAIN, X)
    p = (X_TRAIN.sum(axis=0) + 1) / (len(X_TRAIN) + 2)
    by_hand = {
        "even odds": np.mean([-stats.bernoulli(0.5).logpmf(x > 0.5).sum() for x in X]),
        "mean image": np.mean([np.sum(-x * np.log(p) - (1 - x) * np.log(1 - p)) for x in X]),
        "grey floor": np.mean([stats.bernoulli(x).entropy().sum() for x in X.astype("float64")]),
    }
    assert found == pytest.approx(by_hand, rel=1e-6)


def test_the_gaussian_yardsticks_are_scipys_and_scikit_learns():
    found = report.gaussian_yardsticks(X_TRAIN, X, latent_dim=3)
    flat, held_out = (x.reshape(len(x), -1).astype("float64") for x in (X_TRAIN, X))
    independent = -stats.norm(flat.mean(axis=0), flat.std(axis=0)).logpdf(held_out).sum(axis=1)
    assert found["independent pixels"] == pytest.approx(independent.mean())
    # scikit-learn divides by n − 1 where the maximum of the likelihood has n.
    scale = np.sqrt((len(flat) - 1) / len(flat))
    centre = flat.mean(axis=0)
    pca = PCA(3).fit(centre + (flat - centre) * scale)
    assert found["PCA, 3 dimensions"] == pytest.approx(-pca.score(held_out))


def test_pixels_that_never_change_leave_the_yardsticks_finite():
    still = X_TRAIN.copy()
    still[:, 0] = 1.0
    found = report.gaussian_yardsticks(still, still, latent_dim=3)
    assert np.isfinite(list(found.values())).all()


@pytest.mark.parametrize("latent_dim", [16, 20])
def test_pca_needs_fewer_dimensions_than_pixels(latent_dim):
    assert list(report.gaussian_yardsticks(X_TRAIN, X, latent_dim)) == ["independent pixels"]


def test_bits_per_dimension_are_those_of_a_code_for_levels():
    """Uniform over 256 levels: 8 bits; a wide Gaussian: the mass of its levels, by SciPy."""
    assert report.bits_per_dimension(12 * np.log(256), 12, width=1) == pytest.approx(8)
    noise = stats.norm(0.5, 0.1)
    levels = np.arange(256) / 255
    mass = noise.cdf(levels + 0.5 / 255) - noise.cdf(levels - 0.5 / 255)
    exact = -np.sum(mass * np.log2(mass))
    density = -np.sum(mass * noise.logpdf(levels))
    assert report.bits_per_dimension(density, 1) == pytest.approx(exact, abs=1e-3)


def test_the_number_is_the_elbo_and_the_text_says_it(vae):
    found = report.judge(vae, X_TRAIN, X)
    terms = np.sum(evaluation.elbo_terms(vae, X), axis=0)
    assert found.nats == pytest.approx(terms.mean())
    assert found.error == pytest.approx(stats.sem(terms), rel=1e-4)
    assert f"{found.nats:.1f} ± {found.error:.1f} nats" in str(found)
    for name, nats in found.yardsticks.items():
        assert f"{name}: {nats:.1f}" in str(found)
    for warning in found.warnings:
        assert warning in " ".join(str(found).split())


def test_a_figure_has_the_text_and_the_pictures_and_is_pyplots_no_more(vae):
    found = report.judge(vae, X_TRAIN, X, History(9, 8, 7))
    texts = [text.get_text() for text in found.figure.findobj(plt.Text)]
    whole = " ".join(" ".join(texts).split())
    assert all(warning in whole for warning in found.warnings)
    assert {"held out", "reconstructed", "sampled", "this VAE", *found.yardsticks} <= set(texts)
    drawn = found.figure.findobj(plt.matplotlib.image.AxesImage)
    assert len(drawn) == 3 * report.SHOWN
    assert not plt.get_fignums()


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_drawn_as_they_are_and_dark_ink_as_on_paper(channels):
    vae, x = models.build_vae("dense", 2, (4, 4, channels)), images(20, 4, 4, channels)
    for ink, expected in (("light", x[0]), ("dark", 1 - x[0])):
        figure = report.judge(vae, x, x, ink=ink).figure
        first = figure.findobj(plt.matplotlib.image.AxesImage)[0]
        shown = first.get_array() if channels == 3 else first.to_rgba(first.get_array())[..., :1]
        np.testing.assert_allclose(shown, expected, atol=1 / 200)


def test_levels_floats_and_streams_give_one_report(vae):
    levels, held_out = (np.rint(255 * x).astype(np.uint8) for x in (X_TRAIN, X))
    floats = data.to_unit_interval(levels), data.to_unit_interval(held_out)
    streams = [tf.data.Dataset.from_tensor_slices(x).batch(64) for x in floats]
    texts = {str(report.judge(vae, *given)) for given in ((levels, held_out), floats, streams)}
    assert len(texts) == 1


def test_a_likelihood_of_ones_own_is_judged_by_what_one_brings():
    class Own(models.VAE):
        def reconstruction_term(self, x, logits):
            return tf.reduce_sum(tf.square(x - tf.sigmoid(logits)), axis=(1, 2, 3))

    base = models.build_vae("dense", 2, (4, 4, 1))
    vae = Own(base.encoder, base.decoder)
    found = report.judge(vae, X_TRAIN, X, yardsticks={"a rival": -100.0})
    assert found.yardsticks == {"a rival": -100.0}
    assert any("No better than “a rival”" in warning for warning in found.warnings)
    assert "bits per dimension" in str(found)


# Warnings


def warned(word, *args, **how):
    """Return whether a report has a warning with this word."""
    return any(word in warning for warning in report.judge(*args, **how).warnings)


def test_copies_among_the_held_out_are_found(vae):
    leaky = np.concatenate([X, X_TRAIN[:7]])
    assert warned("7 of 157 held-out images are training images", vae, X_TRAIN, leaky)
    assert not warned("are training images", vae, X_TRAIN, X)


def test_few_images_are_said_to_be_few(vae):
    assert warned("Only 1 held-out", vae, X_TRAIN, X[:1])
    assert not warned("Only", vae, X_TRAIN, X)


def test_images_that_are_all_equal_are_nothing_to_learn_from(vae):
    assert warned("nothing to learn", vae, np.repeat(X[:1], 5, axis=0), X)


@pytest.mark.parametrize(
    ("word", "low", "high"),
    [
        ('ink="dark"', 0.93, 1.0),
        ("12-bit", 0.0, 0.06),
        ("are grey", 0.2, 0.7),
        (None, 0.0, 0.08),
    ],
)
def test_the_pixels_are_looked_at(vae, word, low, high):
    x = RANDOM.uniform(low, high, X.shape).astype("float32")
    if word is None:
        x[:, :1] = 0.95
    words = {'ink="dark"', "12-bit", "are grey"}
    found = {w for w in words if warned(w, vae, x, x)}
    assert found == ({word} if word else set())


def test_pixels_that_never_change_are_named_for_a_density():
    vae = models.build_vae("linear", 2, (4, 4, 1))
    still = X_TRAIN.copy()
    still[:, 0] = 0.0
    assert warned("25% of the pixels never change", vae, still, still[:150])
    assert not warned("never change", vae, X_TRAIN, X)


@pytest.mark.parametrize(
    ("curve", "word"),
    [
        ((100, 50, 30, 20, 40, 60, 80), "risen since epoch 4 of 7"),
        ((100, 90, 80, 70, 60, 50, 40), "still falls"),
        ((100, 50, 30, 25, 24, 24, 24), None),
        ((-100, -300, -400, -420, -423, -424, -424), None),
    ],
)
def test_the_curve_is_read(vae, curve, word):
    found = report.judge(vae, X_TRAIN, X, History(*curve)).warnings
    assert [w for w in found if "validation loss" in w] == [w for w in found if word and word in w]
    assert (word is None) or any(word in warning for warning in found)


def test_a_collapsed_model_is_called_so(vae):
    for head in vae.encoder.layers[-2:]:
        head.kernel.assign(0 * head.kernel)
    assert warned("Posterior collapse", vae, X_TRAIN, X)


def test_an_untrained_model_is_worse_than_the_mean_image_and_a_trained_one_is_not(digits):
    keras.utils.set_random_seed(0)
    vae = models.build_vae("dense", 2)
    assert warned("No better than “mean image”", vae, digits.train_levels, digits.x_test)
    history = training.train(vae, digits, 30, batch_size=20, progress=False)
    found = report.judge(vae, digits.train_levels, digits.x_test, history)
    ladder = found.yardsticks
    assert ladder["grey floor"] < found.nats < ladder["mean image"] < ladder["even odds"]
    assert not any("No better" in warning for warning in found.warnings)


def test_what_cannot_be_judged_is_refused(vae):
    with pytest.raises(ValueError, match="Received"):
        report.judge(vae, X_TRAIN, X[:0])
    with pytest.raises(ValueError, match="Received: an empty data set"):
        report.judge(vae, X_TRAIN, tf.data.Dataset.from_tensor_slices(X).batch(9).take(0))
    with pytest.raises(ValueError, match="Received: dtype float32, values"):
        report.judge(vae, 255 * X_TRAIN, X)
    with pytest.raises(ValueError, match="ink must be one of.*Received"):
        report.judge(vae, X_TRAIN, X, ink="blue")
