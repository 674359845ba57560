"""What does a graphics processor bring for networks as small as the book's?

Usage: KERAS_BACKEND=jax python benchmarks/devices.py [--epochs 3] [--networks dense conv]

Trains the dense and the convolutional network with Keras's `fit`, on what Keras's backend finds
(JAX's CUDA build finds a GPU), with batches of 200 and 2,000 and in three precisions. Prints the
seconds of an epoch after the first, which compiles, and the last loss, as Markdown. Needs no
TensorFlow.
"""

import argparse
import itertools
import os
import statistics
import time

import keras
import machine
from tqdm import tqdm

from vae_utils import data, models

BATCHES = (200, 2_000)
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
LEARNING_RATE = 1e-3


def measure(network, policy, batch, images, epochs):
    """Return the median seconds of an epoch after the first, and the loss of the last."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    vae = models.build_vae(network)
    vae.compile(keras.optimizers.Adam(LEARNING_RATE))
    seconds = []
    for _ in range(epochs + 1):
        start = time.perf_counter()
        history = vae.fit(images, batch_size=batch, verbose=0).history
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]), history["loss"][-1]


def device():
    if keras.backend.backend() == "jax":
        import jax

        return f"{jax.devices()[0].device_kind} ({os.cpu_count()} processor cores), JAX"
    return f"{os.cpu_count()} processor cores, {keras.backend.backend()}"


def main(epochs, networks):
    images = data.load_digits("mnist").x_train[:]
    print(f"{device()}, Keras {keras.__version__}, {len(images):,} images\n")
    rows = []
    for network, batch, policy in tqdm([*itertools.product(networks, BATCHES, POLICIES)]):
        seconds, loss = measure(network, policy, batch, images, epochs)
        rows.append([network, f"{batch:,}", policy, f"{seconds:.2f}", f"{loss:.1f}"])
    print(machine.table(["network", "batch", "precision", "seconds an epoch", "loss"], rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=["dense", "conv"])
    main(**vars(parser.parse_args()))
