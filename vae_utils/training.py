"""The tuned recipe that trains a VAE in seconds, and a cache of models trained with it."""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
import contextlib
import hashlib
import math
import re
import shutil
import sys
import zipfile
from pathlib import Path

import filelock
import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm
from tqdm.keras import TqdmCallback

from vae_utils import cache, data, losses, models, replicas
from vae_utils.checks import is_positive_integer, require

BATCH_SIZE = 200
PEAK_LEARNING_RATE = 6e-3
STEPS_PER_EXECUTION = 20
DIVERGED = 1e6  # no weight of a sane network is as large
BAD_STEPS = "The weights have diverged: try a smaller learning rate, a warm-up, or clipnorm=1.0."
BAD_INPUT = "The weights are within bounds, so look at what went in: pixels outside [0, 1]?"


def batches(images, batch_size=BATCH_SIZE, seed=None, likelihood="bernoulli"):
    """Return shuffled batches of float images that read from an array in memory.

    Each epoch holds every image once, in batches of sizes as even as possible. Only one batch at a
    time is scaled: the images themselves stay what they are, uint8 for one.

    Args:
        images: uint8 grey levels (to be divided by 255), booleans, or floats, which are pixels
            already; shape `(n, height, width, channels)`.
        batch_size: most images per batch.
        seed: integer that makes the order repeatable, or None.
        likelihood: "bernoulli" for pixels in [0, 1], "gaussian" for any finite ones.

    Returns:
        A `tf.data.Dataset` of float32 batches, in a new order each epoch.

    Raises:
        ValueError: if there is no image, `batch_size` is not positive, or as `data.full_scale`.
    """
    count = len(images)
    wanted = "batch_size must be a positive integer, with images to fill it."
    require(is_positive_integer(batch_size) and count, wanted, f"{batch_size=}, {count} images")
    scale, images = data.full_scale(images, likelihood), tf.constant(images)

    def to_pixels(rows):
        return tf.cast(tf.gather(images, rows), "float32") / scale

    return shuffled_rows(count, batch_size, seed).map(to_pixels).prefetch(tf.data.AUTOTUNE)


def shuffled_rows(count, batch_size, seed=None):
    """Return a `tf.data.Dataset` of batches of row numbers, each row once, in a new order an epoch.

    All are shuffled at once: row by row costs more than the images themselves. Args: as `batches`.
    """
    steps = math.ceil(count / batch_size)

    def shuffled(number):
        order = tf.random.experimental.stateless_shuffle(tf.range(count), [number, 0])
        steps_of_epoch = tf.data.Dataset.range(steps)
        return steps_of_epoch.map(lambda i: order[i * count // steps : (i + 1) * count // steps])

    numbers = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).take(1)
    return numbers.flat_map(shuffled).apply(tf.data.experimental.assert_cardinality(steps))


def warm_up_and_decay(peak, steps):
    """Return a learning rate that rises to `peak` in a tenth of the steps, then falls to 0.

    Args:
        peak: the highest learning rate.
        steps: number of gradient steps in all.

    Returns:
        A `keras.optimizers.schedules.CosineDecay`.
    """
    warm_up = max(steps // 10, 1)
    decay = max(steps - warm_up, 1)
    schedule = keras.optimizers.schedules.CosineDecay
    return schedule(peak / 10, decay, warmup_target=peak, warmup_steps=warm_up)


def prepare(vae, images, epochs, learning_rate=PEAK_LEARNING_RATE):
    """Compile a VAE as `train` does: Adam with `warm_up_and_decay`, planned for these epochs.

    Args:
        vae: a `models.VAE`.
        images: what it will be fitted to, `batches` of images.
        epochs: number of passes over them.
        learning_rate: the schedule's peak.

    Raises:
        ValueError: if it is not known how many batches there are, or for a model that several
            processes share.
    """
    steps = images.cardinality()
    wanted = (
        "The learning rate is planned for a known number of steps: end the data set with "
        ".take(steps).apply(tf.data.experimental.assert_cardinality(steps))."
    )
    require(steps >= 0, wanted, f"a cardinality of {steps}")
    strategy = getattr(vae, "distribute_strategy", tf.distribute.get_strategy())
    one_process = not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    wanted = "Keras trains in one process only: use vae_utils.yours.cluster.train."
    require(one_process, wanted, f"a model of a {type(strategy).__name__}")
    # Keras takes several steps at once on a single replica only.
    at_once = 1 if strategy.num_replicas_in_sync > 1 else min(STEPS_PER_EXECUTION, len(images))
    schedule = warm_up_and_decay(learning_rate, len(images) * epochs)
    vae.compile(keras.optimizers.Adam(schedule), steps_per_execution=at_once)


def train(
    vae,
    images,
    epochs=10,
    validation=None,
    *,
    batch_size=BATCH_SIZE,
    learning_rate=PEAK_LEARNING_RATE,
    callbacks=(),
    backup_dir=None,
    progress=True,
):
    """Compile and fit a VAE with the book's recipe, held-out images watched along the way.

    `prepare`, then `fit` on shuffled `batches`. A training whose loss is no longer finite ends as
    with Keras's `TerminateOnNaN`: callbacks finish their work, so that `EarlyStopping` gives the
    best weights back where it kept them. Then comes the error.

    Args:
        vae: a `models.VAE`.
        images: a `data.Digits`, an array as `batches` takes it, or a `tf.data.Dataset` of batches.
        epochs: number of passes over the training images.
        validation: held-out images to watch, of any of these kinds but the first. None for the
            validation part of the digits, and for nothing otherwise.
        batch_size: most images per gradient step; a data set has its own.
        learning_rate: the schedule's peak.
        callbacks: further Keras callbacks.
        backup_dir: folder in which each finished epoch is kept; a call with the same folder and
            arguments resumes an interrupted training there. Emptied once training has ended. Where
            an epoch cannot be kept, a line says so, and the one before it stays.
        progress: whether to show a progress bar.

    Returns:
        Keras's `History`: `loss`, `reconstruction`, `kl`, where layers have losses of their own
        `regularization`, and the same with `val_`, nats per image.

    Raises:
        ValueError: for images that the model cannot take, for a data set that ends early, and as
            `batches` and `prepare`.
        FloatingPointError: if the loss became NaN or infinite, once the training has ended.
    """
    _require_no_labels(images)
    _require_no_labels(validation)
    if isinstance(images, data.Digits):
        validation = images.x_validation if validation is None else validation
        images = images.train_levels
    if not isinstance(images, tf.data.Dataset):
        vae.check_shape(np.shape(images))
        images = batches(images, batch_size, likelihood=vae.likelihood)
    if not (validation is None or isinstance(validation, tf.data.Dataset)):
        vae.check_shape(np.shape(validation))
        scale = data.full_scale(validation, vae.likelihood)
        validation = np.divide(validation, scale, dtype=np.float32)
    prepare(vae, images, epochs, learning_rate)
    stop = StopOnNaN()
    callbacks = [*callbacks, stop]
    if progress:
        callbacks.append(progress_bar(vae.name, epochs))
    try:
        with contextlib.ExitStack() as stack:
            if backup_dir is not None:
                callbacks.append(stack.enter_context(backup(vae, backup_dir)))
            history = vae.fit(
                images,
                epochs=epochs,
                initial_epoch=int(vae.optimizer.iterations) // len(images),
                validation_data=validation,
                validation_batch_size=vae.rows_at_once(),
                callbacks=callbacks,
                shuffle=False,  # `batches` has done it
                verbose=0,
            )
    except KeyboardInterrupt:  # the traceback through TensorFlow would fill pages
        raise KeyboardInterrupt("The training was interrupted.") from None
    except tf.errors.FailedPreconditionError as error:  # so would this one's message
        found = re.search(r"expected to contain \d+ elements but contained only \d+", str(error))
        require(not found, "A data set has to be as long as it says.", f"one {found and found[0]}")
        raise
    if stop.reason:
        raise FloatingPointError(stop.reason)
    return history


def _require_no_labels(images):
    element = images.element_spec if isinstance(images, tf.data.Dataset) else images
    wanted = "A VAE learns from images alone: pass x, or a data set of x, not of (x, y)."
    require(not isinstance(element, tuple), wanted, "targets or sample weights as well")


class StopOnNaN(keras.callbacks.Callback):
    """End the training as soon as a loss is NaN or infinite; `reason` says what to try."""

    reason = None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        self._check(logs["loss"], f"in epoch {self.epoch}, batch {batch + 1}")

    def on_test_batch_end(self, batch, logs=None):
        self._check(logs["loss"], f"on the validation images in epoch {self.epoch}")

    def _check(self, loss, where):
        if self.reason or math.isfinite(loss):
            return
        sane = all(np.all(np.abs(w) < DIVERGED) for w in self.model.get_weights())
        self.reason = f"The loss became {loss} {where}. {BAD_INPUT if sane else BAD_STEPS}"
        self.model.stop_training = True


@contextlib.contextmanager
def backup(vae, folder):
    """Resume what the folder holds; yield a Keras callback that keeps each finished epoch there.

    Weights, optimizer and noise are one file, replaced at once: it is whole whenever the training
    dies. The count of epochs follows from that of steps, which the optimizer keeps. (Keras's
    `BackupAndRestore` writes both in place, one after the other: killed in between, it takes an
    epoch twice. And its HDF5 file on a full disk takes the process with it; `save` makes the same
    file in memory first.) The folder is this training's alone until the context ends.
    """
    path = Path(folder) / "latest.keras"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(path.with_name("lock"), timeout=0):
            if path.exists():
                vae.load_weights(path)
            yield keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: cache.write_atomically(path, vae.save),
                on_train_end=lambda logs: shutil.rmtree(folder, ignore_errors=True),
            )
    except filelock.Timeout:
        require(False, "Each training needs a backup_dir of its own.", f"{folder}, which is in use")


def progress_bar(name, epochs):
    """Return a Keras callback that shows epochs and losses in one line of text.

    Text, since a notebook widget stays empty on a page without a kernel. Fit with `verbose=0`.
    """
    bar_format = "{desc}: {bar:20} {n_fmt}/{total_fmt} epochs in {elapsed}{postfix}"
    # Position 0 even if an earlier training was interrupted and left its bar open.
    line = {"file": sys.stdout, "position": 0, "desc": name, "bar_format": bar_format}
    bar = TqdmCallback(epochs, verbose=0, tqdm_class=tqdm, **line)
    parts = [f"{split}{part}" for split in ("", "val_") for part in ("reconstruction", "kl")]
    bar.on_epoch_end = bar.bar2callback(bar.epoch_bar, pop=parts)
    return bar


def load_or_train(
    architecture, images, latent_dim=2, *, epochs=10, seed=0, likelihood=None, beta=1.0
):
    """Return a VAE trained by `train`: from the local cache, or trained now and cached.

    The cache entry depends on the data, the network, the recipe, Keras's version and the code of
    models, losses and training: a change in any of them trains anew. An interrupted training is
    resumed. Sets the random seed of Keras, NumPy and Python, so that what follows is the same
    either way.

    Args:
        architecture, latent_dim, likelihood, beta: as `models.build_vae`.
        images, epochs: as `train`. Of a `tf.data.Dataset` one pass is read to recognize it.
        seed: integer from which weights, order and noise follow.

    Returns:
        A trained `models.VAE`.

    Raises:
        ValueError, FloatingPointError: as `models.build_vae` and `train`.
    """
    _require_no_labels(images)
    image_shape, fingerprint = _shape_and_fingerprint(images)
    network = (architecture, latent_dim, image_shape, likelihood, beta, seed)
    key = cache_key(fingerprint, network, epochs)
    folder = cache.directory()
    backup_dir = folder / f"unfinished-{key}"

    def trained(backup_dir):
        keras.utils.set_random_seed(seed)
        vae = models.build_vae(*network)
        train(vae, images, epochs, backup_dir=backup_dir)
        return vae

    def make():
        try:
            vae = trained(backup_dir)
        except (OSError, zipfile.BadZipFile) as error:  # a damaged backup, or no place for one
            print(f"The training cannot be backed up ({type(error).__name__}). It starts anew.")
            vae = trained(None)
        shutil.rmtree(backup_dir, ignore_errors=True)
        return vae

    path, load = folder / f"{architecture}-{latent_dim}d-{key}.keras", keras.models.load_model
    vae = cache.load_or_make(path, load=load, make=make, save=models.VAE.save)
    keras.utils.set_random_seed(seed)
    return vae


def _shape_and_fingerprint(images):
    """Return an image's shape, and a digest of all images; of a data set's, in whatever order."""
    if isinstance(images, data.Digits):
        return images.train_levels.shape[1:], images.fingerprint
    if isinstance(images, tf.data.Dataset):
        rows = (row for batch in images.as_numpy_iterator() for row in batch)
        digests = (hashlib.sha256(np.ascontiguousarray(row)).hexdigest() for row in rows)
        return tuple(images.element_spec.shape[1:]), sum(int(digest, 16) for digest in digests)
    images = np.ascontiguousarray(images)
    return images.shape[1:], (hashlib.sha256(images).hexdigest(), images.dtype.str)


def cache_key(*settings):
    """Return a short digest of the settings, the recipe and the code that uses them."""
    digest = hashlib.sha256(repr((keras.__version__, settings)).encode())
    for source in (losses.__file__, models.__file__, replicas.__file__, __file__):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()[:16]
