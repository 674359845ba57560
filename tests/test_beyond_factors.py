"""Sprites and measures against ideal codes, the total correlation against grid and closed form."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats
from sklearn.metrics import mutual_info_score

from vae_utils import losses
from vae_utils.beyond import factors

SMALL = (3, 4, 2)


@pytest.fixture
def random():
    keras.utils.set_random_seed(0)
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def sprites():
    return factors.sprites()


def every(counts):
    return np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), -1).reshape(
        -1, len(counts)
    )


def test_no_two_sprites_are_alike_and_each_factor_shows(sprites):
    images, values = sprites
    assert len({image.tobytes() for image in images}) == len(images) == 6144
    assert set(np.unique(images)) == {0, 1}
    np.testing.assert_array_equal(values, every(factors.COUNTS))
    table = images.reshape(*factors.COUNTS, -1)
    ink = images.sum(axis=(1, 2, 3)).reshape(factors.COUNTS)
    assert (np.diff(ink.mean(axis=(0, 1, 2, 4))) > 0).all()  # size
    rows, columns = np.mgrid[: factors.SIDE, : factors.SIDE]
    across = (table * columns.ravel()).sum(-1) / ink
    up = -(table * rows.ravel()).sum(-1) / ink
    np.testing.assert_allclose(np.diff(across, axis=1), 1, atol=1e-4)  # x: a pixel a step
    np.testing.assert_allclose(np.diff(up, axis=2), 1, atol=1e-4)


def test_standardized_factors_have_mean_zero_and_variance_one(sprites):
    scaled = factors.standardized(sprites[1])
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.var(axis=0), 1, rtol=1e-4)


def test_information_is_what_scikit_learn_counts_where_bins_are_sure(random):
    values = every(SMALL)
    code = np.stack([values[:, 1], values[:, 0] + values[:, 2], 0 * values[:, 0]], 1)
    found = factors.information(code - 1.49, np.full(code.shape, -14.0), SMALL)
    for j, k in np.ndindex(3, 3):
        wanted = mutual_info_score(code[:, j], values[:, k]) / np.log(SMALL[k])
        assert found[j, k] == pytest.approx(wanted, abs=1e-6)


def test_the_gap_and_the_metric_are_one_for_the_factors_and_none_for_noise(random):
    values = every(SMALL) - 1.0
    sure = np.full(values.shape, -9.0)
    assert factors.gap(factors.information(values, sure, SMALL)) == pytest.approx(1, abs=1e-6)
    assert factors.beta_vae_metric(values, 0, SMALL) == 1
    twice = np.repeat(values, 2, axis=1)
    assert factors.gap(factors.information(twice, np.full(twice.shape, -9.0), SMALL)) == 0
    assert factors.gap(factors.information(values, np.full(values.shape, 14.0), SMALL)) < 1e-3
    shuffled = random.permutation(every(factors.COUNTS)).astype(float)
    assert factors.beta_vae_metric(shuffled, 0) == pytest.approx(0.2, abs=0.12)


def test_the_total_correlation_is_that_of_the_mixture_on_a_grid(random):
    mean = np.array([[-1, -0.8], [0, 0.2], [0.4, 0], [1, 1.2]])
    sd = np.array([[0.5, 0.4], [0.3, 0.6], [0.7, 0.3], [0.4, 0.5]])
    axis, step = np.linspace(-6, 6, 601, retstep=True)
    across, up = (stats.norm.pdf(axis[:, None], mean[:, j], sd[:, j]) for j in (0, 1))
    q = across @ up.T / 4
    exact = np.sum(q * np.log(q / np.outer(across.mean(1), up.mean(1)) + 1e-300)) * step**2
    z = mean[:, None] + sd[:, None] * random.standard_normal((4, 20_000, 2))
    parts = np.broadcast_arrays(z, mean[:, None], 2 * np.log(sd)[:, None])
    draws = factors.total_correlation(*(ops.cast(part, "float32") for part in parts))
    draws = np.asarray(draws, float).mean(axis=0)
    assert draws.mean() == pytest.approx(exact, abs=5 * draws.std() / np.sqrt(20_000))


def test_the_total_correlation_of_correlated_codes_is_the_gaussians(random):
    root, sd = np.array([[1, 0], [0.8, 0.6]]), 0.5
    mean = (random.standard_normal((1500, 1, 2)) @ root.T).astype("float32")
    log_var = np.full(mean.shape, 2 * np.log(sd), "float32")
    z = mean + sd * random.standard_normal(mean.shape).astype("float32")
    met = float(ops.mean(factors.total_correlation(z, mean, log_var)))
    covariance = root @ root.T + sd**2 * np.eye(2)
    exact = 0.5 * np.log(np.prod(np.diag(covariance)) / np.linalg.det(covariance))
    assert met == pytest.approx(exact, abs=0.05)


def batch_of(random, size, count):
    x = random.integers(0, 2, (size, count, 9)).astype("float32")
    return x, np.zeros((size, count, 2), "float32"), np.zeros((size, count), "float32")


def test_a_crowds_terms_are_the_plain_vaes_and_its_loss_adds_them_up(random):
    crowd = factors.Crowd([1, 2, 1], [1, 1, 3], [0, 0, 1], size=9, latent_dim=3, width=8, seed=0)
    x, v, shown = batch_of(random, 16, 3)
    outputs = crowd((x, v, shown))
    mean, log_var = np.split(np.asarray(crowd.encoder(x)), 2, axis=-1)
    np.testing.assert_allclose(outputs["kl"], losses.gaussian_kl(mean, log_var), rtol=1e-4)
    assert (np.asarray(outputs["tc"])[:, :2] == 0).all()
    loss = float(crowd.compute_loss((x, v, shown), y_pred=outputs))
    nll, kl, tc = (np.asarray(outputs[t.name]).mean(axis=0) for t in crowd.trackers)
    assert loss == pytest.approx(np.sum(nll + [1, 2, 1] * kl + [0, 0, 2] * tc), rel=1e-5)


def test_told_factors_move_the_prior_of_those_who_listen(random):
    crowd = factors.Crowd([1, 1], [1, 1], [0, 1], size=9, latent_dim=3, width=8, seed=0)
    x, v, shown = batch_of(random, 6, 2)
    v += random.standard_normal(v.shape).astype("float32")
    shown[:3] = 1
    kl = np.asarray(crowd((x, v, shown))["kl"])
    mean, log_var = (np.asarray(t, float) for t in np.split(np.asarray(crowd.encoder(x)), 2, -1))
    centre, spread = np.zeros(mean.shape), np.ones(mean.shape)
    centre[:3, 1, :2], spread[:3, 1, :2] = v[:3, 1], 0.01
    wanted = np.log(spread) - log_var + (np.exp(log_var) + (mean - centre) ** 2) / spread - 1
    np.testing.assert_allclose(kl, 0.5 * wanted.sum(axis=-1), rtol=1e-4)


def test_models_of_a_crowd_do_not_see_each_other(random, sprites):
    images, values = sprites[0].reshape(-1, 400), sprites[1]
    crowd = factors.Crowd([1, 1], [1, 1], [0, 0], width=8, seed=0)
    before = crowd.encode(images[:5])[0]
    first = crowd.encoder.layers[0].kernel
    first.assign(first * np.array([1, 2], "float32")[:, None, None])
    after = crowd.encode(images[:5])[0]
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[1] != after[1]).any()
    batches = factors.batches(images, values, 2, 3, np.arange(10, dtype="int32"), 8, seed=1)
    ((x, v, shown),) = next(iter(batches))
    assert x.shape == (8, 2, 400)
    assert (np.asarray(x[:, 0]) != np.asarray(x[:, 1])).any()
    np.testing.assert_array_equal(shown[:, 0], [1, 1, 0, 0, 0, 0, 0, 0])
    known = {image.tobytes() for image in images[:10]}
    assert all(np.asarray(image).tobytes() in known for image in x[:2, 0])
    loss = factors.train(crowd, batches).history["loss"][0]
    assert np.isfinite(loss)
    assert crowd.decode(1, np.zeros((4, 6))).shape == (4, 20, 20, 1)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="shape"):
        factors.information(np.zeros((10, 2)), np.zeros((10, 2)))
    with pytest.raises(ValueError, match="lengths"):
        factors.Crowd([1, 2], [1], [0, 0])
