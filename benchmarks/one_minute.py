"""What does a minute of training buy, and which change bought what?

Usage: python benchmarks/one_minute.py [--figure benchmarks/one_minute.svg]

Starts from the plain way (Adam at Keras's rate, Glorot's weights, batches of 128 as in the Keras
example) and adds one change after the other, to the dense and to the convolutional network, which
gets He's weights here although `build_vae` leaves it as the example has it. Each point is a
training of its own, planned for that number of epochs; seconds are those of `fit`, compilation
included. With --figure, draws −ELBO against seconds.
"""

import argparse
import json
import statistics
import time

import machine

PLAIN = {"schedule": False, "he": False, "batch": 128, "per_call": 1, "mean_image": False}
CHANGES = {  # each is added to those above it
    "plain": {},
    "+ schedule": {"schedule": True},
    "+ He's weights": {"he": True},
    "+ batches of 200": {"batch": 200},
    "+ 20 steps per call": {"per_call": 20},
    "+ bias at the mean image": {"mean_image": True},
}
RECIPES = {  # which of the changes, for how many epochs
    "dense": {
        "plain": (2, 10),
        "+ schedule": (2,),
        "+ He's weights": (2,),
        "+ batches of 200": (2,),
        "+ 20 steps per call": (1, 2, 4, 10, 24),
        "+ bias at the mean image": (2,),
    },
    "conv": {
        "plain": (1, 3),
        "+ schedule": (3,),
        "+ He's weights": (3,),
        "+ batches of 200": (3,),
        "+ 20 steps per call": (1, 3),
    },
}
SEEDS = {"dense": 3, "conv": 1}
KERAS_RATE = 1e-3  # Adam's default


def measure(architecture, epochs, seed, settings):
    """Train one network in this process; print seconds and validation −ELBO as a line of JSON."""
    import keras
    from scipy import special

    from vae_utils import data, evaluation, models, training

    digits = data.load_digits()
    keras.utils.set_random_seed(seed)
    vae = models.build_vae(architecture, seed=seed)
    for layer in (*vae.encoder.layers, *vae.decoder.layers):
        if getattr(layer, "activation", None) is keras.activations.relu:
            start = "he_uniform" if settings["he"] else "glorot_uniform"
            layer.kernel.assign(keras.initializers.get(start)(layer.kernel.shape))
    if settings["mean_image"]:
        mean_image = (digits.train_levels.mean(axis=0) + 0.5) / 256  # neither 0 nor 1
        vae.decoder.weights[-1].assign(special.logit(mean_image.ravel()))
    images = training.batches(digits.train_levels, settings["batch"])
    rate = KERAS_RATE
    if settings["schedule"]:
        steps = len(images) * epochs
        rate = training.warm_up_and_decay(training.PEAK_LEARNING_RATE, steps)
    start = time.perf_counter()
    vae.compile(keras.optimizers.Adam(rate), steps_per_execution=settings["per_call"])
    vae.fit(images, epochs=epochs, shuffle=False, verbose=0)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "loss": -evaluation.elbo(vae, digits.x_validation)}))


def plan():
    """Yield architecture, name of the last change, epochs and settings of each point."""
    for architecture, recipes in RECIPES.items():
        settings = dict(PLAIN)
        for name, epochs_list in recipes.items():
            settings |= CHANGES[name]
            for epochs in epochs_list:
                yield architecture, name, epochs, dict(settings)


def main(figure):
    print(machine.description(), "\n")
    runs = {}
    for seed in range(max(SEEDS.values())):  # outermost, so that a slow minute hits all rows
        for architecture, name, epochs, settings in plan():
            if seed < SEEDS[architecture]:
                arguments = architecture, epochs, seed, json.dumps(settings)
                run = machine.in_fresh_process(__file__, *arguments)
                runs.setdefault((architecture, name, epochs), []).append(run)
    rows, lines = [], {}
    for point, of_point in runs.items():
        seconds, losses = ([run[key] for run in of_point] for key in ("seconds", "loss"))
        rows.append([*point, machine.spread(seconds), machine.spread(losses)])
        medians = statistics.median(seconds), statistics.median(losses)
        lines.setdefault(point[:2], []).append(medians)
    header = ["network", "recipe", "epochs", "seconds", "validation −ELBO, nats"]
    print(machine.table(header, rows))
    if figure:
        draw(lines, figure)


def draw(lines, path):
    """Draw the medians: −ELBO against seconds, one line for each recipe."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for (architecture, name), points in lines.items():
        color = f"C{list(CHANGES).index(name)}"
        style, label = ("o-", name) if architecture == "dense" else ("s--", None)
        ax.plot(*zip(*points), style, color=color, ms=6, label=label)
    ax.set(xscale="log", xlabel="seconds of training", ylabel="validation −ELBO, nats per image")
    ax.set_title("Circles: the dense network. Squares: the convolutional one.", fontsize=10)
    ticks = [2, 5, 10, 20, 60]
    ax.set_xticks(ticks, ticks, minor=False)
    ax.xaxis.set_minor_locator(plt.NullLocator())
    ax.legend(fontsize=8)
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
