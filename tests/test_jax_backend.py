"""Losses, models and evaluation on Keras's JAX backend, without TensorFlow, against SciPy.

A Keras process has one backend, so each test is a process of its own. Skipped without JAX.
"""

import importlib.util

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed: pip install -e '.[jax]'"
)

START = """
    import os, sys
    os.environ["KERAS_BACKEND"] = "jax"
    from vae_utils import evaluation, losses, models
    import jax, keras, numpy as np
    from scipy import special, stats

    assert keras.backend.backend() == "jax"
    assert "tensorflow" not in sys.modules
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    x = random.uniform(size=(40, 8, 8, 1)).astype("float32")
"""


def test_both_terms_are_scipys_and_so_are_their_gradients(run_python):
    code = """
    mean, log_var = random.normal(size=(2, 5, 3)).astype("float32")
    q = stats.norm(mean, np.exp(log_var / 2))
    z = q.rvs((200_000, 5, 3), random_state=0)
    log_ratio = (q.logpdf(z) - stats.norm.logpdf(z)).sum(-1)
    error = log_ratio.std(0) / np.sqrt(len(z))
    assert (abs(log_ratio.mean(0) - losses.gaussian_kl(mean, log_var)) < 5 * error).all()

    logits = random.normal(0, 3, x.shape).astype("float32")
    nll = -(x * special.log_expit(logits) + (1 - x) * special.log_expit(-logits))
    got = losses.bernoulli_nll(x, logits)
    np.testing.assert_allclose(got, nll.sum((1, 2, 3)), rtol=1e-5)
    nll = -stats.norm.logpdf(x, logits, np.exp(-0.5)).sum((1, 2, 3))
    np.testing.assert_allclose(losses.gaussian_nll(x, logits, -1.0), nll, rtol=1e-5)

    def total(logits):
        return losses.bernoulli_nll(x, logits).sum()

    gradient = jax.grad(total)(logits)
    np.testing.assert_allclose(gradient, special.expit(logits) - x, atol=1e-5)
    gradients = jax.grad(lambda m, v: losses.gaussian_kl(m, v).sum(), (0, 1))(mean, log_var)
    np.testing.assert_allclose(gradients[0], mean, rtol=1e-5)
    np.testing.assert_allclose(gradients[1], (np.exp(log_var) - 1) / 2, atol=1e-5)
    """
    run_python(START + code)


@pytest.mark.parametrize("architecture", ["conv", "dense", "linear"])
def test_a_model_learns_logs_the_elbo_and_survives_a_file(run_python, tmp_path, architecture):
    code = f"""
    vae = models.build_vae("{architecture}", image_shape=(8, 8, 1), seed=0)
    vae.compile(keras.optimizers.Adam(3e-3))
    history = vae.fit(x, batch_size=20, epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    np.testing.assert_allclose(
        history["loss"], np.add(history["reconstruction"], history["kl"]), rtol=1e-5
    )

    out = vae.predict(x, verbose=0)  # SciPy's loss for the z that came out
    if vae.likelihood == "gaussian":
        noise = np.exp(float(vae.pixel_log_var) / 2)
        nll = -stats.norm.logpdf(x, out["logits"], noise).sum((1, 2, 3))
    else:
        a = out["logits"]
        nll = -(x * special.log_expit(a) + (1 - x) * special.log_expit(-a)).sum((1, 2, 3))
    kl = (np.exp(out["log_var"]) + out["mean"] ** 2 - 1 - out["log_var"]).sum(1) / 2
    again = vae.compute_loss(x, None, {{k: keras.ops.array(v) for k, v in out.items()}})
    np.testing.assert_allclose(float(again), np.mean(nll + kl), rtol=1e-5)
    assert len(np.unique(out["z"], axis=0)) == len(x)

    elbo = evaluation.elbo(vae, x)
    assert evaluation.log_likelihood(vae, x, 64).mean() > elbo
    vae.save({str(tmp_path / "vae.keras")!r})
    loaded = keras.models.load_model({str(tmp_path / "vae.keras")!r})
    assert evaluation.elbo(loaded, x) == elbo
    x[0] = 2.0 if vae.likelihood == "bernoulli" else np.inf  # no weight learns from a bad image
    assert np.isnan(vae.fit(x, batch_size=20, verbose=0).history["loss"][0])
    assert all(np.isfinite(w).all() for w in vae.get_weights()[:4])
    """
    run_python(START + code)
