"""Losses, models and evaluation where TensorFlow cannot even be imported: Keras on JAX alone.

With both installed, `KERAS_BACKEND=jax pytest` runs the tests of losses, models, evaluation and
training on JAX. Skipped without JAX.
"""

import importlib.util

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed: pip install -e '.[jax]'"
)


def test_without_tensorflow_the_networks_learn_are_judged_and_survive_a_file(run_python, tmp_path):
    code = f"""
    import os, sys
    os.environ["KERAS_BACKEND"] = "jax"
    sys.modules["tensorflow"] = None  # as if it were not installed
    from vae_utils import data, evaluation, losses, models, plots
    import keras, numpy as np

    digits = data.load_digits("bundled")
    x = digits.x_train[:200]
    for architecture in ("conv", "dense", "linear"):
        keras.utils.set_random_seed(0)
        vae = models.build_vae(architecture, seed=0)
        vae.compile(keras.optimizers.Adam(1e-3))
        history = vae.fit(x, batch_size=20, epochs=3, verbose=0).history
        elbo = evaluation.elbo(vae, x)
        assert -elbo < history["loss"][0]
        assert evaluation.log_likelihood(vae, x, 16).mean() > elbo
        vae.save({str(tmp_path / "vae.keras")!r})
        again = keras.models.load_model({str(tmp_path / "vae.keras")!r})
        assert evaluation.elbo(again, x) == elbo
        plots.reconstructions(vae, x[:5])
    """
    run_python(code)
