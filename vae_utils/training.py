"""The tuned recipe that trains a VAE in seconds, and a cache of models trained with it."""

import gc
import hashlib
import json
import shutil
from pathlib import Path

import keras
import tensorflow as tf
from tqdm import tqdm
from tqdm.keras import TqdmCallback

from vae_utils import cache, losses, models, notebook

gc.freeze()  # what TensorFlow has brought along stays, so collecting need not look at it

BATCH_SIZE = 200
PEAK_LEARNING_RATE = 6e-3
STEPS_PER_EXECUTION = 20


def batches(levels, batch_size=BATCH_SIZE, seed=None):
    """Return shuffled batches of float images that read from grey levels in memory.

    Only one batch at a time exists as floats: the images themselves stay uint8.

    Args:
        levels: grey levels, uint8, shape `(n, height, width, channels)`.
        batch_size: images per batch, at most n; a smaller rest is left out of each epoch.
        seed: integer that makes the order repeatable, or None.

    Returns:
        A `tf.data.Dataset` of float32 batches in [0, 1], in a new order each epoch.

    Raises:
        ValueError: if `batch_size` is larger than the number of images.
    """
    if not 0 < batch_size <= len(levels):
        raise ValueError(
            f"batch_size must lie between 1 and the {len(levels)} images. "
            f"Received: batch_size={batch_size}"
        )
    gc.collect()  # earlier models are cycles, which Python would free much later
    levels = tf.constant(levels)
    steps = len(levels) // batch_size

    def shuffled_rows(number):  # all at once: row by row costs more than the images themselves
        rows = tf.random.experimental.stateless_shuffle(tf.range(len(levels)), [number, 0])
        rows = tf.reshape(rows[: steps * batch_size], (steps, batch_size))
        return tf.data.Dataset.from_tensor_slices(rows)

    def to_images(rows):
        return tf.cast(tf.gather(levels, rows), "float32") / 255

    numbers = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).take(1)
    rows = numbers.flat_map(shuffled_rows).apply(tf.data.experimental.assert_cardinality(steps))
    return rows.map(to_images).prefetch(tf.data.AUTOTUNE)


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
    return keras.optimizers.schedules.CosineDecay(
        peak / 10, decay, warmup_target=peak, warmup_steps=warm_up
    )


def prepare(vae, images, epochs, learning_rate=PEAK_LEARNING_RATE):
    """Compile a VAE as `train` does: Adam with `warm_up_and_decay`, planned for these epochs.

    Args:
        vae: a `models.VAE`.
        images: what it will be fitted to, `batches` of images.
        epochs: number of passes over them.
        learning_rate: the schedule's peak.
    """
    vae.compile(
        keras.optimizers.Adam(warm_up_and_decay(learning_rate, len(images) * epochs)),
        steps_per_execution=min(STEPS_PER_EXECUTION, len(images)),
    )


def train(
    vae,
    digits,
    epochs=10,
    *,
    batch_size=BATCH_SIZE,
    learning_rate=PEAK_LEARNING_RATE,
    callbacks=(),
    backup_dir=None,
    progress=True,
):
    """Compile and fit a VAE with the book's recipe, held-out images watched along the way.

    `prepare`, then `fit` on shuffled `batches` with the validation part as validation data.

    Args:
        vae: a `models.VAE`.
        digits: a `data.Digits`.
        epochs: number of passes over the training images.
        batch_size: images per gradient step.
        learning_rate: the schedule's peak.
        callbacks: further Keras callbacks.
        backup_dir: folder in which each finished epoch is kept; a call with the same folder and
            arguments resumes an interrupted training there. Emptied once training has ended.
        progress: whether to show a progress bar.

    Returns:
        Keras's `History`: `loss`, `reconstruction`, `kl` and the same with `val_`, nats per image.

    Raises:
        ValueError: as `batches` and `models.VAE.fit`.
        FloatingPointError: as `models.VAE.fit`.
    """
    images = batches(digits.train_levels, batch_size)
    prepare(vae, images, epochs, learning_rate)
    callbacks = list(callbacks)
    if progress:
        callbacks.append(progress_bar(vae.name, epochs))
    if backup_dir is not None:
        callbacks.append(keras.callbacks.BackupAndRestore(backup_dir))
    return vae.fit(
        images,
        epochs=epochs,
        validation_data=digits.x_validation,
        validation_batch_size=1000,
        callbacks=callbacks,
        shuffle=False,  # `batches` has done it
        verbose=0,
    )


def progress_bar(name, epochs):
    """Return a Keras callback that shows epochs and losses in one line of text.

    Text, since a notebook widget stays empty on a page without a kernel. Fit with `verbose=0`.
    """
    bar = TqdmCallback(
        epochs,
        verbose=0,
        tqdm_class=tqdm,
        file=notebook.progress_stream(),
        position=0,  # even if an earlier training was interrupted and left its bar open
        desc=name,
        bar_format="{desc}: {bar:20} {n_fmt}/{total_fmt} epochs in {elapsed}{postfix}",
    )
    parts = [f"{split}{part}" for split in ("", "val_") for part in ("reconstruction", "kl")]
    bar.on_epoch_end = bar.bar2callback(bar.epoch_bar, pop=parts)
    return bar


def load_or_train(architecture, digits, latent_dim=2, *, epochs=10, seed=0):
    """Return a VAE trained by `train`: from the local cache, or trained now and cached.

    The cache entry depends on the data, the network, the recipe, Keras's version and the code of
    models, losses and training: a change in any of them trains anew. An interrupted training is
    resumed. Sets the random seed of Keras, NumPy and Python, so that what follows is the same
    either way.

    Args:
        architecture, latent_dim: as `models.build_vae`.
        digits: a `data.Digits`.
        epochs: as `train`.
        seed: integer from which weights, order and noise follow.

    Returns:
        A trained `models.VAE`.

    Raises:
        ValueError, FloatingPointError: as `models.build_vae` and `train`.
    """
    key = _key(architecture, digits.fingerprint, latent_dim, epochs, seed)
    folder = cache.directory()
    backup_dir = folder / f"unfinished-{key}"

    def trained(backup_dir):
        keras.utils.set_random_seed(seed)
        vae = models.build_vae(architecture, latent_dim, digits.train_levels.shape[1:], seed=seed)
        train(vae, digits, epochs, backup_dir=backup_dir)
        return vae

    def make():
        try:
            backup_dir.mkdir(parents=True, exist_ok=True)
            vae = trained(backup_dir)
        except (OSError, json.JSONDecodeError) as error:  # a damaged backup, or no place for one
            print(f"The training cannot be backed up ({type(error).__name__}). It starts anew.")
            vae = trained(None)
        shutil.rmtree(backup_dir, ignore_errors=True)
        return vae

    vae = cache.load_or_make(
        folder / f"{architecture}-{latent_dim}d-{key}.keras",
        load=keras.models.load_model,
        make=make,
        save=lambda vae, path: vae.save(path),
    )
    keras.utils.set_random_seed(seed)
    return vae


def _key(*settings):
    """Return a short digest of the settings, the recipe and the code that uses them."""
    digest = hashlib.sha256(repr((keras.__version__, settings)).encode())
    for source in (losses.__file__, models.__file__, __file__):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()[:16]
