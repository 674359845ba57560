"""How long until a VAE is as good as the official Keras example's at the end of its 30 epochs?

Usage: python benchmarks/time_to_quality.py [--seeds 3] [--epochs 30] [--choose]

The baseline has the network and the recipe of the example "Variational AutoEncoder" on keras.io
(F. Chollet, 2020), written anew: two strided convolutions, a hidden layer of 16, two latent
dimensions, batches of 128, Adam at 0.001, a training step of its own. Both VAEs see the training
part only, through plain `fit`. The level to reach is the baseline's own: its −ELBO on the
validation images, the mean over its last five epochs. The baseline's time ends with the first epoch
at that level, not with the last one. The dense VAE trains for a number of steps with a peak rate;
`--choose` compares such choices on validation images, with seeds that are not measured here. Time
runs from the call that builds the network, compilation included; judging is left out of it. The
test images are looked at once, after training.
"""

import argparse
import json
import statistics
import time

import machine

FAST_STEPS, FAST_PEAK = 480, 1.25e-2  # the fewest steps to 151.5 nats with each choosing seed
CHOICES = [(steps, peak) for steps in (360, 420, 480) for peak in (1e-2, 1.25e-2, 1.5e-2)]
CHOOSING_SEEDS = (100, 101, 102)
LAST_EPOCHS = 5  # the level is the baseline's mean over these


def train_baseline(digits, epochs, seed):
    """Train the example's VAE; return it, and seconds and validation −ELBO after each epoch."""
    import keras
    from keras import ops

    from vae_utils import data, evaluation, losses, models

    start = time.perf_counter()
    vae = models.build_vae("conv", seed=seed)  # the same network, but for the sigmoid

    class ExampleStep(keras.Model):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder, self.sampling = vae.encoder, vae.decoder, vae.sampling
            names = ("loss", "reconstruction", "kl")
            self.trackers = [keras.metrics.Mean(name=name) for name in names]

        def train_step(self, x):
            import tensorflow as tf

            with tf.GradientTape() as tape:
                mean, log_var = self.encoder(x)
                image = ops.sigmoid(self.decoder(self.sampling((mean, log_var))))
                per_pixel = keras.losses.binary_crossentropy(x, image)
                reconstruction = ops.mean(ops.sum(per_pixel, axis=(1, 2)))
                kl = ops.mean(losses.gaussian_kl(mean, log_var))
                loss = reconstruction + kl
            gradients = tape.gradient(loss, self.trainable_weights)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights))
            for tracker, value in zip(self.trackers, (loss, reconstruction, kl)):
                tracker.update_state(value)
            return {tracker.name: tracker.result() for tracker in self.trackers}

    class Judge(keras.callbacks.Callback):
        judging, curve = 0.0, []

        def on_epoch_end(self, epoch, logs=None):
            now = time.perf_counter()
            loss = -evaluation.elbo(vae, digits.x_validation)
            self.curve.append((now - start - self.judging, loss))
            self.judging += time.perf_counter() - now

    model, judge = ExampleStep(), Judge()
    model.compile(keras.optimizers.Adam())
    x = data.to_unit_interval(digits.train_levels)
    model.fit(x, epochs=epochs, batch_size=128, callbacks=[judge], verbose=0)
    return vae, judge.curve


def train_fast(digits, steps, peak, seed):
    """Train the dense VAE with the book's recipe, but for its peak; return as above, one point."""
    from vae_utils import evaluation, models, training

    start = time.perf_counter()
    vae = models.build_vae("dense", seed=seed)
    images = training.batches(digits.train_levels).repeat().take(steps)
    training.prepare(vae, images, 1, peak)
    vae.fit(images, shuffle=False, verbose=0)
    seconds = time.perf_counter() - start
    return vae, [(seconds, -evaluation.elbo(vae, digits.x_validation))]


def measure(which, seed, length, peak=None):
    """Train one of the two in this process; print its figures as a line of JSON."""
    import keras

    from vae_utils import data, evaluation

    digits = data.load_digits("mnist")
    keras.utils.set_random_seed(seed)
    if which == "baseline":
        vae, curve = train_baseline(digits, length, seed)
    else:
        vae, curve = train_fast(digits, length, peak, seed)
    print(json.dumps({"curve": curve, "test": -evaluation.elbo(vae, digits.x_test)}))


def level_and_time(curve):
    """Return the level that a curve ends at, and the first epoch and second at that level."""
    level = statistics.mean(loss for _, loss in curve[-LAST_EPOCHS:])
    epoch = next(number for number, (_, loss) in enumerate(curve) if loss <= level)
    return level, epoch + 1, curve[epoch][0]


def choose():
    """Print the validation −ELBO of each choice of steps and peak: the median over seeds."""
    rows = []
    for steps, peak in CHOICES:
        runs = [
            machine.in_fresh_process(__file__, "fast", seed, steps, peak) for seed in CHOOSING_SEEDS
        ]
        losses = [run["curve"][-1][1] for run in runs]
        rows.append(
            [steps, peak, machine.spread(losses), machine.spread([r["curve"][-1][0] for r in runs])]
        )
    print(machine.table(["steps", "peak rate", "validation −ELBO, nats", "seconds"], rows))


def race(seeds, epochs):
    """Print both VAEs' seconds to the baseline's level, side by side, and their ratio."""
    rows, ratios = [], []
    for seed in range(seeds):
        slow = machine.in_fresh_process(__file__, "baseline", seed, epochs)
        fast = machine.in_fresh_process(__file__, "fast", seed, FAST_STEPS, FAST_PEAK)
        level, epoch, seconds = level_and_time(slow["curve"])
        fast_seconds, fast_loss = fast["curve"][-1]
        ratios.append(seconds / fast_seconds)
        losses = [f"{loss:.1f}" for loss in (level, slow["test"], fast_loss, fast["test"])]
        times = [f"{epoch}", f"{seconds:.0f}", f"{slow['curve'][-1][0]:.0f}", f"{fast_seconds:.1f}"]
        rows.append([seed, *times, *losses, f"{ratios[-1]:.0f}"])
    header = ["seed", "first epoch at its level", "s", "all epochs, s", "dense, s"]
    header += ["level", "its test −ELBO", "dense, validation", "dense, test", "ratio"]
    print(machine.table(header, rows))
    print(f"\nRatio: {machine.spread(ratios, 0)}. Losses in nats per image.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30, help="of the baseline")
    parser.add_argument("--choose", action="store_true", help="steps and peak of the dense VAE")
    parser.add_argument("--one", nargs="+", metavar=("WHICH", "SEED LENGTH [PEAK]"))
    arguments = parser.parse_args()
    if arguments.one:
        which, seed, length, *peak = arguments.one
        return measure(which, int(seed), int(length), *map(float, peak))
    print(machine.description())
    choose() if arguments.choose else race(arguments.seeds, arguments.epochs)


if __name__ == "__main__":
    main()
