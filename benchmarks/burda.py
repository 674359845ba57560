"""Table 1 of Burda et al. (2016): VAE and IWAE with one and two stochastic layers, K = 1, 5, 50.

Usage: python benchmarks/burda.py [--layers 1 2] [--samples 1 5 50] [--epochs 800] [--seeds 3]
                                  [--gradient total]

The paper's networks on dynamically binarized MNIST, all 60,000 training images, judged by the bound
with 5,000 samples on all 10,000 test images. All networks with the same layers and K, both
objectives and all seeds, learn at once, as one batch of networks. Each finished batch is written to
`burda.json`, so that a run which was interrupted goes on; a line says how far it is.

The ELBO's gradient is the total one, as in the paper, or with `--gradient path` that of Roeder et
al. (2017), which leaves out the term of log q(z|x) whose mean is zero: less noise at the same cost.

Needs JAX (pip install -e '.[jax]'), which takes a GPU where it finds one. On two cores 550 epochs
of K = 1 with one layer and one seed take 13 to 27 minutes, K = 50 days.
"""

import argparse
import json
import os
import platform
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax, nn, random
from tqdm import tqdm

from vae_utils import data

RESULTS = Path(__file__).with_suffix(".json")
PIXELS = 784
LATENT = {1: (50,), 2: (100, 50)}  # from the image upwards
HIDDEN = {1: (200,), 2: (200, 100)}
OBJECTIVES = ("VAE", "IWAE")
BATCH, WARM_UP = 200, 2_000
PEAK = {"total": {1: 3e-3, 2: 2e-3}, "path": {1: 5e-3, 2: 2e-3}}  # learning rate, by layers
TEST_SAMPLES, TEST_BATCH = 5_000, 20


def networks(key, layers, ink):
    """Return the weights of one VAE: for each layer an encoder and a decoder.

    Args:
        key: JAX random key.
        layers: number of stochastic layers, 1 or 2.
        ink: mean of each pixel over the training images, `(784,)`; the decoder starts from it.
    """
    below = (PIXELS, *LATENT[layers])
    encoders, decoders = [], []
    for i, (latent, hidden) in enumerate(zip(LATENT[layers], HIDDEN[layers])):
        keys = random.split(random.fold_in(key, i), 2)
        encoders.append(_block(keys[0], below[i], hidden, latent, heads=2))
        decoders.append(_block(keys[1], latent, hidden, below[i], heads=1 if i == 0 else 2))
    decoders[0][-1]["bias"] = jax.scipy.special.logit(jnp.clip(ink, 1e-3, 1 - 1e-3))
    return {"encoders": encoders, "decoders": decoders}


def _block(key, inputs, hidden, outputs, heads):
    """Two hidden tanh layers, then one layer for all heads: Glorot's uniform weights."""
    sizes = (inputs, hidden, hidden, outputs * heads)
    initialize = nn.initializers.glorot_uniform()
    return [
        {"kernel": initialize(k, (n, m)), "bias": jnp.zeros(m)}
        for k, n, m in zip(random.split(key, 3), sizes, sizes[1:])
    ]


def _apply(block, x):
    for layer in block[:-1]:
        x = jnp.tanh(x @ layer["kernel"] + layer["bias"])
    return x @ block[-1]["kernel"] + block[-1]["bias"]


def _gaussian(block, x):
    """Return mean and log σ, which the network puts out side by side."""
    return jnp.split(_apply(block, x), 2, axis=-1)


def _log_density(z, mean=0.0, log_std=0.0):
    """log N(z; mean, σ²), summed over the last axis."""
    squares = ((z - mean) / jnp.exp(log_std)) ** 2
    return (-0.5 * squares - log_std - 0.5 * jnp.log(2 * jnp.pi)).sum(-1)


def log_weights(weights, x, samples, key, gradient="total"):
    """log p(x, z) − log q(z|x) for K draws of z: Burda et al. (2016), equations 8 and 14.

    Args:
        weights: of `networks`.
        x: black-or-white images, `(batch, 784)`.
        samples: K.
        key: JAX random key.
        gradient: `"path"` lets the encoder's weights act through the draws alone, not through the
            density of q: Roeder et al. (2017), equation 5. The values are the same.

    Returns:
        Nats, `(K, batch)`.
    """
    log_weight, below, drawn = 0.0, x, []
    for i, encoder in enumerate(weights["encoders"]):
        mean, log_std = posterior = _gaussian(encoder, below)
        shape = (samples, *mean.shape[-2:])
        z = mean + jnp.exp(log_std) * random.normal(random.fold_in(key, i), shape)
        if gradient == "path":
            posterior = _gaussian(lax.stop_gradient(encoder), below)
        log_weight -= _log_density(z, *posterior)
        drawn.append(z)
        below = z
    log_weight += _log_density(drawn[-1])
    for decoder, z, target in zip(weights["decoders"][1:], drawn[1:], drawn):
        log_weight += _log_density(target, *_gaussian(decoder, z))
    logits = _apply(weights["decoders"][0], drawn[0])
    return log_weight + (x * logits - nn.softplus(logits)).sum(-1)


def loss(weights, x, samples, is_weighted, key, gradient="total"):
    """The negative bound, nats per image: the ELBO's mean over K draws, or the weighted one."""
    terms = log_weights(weights, x, samples, key, gradient)
    weighted = nn.logsumexp(terms, 0) - jnp.log(samples)
    return -jnp.where(is_weighted, weighted, terms.mean(0)).mean()


def _optimizer(layers, steps, gradient):
    warm_up, peak = min(WARM_UP, steps // 10), PEAK[gradient][layers]
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warm_up, steps)
    return optax.adam(schedule, eps=1e-4)


@partial(jax.jit, static_argnames=("samples", "gradient", "optimizer"), donate_argnums=(0, 1))
def epoch(weights, state, grey, is_weighted, keys, samples, gradient, optimizer):
    """Take all networks through the images once; return them with each one's mean loss."""

    def one_network(weights, state, is_weighted, key):
        def step(carry, rows_and_key):
            weights, state = carry
            rows, key = rows_and_key
            draw, noise = random.split(key)
            x = random.bernoulli(draw, grey[rows]).astype(jnp.float32)
            value, slopes = jax.value_and_grad(loss)(
                weights, x, samples, is_weighted, noise, gradient
            )
            change, state = optimizer.update(slopes, state)
            return (optax.apply_updates(weights, change), state), value

        order, key = random.split(key)
        rows = random.permutation(order, len(grey))[: len(grey) // BATCH * BATCH]
        rows = rows.reshape(-1, BATCH)
        carry, values = lax.scan(step, (weights, state), (rows, random.split(key, len(rows))))
        return *carry, values.mean()

    return jax.vmap(one_network)(weights, state, is_weighted, keys)


@jax.jit
def negative_log_likelihood(weights, x, key):
    """The bound on −log p(x) with 5,000 samples: nats, one row a network, one column an image."""

    def batch(images_and_key):
        images, key = images_and_key
        terms = jax.vmap(log_weights, (0, None, None, None))(weights, images, TEST_SAMPLES, key)
        return jnp.log(TEST_SAMPLES) - nn.logsumexp(terms, 1)

    batches = x.reshape(-1, TEST_BATCH, PIXELS)
    with jax.default_matmul_precision("float32"):
        nats = lax.map(batch, (batches, random.split(key, len(batches))))
    return jnp.moveaxis(nats, 0, 1).reshape(-1, len(x))


def train(layers, samples, epochs, seeds, gradient, grey):
    """Train one row of the table, all objectives and seeds at once; return them and the seconds."""
    # With K = 1 both objectives are the same; the path gradient of the weighted one is biased.
    objectives = OBJECTIVES[:1] if samples == 1 or gradient == "path" else OBJECTIVES
    kinds = [(objective, seed) for objective in objectives for seed in range(seeds)]
    keys = jnp.stack([random.key(seed) for _, seed in kinds])
    weights = jax.vmap(networks, (0, None, None))(keys, layers, grey.mean(0))
    optimizer = _optimizer(layers, epochs * (len(grey) // BATCH), gradient)
    state = jax.vmap(optimizer.init)(weights)
    is_weighted = jnp.array([objective == "IWAE" for objective, _ in kinds])
    start = time.perf_counter()
    bar = tqdm(range(epochs), f"{layers} layers, K = {samples}, {len(kinds)} networks")
    for number in bar:
        keys_of_epoch = jax.vmap(random.fold_in, (0, None))(keys, number + 1)
        weights, state, losses = epoch(
            weights, state, grey, is_weighted, keys_of_epoch, samples, gradient, optimizer
        )
        bar.set_postfix(loss=f"{losses.mean():.2f}")
    return kinds, weights, time.perf_counter() - start


def rows(layers, samples, epochs, seeds, gradient, digits):
    """Return the table's rows for these layers and K: one dictionary for each objective."""
    levels = np.concatenate([digits.train_levels, digits.validation_levels])
    grey = jnp.asarray(data.to_unit_interval(levels).reshape(-1, PIXELS))
    kinds, weights, seconds = train(layers, samples, epochs, seeds, gradient, grey)
    test = jnp.asarray(digits.x_test.reshape(-1, PIXELS))
    black_or_white = random.bernoulli(random.key(0), test).astype(jnp.float32)
    nats = negative_log_likelihood(weights, black_or_white, random.key(1)).mean(1)
    return [
        {
            "layers": layers,
            "objective": objective,
            "samples": samples,
            "gradient": gradient,
            "epochs": epochs,
            "seeds": list(range(seeds)),
            "nats": [round(float(n), 3) for n, (kind, _) in zip(nats, kinds) if kind == objective],
            "seconds": round(seconds),
            "networks": len(kinds),
            "machine": _machine(),
        }
        for objective in dict(kinds)
    ]


def _machine():
    device = jax.devices()[0].device_kind
    device = f"{os.cpu_count()} processor cores" if device == "cpu" else device
    return f"{device}, JAX {jax.__version__}, Python {platform.python_version()}"


def main(layers, samples, epochs, seeds, gradient, results):
    digits = data.load_digits("mnist")
    table = json.loads(results.read_text()) if results.exists() else []

    def kind(row):
        return row["layers"], row["samples"], row["gradient"]

    for asked in [(n, k, gradient) for n in layers for k in samples]:
        done = {(*kind(row), row["epochs"], len(row["seeds"])) for row in table}
        if (*asked, epochs, seeds) in done:
            continue
        new = rows(*asked[:2], epochs, seeds, gradient, digits)
        table = [row for row in table if kind(row) != asked] + new
        table.sort(key=lambda row: (*kind(row), row["objective"]))
        results.write_text(json.dumps(table, indent=1) + "\n")
        for row in new:
            print(
                f"{row['objective']}, {row['layers']} layers, K = {row['samples']}: {row['nats']}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", nargs="+", type=int, choices=LATENT, default=[1, 2])
    parser.add_argument("--samples", nargs="+", type=int, default=[1, 5, 50], metavar="K")
    parser.add_argument("--epochs", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--gradient", choices=PEAK, default="total", help="of the ELBO")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of the table")
    main(**vars(parser.parse_args()))
