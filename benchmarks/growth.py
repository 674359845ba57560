"""How do seconds and memory grow with images, latent size and width? And beyond memory?

Usage: python benchmarks/growth.py

Seconds are those of an epoch after the first (which also builds the graph). Memory is the peak of
the whole process. The last table trains on a file larger than the memory that the process may take
(RLIMIT_DATA), once read into memory and once streamed from the disk by `vae_utils.yours.folder`.
"""

import argparse
import json
import math
import re
import resource
import tempfile
import time
from pathlib import Path

import machine

SIZES = {"images": 60_000, "latent_dim": 2, "width": 384}
SWEEPS = {
    "images": (1_000, 4_000, 16_000, 60_000),
    "latent_dim": (2, 8, 32, 128),
    "width": (96, 192, 384, 768),
}
MANY = 480_000
HEADROOM = 300 * 2**20  # what a process may take beyond its imports and its first step


def dense_vae(latent_dim, width):
    """Return the book's dense VAE at another width."""
    import keras
    from keras import layers

    from vae_utils import models

    relu = {"activation": "relu", "kernel_initializer": "he_uniform"}
    x, z = keras.Input((28, 28, 1)), keras.Input((latent_dim,))
    h = layers.Flatten()(x)
    for _ in range(2):
        h = layers.Dense(width, **relu)(h)
    encoder = keras.Model(x, [layers.Dense(latent_dim)(h), layers.Dense(latent_dim)(h)])
    h = z
    for _ in range(2):
        h = layers.Dense(width, **relu)(h)
    return models.VAE(encoder, keras.Model(z, layers.Reshape((28, 28, 1))(layers.Dense(784)(h))))


def epoch_seconds(vae, images, epochs):
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        vae.fit(images, shuffle=False, verbose=0)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(images, latent_dim, width):
    """Train in this process; print seconds per epoch and peak memory as a line of JSON."""
    from vae_utils import data, training

    levels = data.load_digits().train_levels[:images]
    vae = dense_vae(latent_dim, width)
    pipeline = training.batches(levels)
    training.prepare(vae, pipeline, 4)
    vae.fit(pipeline, shuffle=False, verbose=0)
    seconds = epoch_seconds(vae, pipeline, 3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "megabytes": peak}))


def measure_stream(path, way, headroom=HEADROOM, epochs=2):
    """Train on the file at `path` under a cap; print the result as a line of JSON."""
    import numpy as np
    import tensorflow as tf

    from vae_utils import training
    from vae_utils.yours import folder

    disk = np.load(path, mmap_mode="r")
    vae = dense_vae(2, 384)
    in_memory, streamed = training.batches(disk[:2000]), folder.stream(disk[:2000])
    training.prepare(vae, in_memory, 2)
    for small in (in_memory, streamed):
        vae.fit(small, shuffle=False, verbose=0)
    in_use = int(re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[1])
    cap = in_use * 1024 + int(headroom)
    resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))
    try:
        images = folder.stream(disk) if way == "streamed" else training.batches(np.load(path))
        seconds = epoch_seconds(vae, images, epochs)
        result = f"{1e6 * seconds / len(disk):.0f} µs per image"
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        result = f"{type(error).__name__}: out of memory"
    print(json.dumps(result))


def measure_ratio(path):
    """Train on one array in memory and on disk by turns; print both ratios of seconds as JSON."""
    import numpy as np

    from vae_utils import training
    from vae_utils.yours import folder

    disk, clocks = np.load(path, mmap_mode="r"), (time.perf_counter, time.process_time)
    vae = dense_vae(2, 384)
    in_memory, streamed = training.batches(np.load(path)), folder.stream(disk)
    training.prepare(vae, in_memory, 8)
    for images in (in_memory, streamed):
        vae.fit(images, shuffle=False, verbose=0)
    ratios = []
    for _ in range(7):
        read = []
        for images in (in_memory, streamed):
            before = [clock() for clock in clocks]
            vae.fit(images, shuffle=False, verbose=0)
            read.append([clock() - start for clock, start in zip(clocks, before)])
        ratios.append([stream / memory for memory, stream in zip(*read)])
    print(json.dumps(list(zip(*ratios))))


def sweep_table(name):
    rows, seconds = [], []
    for size in SWEEPS[name]:
        sizes = SIZES | {name: size}
        result = machine.in_fresh_process(__file__, *sizes.values())
        seconds.append(result["seconds"])
        rows.append([f"{size:,}", f"{result['seconds']:.2f}", f"{result['megabytes']:.0f}"])
    steps = zip(SWEEPS[name], SWEEPS[name][1:], seconds, seconds[1:])
    slopes = [math.log(later / earlier) / math.log(b / a) for a, b, earlier, later in steps]
    table = machine.table([name, "seconds per epoch", "peak memory, MiB"], rows)
    return f"{table}\n\nSlopes of log seconds: {', '.join(f'{slope:.2f}' for slope in slopes)}.\n"


def stream_table():
    import numpy as np

    from vae_utils import data

    levels = data.load_digits().train_levels
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for images in (len(levels), MANY):
            path = Path(folder) / "images.npy"
            shape = (images, *levels.shape[1:])
            file = np.lib.format.open_memmap(path, "w+", levels.dtype, shape)
            for start in range(0, images, len(levels)):
                file[start : start + len(levels)] = levels[: images - start]
            file.flush()
            if images == len(levels):
                ratios = machine.in_fresh_process(__file__, "ratio", path)
                wall, processor = (machine.spread(values, 2) for values in ratios)
            for way in ("in memory", "streamed"):
                result = machine.in_fresh_process(__file__, "stream", path, way)
                rows.append([f"{images:,}", f"{images * 784 / 2**20:.0f}", way, result])
    table = machine.table(["images", "MiB", "way", "result"], rows)
    return (
        f"{table}\n\nStreamed over in memory: {wall} of the time, {processor} of the processor's.\n"
    )


def main():
    print(machine.description(), "\n")
    for name in SWEEPS:
        print(sweep_table(name))
    print(f"With {HEADROOM / 2**20:.0f} MiB of memory to spare:\n")
    print(stream_table())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    one = parser.parse_args().one
    if one and one[0] == "stream":
        measure_stream(*one[1:])
    elif one and one[0] == "ratio":
        measure_ratio(one[1])
    elif one:
        measure(*map(int, one))
    else:
        main()
