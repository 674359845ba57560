"""Bits back: files against quadrature, closed forms, SciPy and the images that went in."""

import keras
import numpy as np
import pytest
from scipy import integrate, special, stats

from vae_utils import evaluation, models
from vae_utils.beyond import bits_back

SLOPES = np.array([2.0, -1.0, 0.5])


def posterior(x):
    """Return a q(z|x) that is good but not exact."""
    return np.array([0.6 * x[0] - 0.4 * x[1]]), np.array([0.9 - 0.2 * x[2]])


def coins(z):
    """Return the probabilities of three coins, given a single z."""
    heads = special.expit(SLOPES * z[0])
    return np.stack([1 - heads, heads], axis=1)


def negative_elbo(x):
    """Return the bound of the model above in bits, by quadrature."""
    (mean,), (sd,) = posterior(x)

    def of(z):
        log_p = np.log(coins([z])[np.arange(3), x]).sum() + stats.norm.logpdf(z)
        log_q = stats.norm.logpdf(z, mean, sd)
        return np.exp(log_q) * (log_q - log_p)

    return integrate.quad(of, mean - 9 * sd, mean + 9 * sd)[0] / np.log(2)


@pytest.fixture
def random():
    keras.utils.set_random_seed(0)
    return np.random.default_rng(0)


@pytest.fixture
def codec():
    return bits_back.Codec(posterior, coins, latent_dim=1)


@pytest.fixture
def images(random):
    return random.integers(0, 2, (4000, 3)).astype(np.int32)


def test_what_is_packed_is_unpacked_and_the_borrowed_bits_are_given_back(codec, images):
    found, words = bits_back.unpack(codec, bits_back.pack(codec, images, seed=3))
    np.testing.assert_array_equal(found, images)
    np.testing.assert_array_equal(words, bits_back.first_words(codec, seed=3))


def test_a_file_is_as_long_as_the_negative_elbo(codec, images):
    size = 8 * len(bits_back.pack(codec, images))
    advance = 32 * (1 + len(bits_back.first_words(codec)))
    kinds, counts = np.unique(images, axis=0, return_counts=True)
    wanted = counts @ [negative_elbo(x) for x in kinds]
    # The z are drawn: the spread of one image's length is below a bit and a half.
    assert size - advance == pytest.approx(wanted, abs=5 * 1.5 * np.sqrt(len(images)))


def test_the_stack_grows_by_what_lengths_says(codec, images):
    stack = bits_back.AnsCoder(bits_back.first_words(codec))
    before, wanted = stack.num_valid_bits(), 0
    for x in images:
        of_x, of_z, back = codec.lengths(x, codec.push(stack, x))
        wanted += of_x + of_z + back
    assert stack.num_valid_bits() - before == pytest.approx(wanted, abs=4)


def test_lengths_are_those_of_scipy_in_the_tails_too():
    shapes = np.array([5.0, -5.0, 0.1]), np.array([0.01, 0.01, 2.0])
    codec = bits_back.Codec(lambda x: shapes, lambda z: np.full((2, 256), 1 / 256), 3, bins=16)
    z = np.array([15, 0, 7])
    edges = stats.norm.ppf([z / 16, (z + 1) / 16])
    mass = np.diff(stats.norm.cdf(edges, *shapes), axis=0) * (1 - 16 / 2**24) + 1 / 2**24
    of_x, of_z, back = codec.lengths(np.array([0, 255]), z)
    assert of_x == pytest.approx(16)
    assert of_z == pytest.approx(12)
    assert back == pytest.approx(np.log2(mass).sum(), abs=1e-9)


def test_an_interval_far_from_q_has_the_mass_of_its_tail():
    codec = bits_back.Codec(lambda x: (np.array([-4.0]), np.array([0.5])), coins, 1, bins=4)
    edge = stats.norm.ppf(0.75)
    wanted = np.log2(stats.norm.sf(edge, -4, 0.5) * (1 - 4 / 2**24) + 1 / 2**24)
    assert codec.lengths(np.zeros(3, int), np.array([3]))[2] == pytest.approx(wanted, rel=1e-9)


def test_intervals_popped_from_random_bits_follow_q(codec, random):
    stack = bits_back.AnsCoder(random.integers(1, 2**32, 9000, np.uint32))
    mean, sd, many = 0.7, 0.4, np.ones(20_000)
    z = codec.medians[stack.decode(codec.latent, mean * many, sd * many)]
    assert stats.kstest(z, stats.norm(mean, sd).cdf).pvalue > 1e-3


def test_levels_of_grey_come_back_and_cost_what_they_should(random):
    def table(z):  # its columns lie together in memory, not its rows
        weights = special.softmax(np.outer(np.linspace(-1, 1, 256), np.arange(6) * z[0]), axis=0)
        return weights.T

    codec = bits_back.Codec(lambda x: (x[:1] / 255, np.array([0.5])), table, 1)
    images = random.integers(0, 256, (50, 6)).astype(np.int32)
    stack = bits_back.AnsCoder(bits_back.first_words(codec))
    before = stack.num_valid_bits()
    lengths = [codec.lengths(x, codec.push(stack, x)) for x in images]
    assert stack.num_valid_bits() - before == pytest.approx(np.sum(lengths), abs=4)
    found, _ = bits_back.unpack(codec, bits_back.pack(codec, images))
    np.testing.assert_array_equal(found, images)


def test_a_vae_writes_its_images_at_the_length_of_its_bound(random):
    vae = models.build_vae("dense", 3, (4, 4, 1), seed=0)
    vae.encoder.set_weights([0.5 * weight for weight in vae.encoder.get_weights()])
    images = random.integers(0, 2, (200, 16))
    codec = bits_back.of_vae(vae)
    file = bits_back.pack(codec, images)
    np.testing.assert_array_equal(bits_back.unpack(codec, file)[0], images)
    x = images.reshape(-1, 4, 4, 1).astype("float32")
    bound = np.sum(evaluation.elbo_terms(vae, x), axis=0) / np.log(2)
    advance = 32 * (1 + len(bits_back.first_words(codec)))
    wanted, error = bound.sum(), bound.std() * np.sqrt(len(x))
    assert 8 * len(file) - advance == pytest.approx(wanted, abs=4 * error)


def test_a_sheet_holds_each_image_where_it_belongs(random):
    images = random.integers(0, 256, (6, 4, 5, 3)).astype(np.uint8)
    picture = bits_back.sheet(images, 3)
    assert picture.shape == (8, 15, 3)
    np.testing.assert_array_equal(picture[4:8, 5:10], images[4])


def test_random_bits_cannot_be_compressed_and_plain_ones_can(random):
    noise, plain = random.random((128, 128)) < 0.5, np.zeros((128, 128), bool)
    assert 2048 < bits_back.image_bytes(noise, "png") < 2300
    assert bits_back.image_bytes(plain, "png") < 150
    for size in bits_back.general_bytes(np.packbits(noise).tobytes()).values():
        assert 2048 <= size < 2700
    for size in bits_back.general_bytes(np.packbits(plain).tobytes()).values():
        assert size < 100


@pytest.mark.parametrize(("make", "message"), [
    (lambda: bits_back.Codec(posterior, coins, 0), "latent_dim=0"),
    (lambda: bits_back.Codec(posterior, coins, 1, bins=2.5), "bins=2.5"),
    (lambda: bits_back.of_vae(models.build_vae("linear", 2, (4, 4, 1))), "gaussian"),
    (lambda: bits_back.pack(None, np.zeros((2, 3))), "float64"),
    (lambda: bits_back.pack(None, np.zeros((0, 3), int)), r"shape \(0, 3\)"),
    (lambda: bits_back.sheet(np.zeros((5, 2, 2)), 2), "5 images, columns=2"),
])  # fmt: skip
def test_what_cannot_be_packed_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
