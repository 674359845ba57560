"""How long the book's networks train, how well, in how much memory: the table of the README.

Usage: python benchmarks/networks.py [--epochs 10] [--seeds 3]

Each run is a process of its own, so that its peak memory is its own. Prints a Markdown table.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from datetime import date


def measure(architecture, epochs, seed):
    """Train one network in this process; print its figures as a line of JSON."""
    import keras

    from vae_utils import data, evaluation, models, training

    digits = data.load_digits()
    keras.utils.set_random_seed(seed)
    vae = models.build_vae(architecture, seed=seed)
    start = time.perf_counter()
    training.train(vae, digits, epochs, progress=False)
    seconds = time.perf_counter() - start
    result = {
        "data": digits.name,
        "parameters": vae.count_params(),
        "seconds": seconds,
        "negative_elbo": -evaluation.elbo(vae, digits.x_test),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(result))


def run(architecture, epochs, seed):
    """Measure in a fresh process; return its figures."""
    command = [sys.executable, __file__, "--one", architecture]
    command += ["--epochs", str(epochs), "--seed", str(seed)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def processor():
    """Return the processor's name, as far as the platform tells."""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":")[1].strip()
    return platform.processor()


def table(epochs, seeds):
    """Return the Markdown table: medians over seeds, the range of the loss in brackets."""
    rows = {name: [run(name, epochs, seed) for seed in range(seeds)] for name in NETWORKS}
    lines = [
        f"{date.today()}, {processor()}, {os.cpu_count()} cores, {rows['dense'][0]['data']}, "
        f"{epochs} epochs, {seeds} seeds.",
        "",
        "| network | parameters | seconds | test −ELBO, nats | peak memory, MB |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, results in rows.items():
        values = {key: [result[key] for result in results] for key in results[0]}
        middle = {key: statistics.median(values[key]) for key in list(values)[1:]}
        spread = f"{min(values['negative_elbo']):.1f} to {max(values['negative_elbo']):.1f}"
        lines.append(
            f"| {name} | {middle['parameters']:,} | {middle['seconds']:.1f} "
            f"| {middle['negative_elbo']:.1f} ({spread}) | {middle['megabytes']:.0f} |"
        )
    return "\n".join(lines)


NETWORKS = ("dense", "conv", "linear")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--one", choices=NETWORKS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.one, arguments.epochs, arguments.seed)
    else:
        print(table(arguments.epochs, arguments.seeds))
