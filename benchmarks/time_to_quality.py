"""How long until a VAE is as good as the official Keras example's after its 30 epochs?

Usage: python benchmarks/time_to_quality.py [--seeds 3] [--epochs 30]

The baseline has the network and the recipe of the example "Variational AutoEncoder" on keras.io
(F. Chollet, 2020), written anew: two strided convolutions, a hidden layer of 16, two latent
dimensions, batches of 128, Adam at 0.001, a training step of its own. Both VAEs see the 60,000
training images only, through plain `fit`. Time runs from the call that builds the network to the
end of `fit`, compilation included; looking at test images is left out of it. Both are judged on
the same 10,000 test images, with one sampled z for each.
"""

import argparse
import json
import statistics
import time

import machine

FAST_STEPS, FAST_PEAK = 540, 8e-3  # a short run bears a higher rate than `training.train` takes
LAST_EPOCHS = 5  # the baseline's final loss is the mean over these


def train_baseline(digits, epochs, seed):
    """Train the example's VAE; return seconds and the test −ELBO after each of its last epochs."""
    import keras
    from keras import ops

    from vae_utils import evaluation, losses, models

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
        seconds, losses = 0.0, []

        def on_epoch_end(self, epoch, logs=None):
            if epoch >= epochs - LAST_EPOCHS:
                start = time.perf_counter()
                self.losses.append(-evaluation.elbo(vae, digits.x_test))
                self.seconds += time.perf_counter() - start

    model, judge = ExampleStep(), Judge()
    model.compile(keras.optimizers.Adam())
    x = digits.x_train
    model.fit(x, epochs=epochs, batch_size=128, callbacks=[judge], verbose=0)
    return time.perf_counter() - start - judge.seconds, judge.losses


def train_fast(digits, steps, seed):
    """Train the dense VAE with the book's recipe at `FAST_PEAK`, unvalidated; return as above."""
    from vae_utils import evaluation, models, training

    start = time.perf_counter()
    vae = models.build_vae("dense", seed=seed)
    images = training.batches(digits.train_levels).repeat().take(steps)
    training.prepare(vae, images, 1, FAST_PEAK)
    vae.fit(images, shuffle=False, verbose=0)
    seconds = time.perf_counter() - start
    return seconds, [-evaluation.elbo(vae, digits.x_test)]


def measure(which, length, seed):
    """Train one of the two in this process; print its figures as a line of JSON."""
    import keras

    from vae_utils import data

    digits = data.load_digits("mnist")
    keras.utils.set_random_seed(seed)
    train_it = {"baseline": train_baseline, "fast": train_fast}[which]
    seconds, losses = train_it(digits, length, seed)
    print(json.dumps({"seconds": seconds, "loss": statistics.mean(losses), "all": losses}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30, help="of the baseline")
    parser.add_argument("--one", nargs=3, metavar=("WHICH", "EPOCHS_OR_STEPS", "SEED"))
    arguments = parser.parse_args()
    if arguments.one:
        which, length, seed = arguments.one
        return measure(which, int(length), int(seed))
    print(machine.description())
    rows, ratios = [], []
    for seed in range(arguments.seeds):
        slow = machine.in_fresh_process(__file__, "baseline", arguments.epochs, seed)
        fast = machine.in_fresh_process(__file__, "fast", FAST_STEPS, seed)
        ratios.append(slow["seconds"] / fast["seconds"])
        figures = (slow["seconds"], slow["loss"], fast["seconds"], fast["loss"], ratios[-1])
        rows.append([seed, *(f"{figure:.2f}" for figure in figures)])
    header = ["seed", "baseline, s", "its −ELBO", "dense, s", "its −ELBO", "ratio"]
    print(machine.table(header, rows))
    print(f"\nRatio: {machine.spread(ratios, 0)}. Losses in nats per test image.")


if __name__ == "__main__":
    main()
