"""Several layers of latents, against models of which everything is known, and SciPy."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import integrate, stats

from vae_utils import data, evaluation, models
from vae_utils.beyond import hierarchy, scale

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword"  # NumPy 2 on TensorFlow
)

# z_3 ~ N(0, I), each below A times it plus noise, the image A times z_1 plus noise.
FACTOR, NOISE, SIZE = 1.5, 0.7, 4


def linear(factor, variance, inputs=SIZE):
    """A network to the mean `factor` · z and a constant log-variance, of the first SIZE inputs."""
    z = keras.Input((inputs,))
    heads = [layers.Dense(SIZE), layers.Dense(SIZE)]
    network = keras.Model(z, [head(z) for head in heads])
    matrix = factor * np.eye(inputs, SIZE)
    bias = np.full(SIZE, np.log(variance))
    network.set_weights([matrix, np.zeros(SIZE), np.zeros((inputs, SIZE)), bias])
    return network


def exact(depth, ladder, wrong=1.0):
    """A linear hierarchy with its exact posterior, or variances that are `wrong` times it."""
    decoder_input, images = keras.Input((SIZE,)), keras.Input((2, 2, 1))
    head = layers.Dense(SIZE)
    decoder = keras.Model(decoder_input, layers.Reshape((2, 2, 1))(head(decoder_input)))
    head.set_weights([FACTOR * np.eye(SIZE), np.zeros(SIZE)])
    prior_variance = [1.0]  # of each layer, with all above it unknown
    for _ in range(depth - 1):
        prior_variance.insert(0, FACTOR**2 * prior_variance[0] + NOISE)
    if ladder:  # messages: what the image says of a layer, without its prior
        spread, messages = 0.0, []
        for _ in range(depth):
            spread = (spread + NOISE) / FACTOR**2
            messages.append((1 / FACTOR, wrong * spread))
    else:
        gains = [v * FACTOR / (FACTOR**2 * v + NOISE) for v in prior_variance]
        messages = [(g, wrong * NOISE * g / FACTOR) for g in gains]
    flat = layers.Flatten()(images)
    encoder = keras.Model(images, linear(*messages[0])(flat))
    ups = [linear(*message, inputs=SIZE * (1 + ladder)) for message in messages[1:]]
    downs = [linear(FACTOR, NOISE) for _ in ups]
    vae = hierarchy.HierarchicalVAE(
        encoder, decoder, ups, downs, ladder, likelihood="gaussian", seed=0
    )
    vae.pixel_log_var.assign(np.log(NOISE))
    variance = FACTOR**2 * prior_variance[0] + NOISE
    x = np.random.default_rng(0).normal(0, np.sqrt(variance), (30, 2, 2, 1)).astype("float32")
    log_p = stats.norm.logpdf(x, 0, np.sqrt(variance)).sum(axis=(1, 2, 3))
    return vae, x, log_p


KINDS = pytest.mark.parametrize("ladder", [True, False], ids=["ladder", "bottom-up"])
DEPTHS = pytest.mark.parametrize("depth", [1, 2, 3])


@KINDS
@DEPTHS
def test_with_the_exact_posterior_every_draw_gives_log_p(depth, ladder):
    vae, x, log_p = exact(depth, ladder)
    np.testing.assert_allclose(hierarchy.log_likelihood(vae, x, 1), log_p, rtol=1e-4, atol=1e-4)


@KINDS
def test_with_another_posterior_the_bound_is_below_and_rises_to_log_p(ladder):
    vae, x, log_p = exact(2, ladder, wrong=1.4)
    one, many = (hierarchy.log_likelihood(vae, x, k).mean() for k in (1, 3000))
    assert one < log_p.mean() - 0.05
    assert many == pytest.approx(log_p.mean(), abs=0.03)


@KINDS
def test_the_loss_is_the_negative_elbo_and_its_parts_add_up(ladder):
    vae, x, log_p = exact(3, ladder)
    many = np.tile(x, (200, 1, 1, 1))
    vae.compile()
    logged = vae.evaluate(many, batch_size=1000, verbose=0, return_dict=True)
    assert logged["loss"] == pytest.approx(-log_p.mean(), rel=0.01)
    assert logged["loss"] == pytest.approx(logged["reconstruction"] + logged["kl"], rel=1e-5)
    assert sum(logged[f"kl_{n}"] for n in (1, 2, 3)) == pytest.approx(logged["kl"], rel=1e-5)


def test_one_layer_is_the_plain_vae_with_what_its_message_says():
    vae, x, _ = exact(1, ladder=False)
    plain = models.VAE(vae.encoder, vae.decoder, "gaussian")
    plain.pixel_log_var.assign(np.log(NOISE))
    ours = hierarchy.log_likelihood(vae, x, 10).mean()
    assert ours == pytest.approx(evaluation.log_likelihood(plain, x, 10).mean(), rel=1e-4)


def test_the_product_of_two_gaussians_and_the_kl_by_quadrature():
    first, second = np.float32([(0.7, np.log(0.5)), (-1.0, np.log(2.0))])
    p, q = (stats.norm(m, np.exp(0.5 * v)) for m, v in (first, second))
    moments = [
        integrate.quad(lambda z, n=n: z**n * p.pdf(z) * q.pdf(z), -9, 9)[0] for n in (0, 1, 2)
    ]
    mean = moments[1] / moments[0]
    found = [float(t) for t in hierarchy.product(first, second)]
    assert found == pytest.approx([mean, np.log(moments[2] / moments[0] - mean**2)], abs=1e-5)
    exact_kl = integrate.quad(lambda z: p.pdf(z) * (p.logpdf(z) - q.logpdf(z)), -9, 9)[0]
    assert float(hierarchy.kl_by_unit(first, second)) == pytest.approx(exact_kl, abs=1e-5)


@KINDS
def test_the_rate_of_a_layer_is_the_mean_log_ratio(ladder):
    vae, x, _ = exact(3, ladder, wrong=1.3)
    found = vae.infer(vae.encode(np.tile(x, (1000, 1, 1, 1))))
    for layer, rate in zip(found, vae.rates(found)):
        ratio = sum(sign * stats.norm.logpdf(layer.z, m, np.exp(0.5 * np.array(v)))
                    for sign, (m, v) in ((1, layer.posterior), (-1, layer.prior)))  # fmt: skip
        difference = ops.convert_to_numpy(rate) - ratio
        error = difference.std() / np.sqrt(difference.size)
        assert abs(difference.mean()) < 5 * error + 1e-5


def test_samples_have_the_models_moments_and_kept_layers_stay():
    vae, _, _ = exact(2, ladder=True)
    images = vae.sample(20_000, seed=1).reshape(-1, SIZE)
    variance = FACTOR**2 * (FACTOR**2 + NOISE)
    assert images.var(axis=0) == pytest.approx(np.full(SIZE, variance), rel=0.05)
    top = np.full(SIZE, 2.0)
    images = vae.sample(20_000, seed=1, keep={2: top}).reshape(-1, SIZE)
    assert images.mean(axis=0) == pytest.approx(FACTOR**2 * top, abs=0.05)
    assert images.var(axis=0) == pytest.approx(np.full(SIZE, FACTOR**2 * NOISE), rel=0.05)


@KINDS
def test_the_noise_of_images_is_standard_normal_and_gives_them_back(ladder):
    vae, x, _ = exact(2, ladder)
    rng = np.random.default_rng(1)
    drawn = [rng.standard_normal((20_000, SIZE)) for _ in "12"]
    x = vae.from_noise(drawn) + np.sqrt(NOISE) * rng.standard_normal((20_000, 2, 2, 1))
    noise = vae.to_noise(x.astype("float32"))
    for part in noise:
        assert part.mean(axis=0) == pytest.approx(np.zeros(SIZE), abs=0.04)
        assert part.var(axis=0) == pytest.approx(np.ones(SIZE), abs=0.05)
    residual = x - vae.from_noise(noise)
    assert residual.var() == pytest.approx(NOISE, rel=0.03)


@KINDS
def test_the_noise_of_three_unlike_layers_leads_back_to_the_same_image(ladder):
    keras.utils.set_random_seed(0)
    vae = hierarchy.build((5, 4, 3), ladder, width=8)
    x = np.random.default_rng(0).integers(0, 2, (6, 28, 28, 1)).astype("float32")
    bottom = vae.infer(vae.encode(x), models.Sampling(1))[0].z
    images = vae.from_noise(vae.to_noise(x, seed=1))
    np.testing.assert_allclose(images, vae.decode_mean(bottom), rtol=1e-4, atol=1e-5)
    kept = vae.sample(6, seed=2, keep=dict(enumerate(vae.to_noise(x, seed=1), 1)))
    np.testing.assert_allclose(kept, images, rtol=1e-4, atol=1e-5)


def test_annealing_and_free_nats_weigh_the_rate_in_training_only():
    vae, x, _ = exact(2, ladder=True)
    vae.annealing, vae.free_nats = 10, 50.0  # far above both rates
    vae.compile()
    vae.optimizer.iterations.assign(4)
    outputs = vae(x)
    nll = float(ops.mean(vae.reconstruction_term(x, outputs["logits"])))
    kl = float(ops.mean(ops.sum(outputs["kl"], axis=1)))
    assert float(vae.compute_loss(x, y_pred=outputs)) == pytest.approx(nll + 0.5 * 100, rel=1e-5)
    tested = vae.compute_loss(x, y_pred=outputs, training=False)
    assert float(tested) == pytest.approx(nll + kl, rel=1e-5)


@KINDS
def test_a_model_comes_back_from_its_file(ladder, tmp_path):
    keras.utils.set_random_seed(0)
    vae = hierarchy.build((6, 4, 2), ladder, width=8, annealing=3, free_nats=0.5)
    x = np.random.default_rng(0).integers(0, 2, (20, 28, 28, 1)).astype("float32")
    vae.compile()
    vae.fit(x, epochs=1, verbose=0)
    vae.save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    assert (again.ladder, again.annealing, again.free_nats) == (ladder, 3, 0.5)
    before, after = (hierarchy.log_likelihood(model, x, 2) for model in (vae, again))
    np.testing.assert_allclose(before, after, rtol=1e-5)
    assert len(again.trainable_variables) == len(vae.trainable_variables)


def test_an_image_that_is_none_teaches_nothing():
    keras.utils.set_random_seed(0)
    vae = hierarchy.build((4, 2), width=8)
    x = np.zeros((2, 28, 28, 1), "float32")
    x[1] = 2
    outputs = vae(x)
    assert np.isfinite(outputs["logits"][0]).all()
    assert np.isnan(outputs["logits"][1]).all()


def test_a_second_call_finds_the_trained_model(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_UTILS_CACHE", str(tmp_path))
    digits = data.load_digits("bundled")
    few = data.Digits("few", "", digits.train_levels[:400], digits.y_train[:400],
                      *[digits.test_levels[:50], digits.y_test[:50]] * 2)  # fmt: skip
    first, seconds = hierarchy.load_or_train(few, (4, 2), width=8, steps=4)
    again, same = hierarchy.load_or_train(few, (4, 2), width=8, steps=4)
    assert seconds == same > 0
    x = scale.test_images(few)
    bounds = [hierarchy.log_likelihood(model, x, 2) for model in (first, again)]
    np.testing.assert_allclose(*bounds, rtol=1e-5)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: hierarchy.build((4, 0)), r"latent_dims=\(4, 0\)"),
    (lambda: hierarchy.HierarchicalVAE(None, None, [1], []), "1 up, 0 down"),
    (lambda: hierarchy.log_likelihood(None, None, 0), "num_samples=0"),
])  # fmt: skip
def test_what_cannot_be_a_hierarchy_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
