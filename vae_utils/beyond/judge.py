"""Chapter 6's judge of images, for black-and-white and grey ones: how far a crowd is from real."""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
import keras
import numpy as np
from keras import layers, ops
from scipy import linalg

from vae_utils.checks import require

IMAGES, EPOCHS = 16_000, 5
REFERENCE = 1_500


def frechet(first, second):
    """Squared Fréchet distance of the Gaussians fitted to two sets of features.

    ‖m₁ − m₂‖² + tr(S₁ + S₂ − 2 (S₁ S₂)^½): Heusel et al. (2017), equation 6.

    Args:
        first, second: features, shapes `(n, features)` and `(m, features)`.

    Returns:
        A float, 0 for equal means and covariances.
    """
    for features in (first, second):
        valid = np.ndim(features) == 2 and len(features) > 1 and np.isfinite(features).all()
        wanted = "A covariance takes two rows of finite features or more, (n, features)."
        require(valid, wanted, f"shape {np.shape(features)}")
    m1, m2 = first.mean(axis=0), second.mean(axis=0)
    s1, s2 = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    roots = np.sqrt(np.clip(linalg.eigvals(s1 @ s2).real, 0, None))
    return float(np.sum((m1 - m2) ** 2) + np.trace(s1 + s2) - 2 * roots.sum())


class Judge:
    """A network that learns to read digits, and the distance of images from real ones.

    Args:
        digits: a `data.Digits`; its last training images are the reference.
        seed: integer from which weights and order follow.
    """

    def __init__(self, digits, seed=0):
        keras.utils.set_random_seed(seed)
        hidden = [layers.Dense(256, "relu"), layers.Dense(32, "relu")]
        reader = keras.Sequential([layers.Flatten(), *hidden, layers.Dense(10)])
        learner = keras.Sequential([layers.Rescaling(1 / 255), reader])
        right_digit = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        learner.compile(keras.optimizers.Adam(2e-3), right_digit)
        levels, labels = digits.train_levels[:IMAGES], digits.y_train[:IMAGES]
        learner.fit(levels, labels, batch_size=256, epochs=EPOCHS, verbose=0)
        self._features = keras.Sequential(reader.layers[:-1])
        self.reference = self.features(digits.train_levels[-REFERENCE:] / np.float32(255))

    def features(self, images):
        """Return the reader's last hidden layer, `(n, 32)`, of images in [0, 1]."""
        return ops.convert_to_numpy(self._features(np.asarray(images, "float32")))

    def distance(self, images):
        """Return the squared Fréchet distance of images, `(n, 28, 28, 1)`, from the reference."""
        return frechet(self.features(images), self.reference)
