"""What share of the machine's arithmetic does training use?

Usage: python benchmarks/arithmetic.py

Counts the multiply-adds of the dense network's matrix products: one for each weight and image on
the way forward, one for the gradient of the weights, one for the gradient of the layer's input,
which the encoder's first layer does not need. Divides their rate in `fit` by the rate of one large
matrix product in float32, measured in the same process just before and just after.
"""

import argparse
import json
import statistics
import time

import machine

SIZE, REPEATS, EPOCHS = 2048, 20, 3
BATCH_SIZES = (64, 128, 200, 512, 1000)


def matrix_product_rate():
    """Return multiply-adds per second of a product of two large matrices."""
    import tensorflow as tf

    a, b = tf.random.normal((2, SIZE, SIZE))
    durations = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        (a @ b).numpy()
        durations.append(time.perf_counter() - start)
    return SIZE**3 / min(durations)


def training_rate(levels, batch_size):
    """Return multiply-adds per second of `fit`, the fastest of some epochs after the first."""
    from vae_utils import models, training

    vae = models.build_vae("dense")
    images, seconds = training.batches(levels, batch_size), []
    training.prepare(vae, images, EPOCHS)
    for _ in range(1 + EPOCHS):
        start = time.perf_counter()
        vae.fit(images, shuffle=False, verbose=0)
        seconds.append(time.perf_counter() - start)
    kernels = [weight.shape for weight in vae.trainable_weights if len(weight.shape) == 2]
    sizes = [rows * columns for rows, columns in kernels]
    per_image = 3 * sum(sizes) - sizes[0]
    return per_image * len(images) * batch_size / min(seconds[1:])


def measure():
    from vae_utils import data

    levels = data.load_digits().train_levels
    shares = {}
    for batch_size in BATCH_SIZES:
        before = matrix_product_rate()
        rate = training_rate(levels, batch_size)
        fastest = max(before, matrix_product_rate())
        shares[batch_size] = rate / fastest, fastest
    print(json.dumps(shares))


def main():
    print(machine.description(), "\n")
    runs = [machine.in_fresh_process(__file__) for _ in range(3)]
    rows = []
    for size in runs[0]:
        shares = [100 * run[size][0] for run in runs]
        rate = statistics.median(run[size][1] for run in runs)
        rows.append([size, machine.spread(shares, 0), f"{2 * rate / 1e9:.0f}"])
    header = ["batch size", "share of the matrix product's rate, %", "that rate, GFLOP/s"]
    print(machine.table(header, rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    measure() if parser.parse_args().one else main()
