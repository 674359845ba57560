"""One scale for all models of Part IV: nats on the same black-and-white test images."""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
import hashlib
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from vae_utils import cache, data, models, training
from vae_utils.checks import require

TEST_IMAGES = 1_000
TEST_SEED, VALIDATION_SEED = 0, 1
LATENT_DIM, EPOCHS = 16, 8  # of the VAE that the ideas of Part IV start from
SECONDS = "seconds.txt"  # in a model's file: how long its training took


def binarize(images, seed):
    """Draw black-or-white images: each pixel is ink with the probability of its grey level.

    Salakhutdinov and Murray (2008), section 4. Drawn anew for each gradient step it is called
    dynamic binarization (Burda et al. 2015); the test images are drawn once.

    Args:
        images: uint8 grey levels or floats in [0, 1], any shape.
        seed: integer from which the draw follows.

    Returns:
        NumPy array of zeros and ones, float32, of the same shape.

    Raises:
        ValueError: for pixels outside [0, 1].
    """
    grey = data.to_unit_interval(images)
    draw = np.random.default_rng(seed).random(grey.shape, dtype=np.float32)
    return (draw < grey).astype(np.float32)


def test_images(digits):
    """Return the test images that every model of Part IV is judged on, `(1000, 28, 28, 1)`."""
    return binarize(digits.test_levels[:TEST_IMAGES], TEST_SEED)


def validation_images(digits):
    """Return images to choose by, drawn as the test images are, shape `(1000, 28, 28, 1)`."""
    return binarize(digits.validation_levels[:TEST_IMAGES], VALIDATION_SEED)


def batches(digits, batch_size=training.BATCH_SIZE, seed=None, steps=None):
    """Return `training.batches` of the training images, binarized anew each time they are seen.

    Args:
        digits: a `data.Digits`.
        batch_size, seed: as `training.batches`.
        steps: how many batches, beginning again where the images end; None for each image once.

    Returns:
        A `tf.data.Dataset` of float32 batches of zeros and ones.
    """

    def draw(grey):
        return tf.cast(tf.random.uniform(tf.shape(grey), seed=seed) < grey, "float32")

    once = training.batches(digits.train_levels, batch_size, seed).map(draw)
    if steps is None:
        return once
    return once.repeat().take(steps).apply(tf.data.experimental.assert_cardinality(steps))


def load_or_train(digits, latent_dim=LATENT_DIM, *, epochs=EPOCHS, seed=0):
    """Return the VAE that the ideas of Part IV start from: cached, or trained now and cached.

    The dense network of chapter 4, with more latent dimensions, on binarized images.

    Args:
        digits: a `data.Digits`.
        latent_dim, epochs, seed: as `training.load_or_train`.

    Returns:
        `(vae, seconds)`: a trained `models.VAE`, and how long its training took.
    """
    key = training.cache_key(digits.fingerprint, "binarized", latent_dim, epochs, seed)

    def start():
        return models.build_vae("dense", latent_dim, seed=seed), batches(digits, seed=seed)

    return train_once(f"scale-{latent_dim}d-{key}", start, epochs, seed)


def train_once(name, start, epochs, seed):
    """Return a model from the cache, or build it, train it now and cache it, with its seconds.

    Args:
        name: of its file in the cache; another for each setting.
        start: function that returns the untrained model and its images, as `training.train`
            takes them; called once the seed is set.
        epochs: as `training.train`.
        seed: integer from which weights and training follow; set again when the model is there.

    Returns:
        `(vae, seconds)`: the trained model, and how long its training took.
    """

    def make():
        keras.utils.set_random_seed(seed)
        vae, images = start()
        begun = time.perf_counter()
        training.train(vae, images, epochs)
        return vae, time.perf_counter() - begun

    path = cache.directory() / f"{name}.keras"
    trained = cache.load_or_make(path, load=_load, make=make, save=_save)
    keras.utils.set_random_seed(seed)
    return trained


def train_for(steps, digits, build, file, settings, seed):
    """Return a model that learned for so many gradient steps: cached, or trained now and cached.

    Args:
        steps: of gradient, with 200 images each.
        digits: a `data.Digits`.
        build: function that returns the untrained model; called once the seed is set.
        file: the path of the module that defines the model, whose code is part of the cache's key.
        settings: all else on which the model depends.
        seed: as `train_once`.

    Returns:
        As `train_once`.
    """
    path = Path(file)
    key = training.cache_key(digits.fingerprint, (*settings, steps, seed), path.read_bytes())

    def start():
        return build(), batches(digits, seed=seed, steps=steps)

    return train_once(f"{path.stem}-{key}", start, 1, seed)


def _save(trained, path):
    """Write `(vae, seconds)` as one file."""
    vae, seconds = trained
    vae.save(path)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(SECONDS, str(seconds))


def _load(path):
    """Read what `_save` wrote."""
    with zipfile.ZipFile(path) as file:
        return keras.models.load_model(path), float(file.read(SECONDS))


def mean_and_error(values):
    """Return the mean of a number of each image, and its standard error.

    Of two models on the same images, take the difference image by image first.

    Args:
        values: shape `(n,)`, at least two.
    """
    return values.mean(), values.std(ddof=1) / np.sqrt(len(values))


@dataclass(frozen=True)
class Result:
    """One model on the scale.

    Attributes:
        idea: what the model is called in the table.
        nats: −log p(x) of each test image or the best upper bound on it, shape `(n,)`.
        bound: how `nats` was obtained.
        seconds: how long its training took on this machine.
    """

    idea: str
    nats: np.ndarray
    bound: str
    seconds: float

    @property
    def mean(self):
        return float(mean_and_error(self.nats)[0])

    @property
    def error(self):
        """The standard error of the mean: other test images would move it by about as much."""
        return float(mean_and_error(self.nats)[1])


def record(digits, idea, nats, bound, seconds, seed=0):
    """Keep a model's result for the page that compares all of them; return it.

    Args:
        digits: the `data.Digits` that the model learned from.
        idea: a short name; a second result of the same name, images and seed replaces the first.
        nats: −log p(x) of each of `test_images(digits)`, or an upper bound on it, `(1000,)`.
        bound: how `nats` was obtained, in a few words.
        seconds: how long the training took.
        seed: the seed of the run.

    Returns:
        A `Result`.

    Raises:
        ValueError: unless there is one finite number for each test image.
    """
    nats = np.asarray(nats, np.float64)
    wanted = f"nats must hold a finite number for each of the {TEST_IMAGES} test images."
    count = min(TEST_IMAGES, len(digits.test_levels))
    require(nats.shape == (count,) and np.isfinite(nats).all(), wanted, f"shape {nats.shape}")
    result = Result(idea, nats, bound, float(seconds))
    name = hashlib.sha256(idea.encode()).hexdigest()[:16]  # any idea is a valid file name
    path = _folder(digits, seed) / f"{name}.npz"
    cache.write_atomically(path, lambda target: _write(result, target))
    return result


def results(digits, seed=0):
    """Return what was recorded for these images and this seed: a list, fewest nats last."""
    found = [_read(path) for path in _folder(digits, seed).glob("*.npz")]
    return sorted(found, key=lambda result: -result.mean)


def _folder(digits, seed):
    return cache.directory() / "scale" / f"{digits.fingerprint[:16]}-{seed}"


def _write(result, path):
    with Path(path).open("wb") as file:
        np.savez(file, **vars(result))


def _read(path):
    with np.load(path) as file:
        values = {name: file[name] for name in file.files}
    return Result(
        str(values["idea"]), values["nats"], str(values["bound"]), float(values["seconds"])
    )
