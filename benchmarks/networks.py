"""How long the book's networks train, how well, in how much memory.

Usage: python benchmarks/networks.py [--seeds 3]

Each run is a process of its own, so that its peak memory is its own: TensorFlow, the digits, the
training with its look at the validation images after each epoch, the evaluation. Prints a
Markdown table.
"""

import argparse
import json
import resource
import time

import machine

NETWORKS = {"dense": 10, "conv": 2, "linear": 10}  # epochs


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
        "loss": -evaluation.elbo(vae, digits.x_test),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(result))


def main(seeds):
    rows = []
    for name, epochs in NETWORKS.items():
        runs = [machine.in_fresh_process(__file__, name, epochs, seed) for seed in range(seeds)]
        spreads = [
            machine.spread([run[key] for run in runs], digits)
            for key, digits in (("seconds", 1), ("loss", 1), ("megabytes", 0))
        ]
        rows.append([name, f"{runs[0]['parameters']:,}", epochs, *spreads])
    print(f"{machine.description()}, {runs[0]['data']}, {seeds} seeds\n")
    header = ["network", "parameters", "epochs", "seconds", "test loss, nats", "peak memory, MiB"]
    print(machine.table(header, rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        architecture, *numbers = arguments.one
        measure(architecture, *map(int, numbers))
    else:
        main(arguments.seeds)
