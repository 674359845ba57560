"""What does a minute of training buy, and which change bought what?

Usage: python benchmarks/one_minute.py [--figure benchmarks/one_minute.svg]

Starts from the plain way (Keras's defaults) and adds one change after the other, to the dense and
to the convolutional network. Each point is a training of its own, planned for that number of
epochs; seconds are those of `fit`, compilation included. Draws −ELBO against seconds.
"""

import argparse
import json
import statistics
import time

import machine

PLAIN = {"schedule": False, "he": False, "batch": 128, "per_call": 1}
CHANGES = {  # each line is added to those above it
    "plain": {},
    "+ schedule": {"schedule": True},
    "+ He's weights": {"he": True},
    "+ batches of 200, 20 steps per call": {"batch": 200, "per_call": 20},
}
CONV_CHANGES = {
    "plain": {},
    "+ schedule": {"schedule": True},
    "+ He's weights": {"he": True},
    "+ 20 steps per call": {"per_call": 20},
}
EPOCHS = {"dense": (2,), "conv": (1, 3)}
LONG = {"dense": (1, 2, 4, 8, 16, 30), "conv": (1, 2, 3)}  # with all changes
SEEDS = 3
KERAS_RATE = 1e-3  # Adam's default


def measure(architecture, epochs, seed, settings):
    """Train one network in this process; print seconds and test −ELBO as a line of JSON."""
    import keras

    from vae_utils import data, evaluation, models, training

    digits = data.load_digits()
    keras.utils.set_random_seed(seed)
    vae = models.build_vae(architecture, seed=seed)
    for layer in (*vae.encoder.layers, *vae.decoder.layers):
        if getattr(layer, "activation", None) is keras.activations.relu:
            start = "he_uniform" if settings["he"] else "glorot_uniform"
            layer.kernel.assign(keras.initializers.get(start)(layer.kernel.shape))
    images = training.batches(digits.train_levels, settings["batch"])
    rate = KERAS_RATE
    if settings["schedule"]:
        steps = len(images) * epochs
        rate = training.warm_up_and_decay(training.PEAK_LEARNING_RATE, steps)
    start = time.perf_counter()
    vae.compile(keras.optimizers.Adam(rate), steps_per_execution=settings["per_call"])
    vae.fit(images, epochs=epochs, shuffle=False, verbose=0)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "loss": -evaluation.elbo(vae, digits.x_test)}))


def trainings(architecture, epochs, settings, seeds=SEEDS):
    """Return seconds and losses of trainings with one seed each, in processes of their own."""
    recipe = json.dumps(settings)
    runs = [
        machine.in_fresh_process(__file__, architecture, epochs, seed, recipe)
        for seed in range(seeds)
    ]
    return [[run[key] for run in runs] for key in ("seconds", "loss")]


def main(figure):
    print(machine.description(), "\n")
    rows, points = [], {}
    for architecture, changes in (("dense", CHANGES), ("conv", CONV_CHANGES)):
        settings = dict(PLAIN)
        seeds = SEEDS if architecture == "dense" else 1
        for name, change in changes.items():
            settings |= change
            for epochs in EPOCHS[architecture]:
                seconds, losses = trainings(architecture, epochs, settings, seeds)
                rows.append(_row(architecture, name, epochs, seconds, losses))
                points.setdefault((architecture, name), []).append((seconds, losses))
        for epochs in LONG[architecture]:
            seconds, losses = trainings(architecture, epochs, settings, seeds)
            rows.append(_row(architecture, "all of these", epochs, seconds, losses))
            points.setdefault((architecture, "all of these"), []).append((seconds, losses))
        print(f"{architecture} done", flush=True)
    header = ["network", "recipe", "epochs", "seconds", "test −ELBO, nats"]
    print(machine.table(header, rows))
    if figure:
        draw(points, figure)


def _row(architecture, name, epochs, seconds, losses):
    return [architecture, name, epochs, machine.spread(seconds), machine.spread(losses)]


def draw(points, path):
    """Draw the medians: −ELBO against seconds, one line for each recipe."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for (architecture, name), runs in points.items():
        x, y = zip(*((statistics.median(s), statistics.median(ls)) for s, ls in runs))
        style = "o-" if architecture == "dense" else "s--"
        ax.plot(x, y, style, ms=5, label=f"{architecture}: {name}")
    ax.set(xscale="log", xlabel="seconds of training", ylabel="negative ELBO, nats per test image")
    ticks = [1, 2, 5, 10, 20, 60]
    ax.set_xticks(ticks, ticks, minor=False)
    ax.legend(fontsize=7)
    fig.savefig(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        architecture, epochs, seed, settings = arguments.one
        measure(architecture, int(epochs), int(seed), json.loads(settings))
    else:
        main(arguments.figure)
