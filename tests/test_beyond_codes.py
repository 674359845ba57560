"""Discrete codes: the VQ-VAE and its prior against SciPy, closed forms and sums over all codes."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import only_with_tensorflow, variables_are_copied
from keras import layers, ops
from scipy import special, stats
from scipy.spatial.distance import cdist, pdist

from vae_utils.beyond import code_prior, codes

pytestmark = variables_are_copied


@pytest.fixture
def random():
    keras.utils.set_random_seed(0)
    return np.random.default_rng(0)


def small(count=3, size=2, **kwargs):
    """Return a VQ-VAE for images of `size` × `size` pixels with a code for each column half."""
    images, vectors = keras.Input((size, size, 1)), keras.Input((1, 2, 2))
    encoder = keras.Model(images, layers.Conv2D(2, (size, size // 2), (size, size // 2))(images))
    flat = layers.Dense(size * size)(layers.Dense(8, "tanh")(layers.Flatten()(vectors)))
    decoder = keras.Model(vectors, layers.Reshape((size, size, 1))(flat))
    return codes.VQVAE(encoder, decoder, count, seed=0, **kwargs)


def every(count, places):
    return np.array(list(itertools.product(range(count), repeat=places)))


def test_the_code_is_the_nearest_one(random):
    vqvae = small(7)
    x = random.random((40, 2, 2, 1), dtype="float32")
    z = vqvae.encoder.predict(x, verbose=0).reshape(-1, 2)
    nearest = cdist(z, vqvae.codebook.numpy()).argmin(axis=1)
    np.testing.assert_array_equal(vqvae.encode(x).ravel(), nearest)


def test_the_loss_is_nats_and_squared_distances(random):
    vqvae = small(4, beta=0.3)
    x = random.integers(0, 2, (10, 2, 2, 1)).astype("float32")
    z = vqvae.encoder.predict(x, verbose=0)
    picked = vqvae.codebook.numpy()[vqvae.encode(x)].reshape(z.shape)
    ink = special.expit(vqvae.decoder.predict(picked, verbose=0))
    nll = -stats.bernoulli.logpmf(x, ink).sum(axis=(1, 2, 3))
    wanted = np.mean(nll + 1.3 * ((z - picked) ** 2).sum(axis=(1, 2, 3)))
    assert float(vqvae.compute_loss(x, y_pred=vqvae(x))) == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(vqvae.distortion(x, vqvae.encode(x)), nll, rtol=1e-4)
    assert float(vqvae.trackers["reconstruction"].result()) == pytest.approx(nll.mean(), rel=1e-5)


@only_with_tensorflow("a tape")
def test_the_encoder_gets_the_decoders_gradient_and_the_codebook_its_own(random):
    vqvae = small(4, beta=0.3, restart=False)
    x = random.integers(0, 2, (10, 2, 2, 1)).astype("float32")
    offset = vqvae.encoder.layers[-1].bias
    with tf.GradientTape() as tape:
        loss = vqvae.compute_loss(x, y_pred=vqvae(x))
    to_offset, to_book = tape.gradient(loss, [offset.value, vqvae.codebook.value])
    z, c = vqvae.encoder.predict(x, verbose=0), vqvae.encode(x)
    book = vqvae.codebook.numpy()
    picked = book[c].reshape(z.shape)
    at_input = np.zeros(2)
    for axis, _ in enumerate(at_input):  # finite differences of the decoder, at the codes
        step = 1e-2 * np.eye(2, dtype="float32")[axis]
        costs = [
            -stats.bernoulli.logpmf(x, special.expit(vqvae.decoder(picked + s))).sum()
            for s in (step, -step)
        ]
        at_input[axis] = (costs[0] - costs[1]) / 2e-2 / len(x)
    commitment = 0.3 * 2 * (z - picked).sum(axis=(0, 1, 2)) / len(x)
    np.testing.assert_allclose(to_offset, at_input + commitment, atol=2e-3)
    wanted = np.zeros_like(book)
    np.add.at(wanted, c.ravel(), 2 * (picked - z).reshape(-1, 2) / len(x))
    np.testing.assert_allclose(tf.convert_to_tensor(to_book), wanted, atol=1e-5)


def test_a_code_that_is_not_used_moves_to_a_vector_of_the_batch(random):
    x = random.random((200, 2, 2, 1), dtype="float32")
    for restart in (True, False):
        vqvae = small(3, restart=restart)
        z = vqvae.encoder.predict(x, verbose=0).reshape(-1, 2)
        vqvae.codebook.assign([z.mean(axis=0), [90, 90], [-90, 90]])
        for _ in range(200):
            vqvae.compute_loss(x, y_pred=vqvae(x), training=True)
        away = cdist(vqvae.codebook.numpy(), z).min(axis=1)
        assert (away[1:].max() < 1e-5) == restart
        np.testing.assert_allclose(vqvae.codebook[0], z.mean(axis=0), atol=1e-5)


def test_perplexity_is_e_to_the_entropy(random):
    assert float(codes.perplexity(np.full(8, 1 / 8))) == pytest.approx(8)
    shares = random.dirichlet(np.ones(9))
    assert float(codes.perplexity(shares)) == pytest.approx(np.exp(stats.entropy(shares)), rel=1e-5)
    assert float(codes.perplexity(np.eye(4)[2])) == pytest.approx(1)


def shaken_prior(places, count, random):
    prior = code_prior.CodePrior(places, count, width=5)
    prior(every(count, places).astype("int32"))
    for weight in prior.weights:
        weight.assign(weight + 0.5 * random.standard_normal(weight.shape))
    return prior


def test_one_sentence_bounds_the_sum_over_all_and_images_add_up_to_one(random):
    vqvae, prior = small(3), shaken_prior(2, 3, random)
    images = every(2, 4).reshape(-1, 2, 2, 1).astype("float32")
    sentences = every(3, 2)
    given = [vqvae.distortion(images, np.tile(c, (len(images), 1))) for c in sentences]
    joint = prior.log_prob(sentences)[:, None] - np.array(given)
    log_p = special.logsumexp(joint, axis=0)
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-5)
    chosen = vqvae.encode(images)
    bound = vqvae.distortion(images, chosen) - prior.log_prob(chosen)
    assert (bound > -log_p).all()


def test_a_prior_adds_up_to_one_looks_backwards_and_its_samples_follow_it(random):
    prior = shaken_prior(3, 4, random)
    sentences = every(4, 3)
    p = np.exp(prior.log_prob(sentences))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    for k in range(3):
        other = sentences.copy()
        other[:, k] = (other[:, k] + 1) % 4
        moved = abs(prior(other) - prior(sentences)).numpy().max(axis=(0, 2))
        assert (moved[: k + 1] == 0).all()
        assert (moved[k + 1 :] > 0).all()
    drawn = prior.sample(20_000, seed=1) @ [16, 4, 1]
    shares = np.bincount(drawn, minlength=64) / 20_000
    assert (abs(shares - p) < 5 * np.sqrt(p / 20_000) + 1e-4).all()


def test_a_fitted_prior_comes_near_the_entropy_of_a_chain(random):
    turn = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]])
    chain = np.zeros((6000, 5), int)
    for k in range(1, 5):
        chain[:, k] = [random.choice(3, p=turn[state]) for state in chain[:, k - 1]]
    prior, _ = code_prior.fit(chain[:5000], 3, steps=200, seed=0)
    log_p = np.log(turn[chain[5000:, :-1], chain[5000:, 1:]]).sum(axis=1)
    gap = -prior.log_prob(chain[5000:]) + log_p
    assert gap.mean() == pytest.approx(0, abs=0.1)


def test_a_model_comes_back_from_its_file(random, tmp_path):
    vqvae = codes.build(grid=2, codes=5, width=8, seed=0)
    x = random.random((30, 28, 28, 1), dtype="float32")
    vqvae.start_from(x, 0)
    vqvae.compile()
    vqvae.fit(x, epochs=1, verbose=0)
    vqvae.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.encode(x), vqvae.encode(x))
    np.testing.assert_allclose(again.decode(vqvae.encode(x)), vqvae.decode(vqvae.encode(x)))
    np.testing.assert_allclose(again.usage, vqvae.usage)


def test_codes_start_as_vectors_of_the_encoder(random):
    vqvae = small(5)
    x = random.random((30, 2, 2, 1), dtype="float32")
    vqvae.start_from(x, 1)
    z = vqvae.encoder.predict(x, verbose=0).reshape(-1, 2)
    assert cdist(vqvae.codebook.numpy(), z).min(axis=1).max() < 1e-5


def test_no_two_codes_start_alike(random):
    vqvae = small(5)
    x = np.zeros((30, 2, 2, 1), "float32")
    x[:4] = random.random((4, 2, 2, 1))
    vqvae.start_from(x, 1)
    assert pdist(vqvae.codebook.numpy()).min() > 1e-3
    with pytest.raises(ValueError, match="5 codes.*3 vectors"):
        vqvae.start_from(x[3:], 1)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: codes.build(grid=5), "grid=5"),
    (lambda: codes.build(codes=0), "codes=0"),
    (lambda: small().decode(np.zeros((4, 3), int)), r"shape \(4, 3\)"),
    (lambda: small().decode(np.full((4, 2), 3)), r"below 3.*shape \(4, 2\)"),
    (lambda: small().decode(np.zeros((4, 2))), "float64"),
    (lambda: small().compute_loss(1, y=2), "targets"),
    (lambda: codes.VQVAE(small().encoder, codes.build().decoder), r"shapes \(None, 1, 2, 2\)"),
])  # fmt: skip
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_ops_are_of_kerass_backend():
    assert ops.shape(code_prior.Masked(2, 3, 4, strict=True)(np.ones((5, 6), "float32"))) == (5, 8)
