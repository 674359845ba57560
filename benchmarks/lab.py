"""How fast the lab's VAE learns in Chromium, beside other engines, and how near to Keras it ends.

Usage: python benchmarks/lab.py [TFJS] [--rounds 7] [--seeds 5] [--seconds 10]

Trains 64-128-2-128-64 on the 1,437 scans of 8 x 8 pixels and 784-128-2-128-784 on 1,000 digits in
batches of 50: an epoch with each candidate, then the next round, in one Chromium, on one core where
the system lets us choose. Prints seconds and sizes.
TFJS is a folder with the unpacked npm packages tensorflow-tfjs and tensorflow-tfjs-backend-wasm;
without it they are left out. Then the lab's model learns for ten seconds and Keras's for as many
steps, with several seeds: the held-out negative ELBO of both.
"""

import argparse
import math
import os
import shutil
import statistics
from pathlib import Path

import keras
import numpy as np
from keras import layers
from machine import description, spread, table
from playwright.sync_api import sync_playwright
from scipy import stats

from vae_utils import data, evaluation, models
from vae_utils.page.control import joined
from vae_utils.page.lab import WORKER_SCRIPTS, scans, thousand

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BATCH, HIDDEN, LATENT, RATE = 50, 128, 2, 0.002  # the lab's defaults
WARM_UP = 20  # steps, for the browser's compilers
TFJS = {
    "tensorflow-tfjs": ["tf.min.js"],
    "tensorflow-tfjs-backend-wasm": ["tf-backend-wasm.min.js", "tfjs-backend-wasm-simd.wasm"],
}
SITE = "http://lab.test/"  # answered from files: no request leaves the browser
CANDIDATES = """
globalThis.candidates = (() => {
  const settings = LatentSettings.check({ view: "digits", batch: BATCH, rate: RATE });

  /** The products as loops over typed arrays, in the order that reads and writes rows. */
  const loops = () => ({
    array: (length) => new Float32Array(length),
    multiply(a, b, c, rows, depth, columns, turned = false) {
      const [aRow, aColumn] = turned ? [1, rows] : [depth, 1];
      for (let i = 0; i < rows; i++) for (let k = 0; k < depth; k++) {
        const value = a[i * aRow + k * aColumn], to = i * columns, from = k * columns;
        if (value) for (let j = 0; j < columns; j++) c[to + j] += value * b[from + j];
      }
    },
  });

  const own = (memory) => ({ levels, white, inputs }) => {
    const sizes = { inputs, hidden: HIDDEN, latent: LATENT, likelihood: "bernoulli" };
    const vae = new LatentLearning.VAE(sizes, 0, memory());
    const training = new LatentLearning.Training(vae, levels, white, settings);
    return async (steps) => { for (let i = 0; i < steps; i++) training.next(); };
  };

  const tensorflow = (backend) => async ({ levels, white, inputs }) => {
    if (backend === "wasm") tf.wasm.setWasmPaths(SITE);
    await tf.setBackend(backend);
    await tf.ready();
    const glorot = (from, to) => {
      const limit = Math.sqrt(6 / (from + to));
      return tf.variable(tf.randomUniform([from, to], -limit, limit));
    };
    const zeros = (size) => tf.variable(tf.zeros([size]));
    const dense = (from, to) => [glorot(from, to), zeros(to)];
    const [encoder, mean, logVar, decoder, output] = [dense(inputs, HIDDEN), dense(HIDDEN, LATENT),
      dense(HIDDEN, LATENT), dense(LATENT, HIDDEN), dense(HIDDEN, inputs)];
    const apply = (x, [kernel, bias]) => tf.add(tf.matMul(x, kernel), bias);
    const count = levels.length / inputs, optimizer = tf.train.adam(RATE, 0.9, 0.999, 1e-7);
    const x = tf.tensor2d(Float32Array.from(levels, (level) => level / white), [count, inputs]);
    const softplus = (a) => tf.add(tf.relu(a), tf.log1p(tf.exp(tf.neg(tf.abs(a)))));
    let order = [];
    return async (steps) => {
      for (let i = 0; i < steps; i++) {
        if (!order.length) order = Array.from(tf.util.createShuffledIndices(count));
        const rows = order.splice(0, BATCH);
        const loss = tf.tidy(() => optimizer.minimize(() => {
          const batch = tf.gather(x, tf.tensor1d(rows, "int32"));
          const h = tf.relu(apply(batch, encoder)), mu = apply(h, mean), s = apply(h, logVar);
          const noise = tf.randomNormal([rows.length, LATENT]);
          const z = tf.add(mu, tf.mul(tf.exp(tf.mul(s, 0.5)), noise));
          const logits = apply(tf.relu(apply(z, decoder)), output);
          const kl = tf.mul(0.5, tf.sum(tf.sub(tf.add(tf.square(mu), tf.exp(s)), tf.add(s, 1))));
          const reconstruction = tf.sum(tf.sub(softplus(logits), tf.mul(batch, logits)));
          return tf.div(tf.add(reconstruction, kl), rows.length);
        }, true));
        globalThis.lastLoss = (await loss.data())[0];
        loss.dispose();
      }
    };
  };

  return { "WebAssembly kernel": own(LatentProducts.products),
           "loops over typed arrays": own(loops),
           "TensorFlow.js, wasm": tensorflow("wasm"), "TensorFlow.js, cpu": tensorflow("cpu") };
})();
globalThis.prepare = async (name, { levels, ...more }) => {
  globalThis.train = await candidates[name]({ levels: Uint8Array.from(levels), ...more });
};
globalThis.seconds = async (steps) => {
  const begin = performance.now();
  await train(steps);
  return (performance.now() - begin) / 1000;
};
"""
IN_WORKER = """
async ({ source, images, settings, seconds }) => {
  const worker = new Worker(URL.createObjectURL(new Blob([source])));
  const digits = { ...images, levels: Uint8Array.from(images.levels) };
  const ended = new Promise((done) => {
    worker.onmessage = ({ data }) => {
      if (data.step && !data.running) done({ step: data.step, ...data.heldOut });
    };
  });
  worker.postMessage({ type: "start", settings, digits });
  worker.postMessage({ type: "run" });
  setTimeout(() => worker.postMessage({ type: "pause" }), 1000 * seconds);
  return ended;
}
"""


def given(levels, _, white, train):
    """Return the training part of digits as the candidates take it."""
    x = levels[:train].reshape(train, -1)
    return {"levels": x.ravel().tolist(), "white": white, "inputs": x.shape[1]}


def open_page(browser, folder):
    """Return a page with the engine and, if there is a folder, TensorFlow.js."""
    page = browser.new_page()
    files = {}
    if folder:
        for package, names in TFJS.items():
            files |= {name: Path(folder, package, "dist", name) for name in names}

    def answer(route):
        name = route.request.url.removeprefix(SITE)
        if name in files:
            route.fulfill(path=files[name])
        else:
            route.fulfill(body="<!doctype html>", content_type="text/html")

    page.route("**/*", answer)
    page.goto(SITE)
    page.add_script_tag(content=joined(WORKER_SCRIPTS[:-1]))
    for name in files:
        if name.endswith(".js"):
            page.add_script_tag(url=SITE + name)
    constants = {"BATCH": BATCH, "HIDDEN": HIDDEN, "LATENT": LATENT, "RATE": RATE, "SITE": SITE}
    page.evaluate("(constants) => Object.assign(globalThis, constants)", constants)
    page.add_script_tag(content=CANDIDATES)
    return page


def speeds(browser, folder, rounds):
    """Print a table: seconds for an epoch of each candidate, all in turn in each round."""
    names = ["WebAssembly kernel", "loops over typed arrays"]
    names += ["TensorFlow.js, wasm", "TensorFlow.js, cpu"] if folder else []
    seconds = {name: [] for name in names}
    for digits in (scans(), thousand(data.load_digits())):
        images, steps = given(*digits), math.ceil(digits[-1] / BATCH)
        opened = {name: open_page(browser, folder) for name in names}
        for name, page in opened.items():
            page.evaluate("([name, images]) => prepare(name, images)", [name, images])
            page.evaluate("(steps) => seconds(steps)", WARM_UP)
        times = {name: [] for name in names}
        for _ in range(rounds):
            for name, page in opened.items():
                times[name].append(page.evaluate("(steps) => seconds(steps)", steps))
        for name, page in opened.items():
            per_second = f"{steps / statistics.median(times[name]):,.0f}"
            seconds[name] += [spread(times[name], 3), per_second]
            page.close()
    header = [
        f"{size}, {what}" for size in ("8 × 8", "28 × 28") for what in ("s an epoch", "steps/s")
    ]
    print(table(["engine", *header], [[name, *seconds[name]] for name in names]))


def sizes(folder):
    """Print how many bytes each candidate brings to a page."""
    all_of_it, kernel = (len(joined(n).encode()) for n in (WORKER_SCRIPTS, ["products.js"]))
    print(f"the lab's worker: {all_of_it:,} bytes, of them the kernel's {kernel:,}")
    if folder:
        files = [Path(folder, package, "dist", n) for package, all in TFJS.items() for n in all]
        print("TensorFlow.js:", ", ".join(f"{f.name} {f.stat().st_size:,}" for f in files))


def agreement(browser, seeds, seconds):
    """Print the held-out negative ELBO of the lab and of Keras after as many steps."""
    levels, _, white, train = scans()
    images = {"levels": levels.ravel().tolist(), "white": white, "train": train}
    settings = {"view": "digits", "batch": BATCH, "hidden": HIDDEN, "latent": LATENT, "rate": RATE}
    rows, x = [], (levels / white).astype("float32")
    for seed in range(seeds):
        page = open_page(browser, None)
        request = {"source": joined(WORKER_SCRIPTS), "images": images, "seconds": seconds}
        told = page.evaluate(IN_WORKER, request | {"settings": settings | {"seed": seed}})
        page.close()
        epochs = round(told["step"] / math.ceil(train / BATCH))
        vae = in_keras(x[:train], seed, epochs)
        rows.append([seed, told["step"], told["negativeElbo"], -evaluation.elbo(vae, x[train:])])
    shown = [[seed, f"{steps:,}", *(f"{x:.2f}" for x in nats)] for seed, steps, *nats in rows]
    print(table(["seed", "steps", "the lab, nats", "Keras, nats"], shown))
    here, there = np.transpose(rows)[2:]
    error = math.hypot(*(stats.sem(each) for each in (here, there))) / there.mean()
    print(f"the lab's mean beside Keras's: {here.mean() / there.mean() - 1:+.2%} ± {error:.2%}")


def in_keras(x, seed, epochs):
    keras.utils.set_random_seed(seed)
    images, z = keras.Input(x.shape[1:]), keras.Input((LATENT,))
    h = layers.Dense(HIDDEN, "relu")(layers.Flatten()(images))
    encoder = keras.Model(images, [layers.Dense(LATENT)(h), layers.Dense(LATENT)(h)])
    h = layers.Dense(math.prod(x.shape[1:]))(layers.Dense(HIDDEN, "relu")(z))
    vae = models.VAE(encoder, keras.Model(z, layers.Reshape(x.shape[1:])(h)))
    vae.compile(keras.optimizers.Adam(RATE))
    vae.fit(x, batch_size=BATCH, epochs=epochs, verbose=0)
    return vae


def main(folder, rounds, seeds, seconds):
    print(description())
    if hasattr(os, "sched_setaffinity"):  # the browser inherits it: the target is for one core
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    executable = next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--disable-gpu", *root]
        )
        print(f"Chromium {browser.version}")
        sizes(folder)
        speeds(browser, folder, rounds)
        if seeds:
            agreement(browser, seeds, seconds)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tfjs", nargs="?", help="folder with the unpacked packages")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=5, help="0 leaves Keras out")
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    main(arguments.tfjs, arguments.rounds, arguments.seeds, arguments.seconds)
