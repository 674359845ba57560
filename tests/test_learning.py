"""The lab's engine in a browser: losses, gradients and steps are Keras's, its truth is SciPy's."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from scipy import integrate, optimize, special, stats

from vae_utils import losses, plots
from vae_utils.page import lab
from vae_utils.page.control import joined

ENGINE = lab.WORKER_SCRIPTS[:-1]  # all but what answers messages
SICK = ("none", "sign", "mean", "variance", "unused", "noiseless")
ROWS, LATENT, HIDDEN, WHITE = 13, 3, 10, 16
FLOAT32 = 1e-4  # relative

GRADIENT = """
({ inputs, hidden, latent, likelihood, weights, x, noise, rules }) => {
  const vae = new LatentLearning.VAE({ inputs, hidden, latent, likelihood });
  vae.weights.set(weights);
  vae.x.set(x);
  vae.noise.set(noise);
  const sums = vae.forward(x.length / inputs, rules.broken);
  vae.backward(sums, rules);
  return { loss: vae.loss(sums, rules), gradient: Array.from(vae.gradient) };
}
"""
DESCENT = """
({ inputs, hidden, latent, likelihood, weights, batches, rate }) => {
  const vae = new LatentLearning.VAE({ inputs, hidden, latent, likelihood });
  const adam = new LatentLearning.Adam(vae.count);
  vae.weights.set(weights);
  for (const { x, noise } of batches) {
    vae.x.set(x);
    vae.noise.set(noise);
    vae.backward(vae.forward(x.length / inputs));
    adam.apply(vae.weights, vae.gradient, rate);
  }
  return Array.from(vae.weights);
}
"""
WORKER = """
(source) => {
  const worker = new Worker(URL.createObjectURL(new Blob([source])));
  const lab = globalThis.lab = { told: [], worker, send: (message) => worker.postMessage(message) };
  worker.onerror = (event) => { throw new Error(event.message); };
  worker.onmessage = ({ data }) => { lab.told.push(data); };
  lab.next = async (type, wanted = () => true) => {
    const begin = performance.now();
    for (let from = lab.told.length; performance.now() - begin < 60000;) {
      await new Promise((done) => setTimeout(done, 5));
      for (; from < lab.told.length; from++)
        if (lab.told[from].type === type && wanted(lab.told[from])) return lab.told[from];
    }
    throw new Error(`No ${type} came within a minute; the last was ${lab.told.at(-1)?.type}`);
  };
}
"""
ASK = """
async ({ message, type }) => {
  if (message.digits) message.digits.levels = Uint8Array.from(message.digits.levels);
  const answer = lab.next(type, (told) => type !== "snapshot" || !told.running);
  lab.send(message);
  return JSON.parse(JSON.stringify(await answer, (_, value) =>
    ArrayBuffer.isView(value) ? Array.from(value) : value));
}
"""


@pytest.fixture(scope="module")
def page(browser):
    """Return an empty page with the engine's scripts."""
    page = browser.new_page()
    page.add_script_tag(content=joined(ENGINE))
    yield page
    page.close()


@pytest.fixture
def ask(page):
    """Return a function that sends a worker a message and returns its answer."""
    page.evaluate(WORKER, joined(lab.WORKER_SCRIPTS))

    def ask(answer="snapshot", **message):
        return page.evaluate(ASK, {"message": message, "type": answer})

    yield ask
    page.evaluate("lab.worker.terminate()")


class Reference:
    """The same VAE in Keras, in float64, with its mistakes written as readers make them."""

    def __init__(self, inputs, likelihood, rules=None, seed=0):
        self.inputs, self.likelihood = inputs, likelihood
        self.rules = {"beta": 1.0, "freeBits": 0.0, "broken": "none"} | (rules or {})
        rng = np.random.default_rng(seed)
        sizes = [(inputs, HIDDEN), (HIDDEN, 2 * LATENT), (LATENT, HIDDEN), (HIDDEN, inputs)]
        values = [rng.normal(0, 0.5, shape) for size in sizes for shape in (size, size[1:])] + (
            [np.array([-1.3])] if likelihood == "gaussian" else []
        )
        self.weights = [keras.Variable(value, dtype="float64") for value in values]
        lowest = 0 if likelihood == "bernoulli" else -2
        self.x = rng.uniform(lowest, 1, (ROWS, inputs))
        self.noise = rng.normal(size=(ROWS, LATENT))

    def loss(self, x, noise):
        w, broken, gaussian = self.weights, self.rules["broken"], self.likelihood == "gaussian"
        heads = ops.relu(x @ w[0] + w[1]) @ w[2] + w[3]
        mean, log_var = ops.split(heads, 2, axis=-1)
        sigma = ops.exp(log_var) if broken == "variance" else ops.exp(0.5 * log_var)
        z = mean if broken == "noiseless" else mean + sigma * noise
        output = ops.relu(z @ w[4] + w[5]) @ w[6] + w[7]
        if broken == "sigmoid":
            output = ops.sigmoid(output)
        if gaussian:
            reconstruction = losses.gaussian_nll(x, output, w[8][0])
        else:
            reconstruction = losses.bernoulli_nll(x, output)
        if broken == "mean":
            reconstruction = reconstruction / self.inputs
        kl = ops.square(mean) + ops.exp(log_var) - 1 - (0 if broken == "unused" else log_var)
        kl = ops.mean(kl, axis=0) / 2
        if self.rules["freeBits"]:
            kl = ops.maximum(self.rules["freeBits"], kl)
        beta = self.rules["beta"] * (-1 if broken == "sign" else 1)
        return ops.mean(reconstruction) + beta * ops.sum(kl)

    def gradients(self, x, noise):
        with tf.GradientTape() as tape:
            loss = self.loss(tf.constant(x), tf.constant(noise))
        return loss, tape.gradient(loss, [weight.value for weight in self.weights])

    def __call__(self, **more):
        """Return what the scripts take."""
        flat = np.concatenate([np.ravel(weight) for weight in self.weights])
        return {
            "inputs": self.inputs,
            "hidden": HIDDEN,
            "latent": LATENT,
            "likelihood": self.likelihood,
            "weights": flat.tolist(),
            "x": self.x.ravel().tolist(),
            "noise": self.noise.ravel().tolist(),
            "rules": self.rules,
            **more,
        }

    def parts(self, flat):
        """Cut a flat array into those of the weights."""
        ends = np.cumsum([math.prod(weight.shape) for weight in self.weights])[:-1]
        return np.split(np.asarray(flat), ends)


RULES = [
    *({"broken": broken} for broken in SICK),
    {"beta": 3.5},
    {"beta": 0.0},
    {"freeBits": 1.1},
    {"freeBits": 1.1, "beta": 3.5, "broken": "sign"},
]
CASES = [
    *(("gaussian", rules) for rules in RULES),
    *(("bernoulli", rules) for rules in [*RULES, {"broken": "sigmoid"}]),
]


@pytest.mark.parametrize(("likelihood", "rules"), CASES, ids=str)
def test_loss_and_every_gradient_are_those_of_keras(page, likelihood, rules):
    reference = Reference(19 if likelihood == "bernoulli" else 2, likelihood, rules)
    known, gradients = reference.gradients(reference.x, reference.noise)
    found = page.evaluate(GRADIENT, reference())
    assert found["loss"] == pytest.approx(float(known), rel=FLOAT32)
    for part, gradient in zip(reference.parts(found["gradient"]), gradients, strict=True):
        gradient = np.ravel(gradient)
        np.testing.assert_allclose(part, gradient, rtol=0, atol=FLOAT32 * np.abs(gradient).max())


def test_what_is_left_without_log_variance_may_be_negative(page):
    reference = Reference(19, "bernoulli", {"broken": "unused"})
    reference.weights[2].assign(np.zeros((HIDDEN, 2 * LATENT)))  # of any image: N(0, e^-5)
    reference.weights[3].assign([0.0] * LATENT + [-5.0] * LATENT)
    known, gradients = reference.gradients(reference.x, reference.noise)
    found = page.evaluate(GRADIENT, reference())
    assert found["loss"] == pytest.approx(float(known), rel=FLOAT32)
    heads = reference.parts(found["gradient"])[3]
    np.testing.assert_allclose(heads, gradients[3], atol=FLOAT32 * np.abs(gradients[3]).max())


def test_free_bits_hold_some_dimensions_back(page):
    # The bound above lies between the rates of the three dimensions: both cases are seen.
    reference = Reference(19, "bernoulli")
    heads = np.maximum(reference.x @ reference.weights[0] + reference.weights[1], 0)
    mean, log_var = np.split(heads @ reference.weights[2] + reference.weights[3], 2, axis=-1)
    rates = (np.square(mean) + np.exp(log_var) - 1 - log_var).mean(axis=0) / 2
    assert rates.min() < 1.1 < rates.max()


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_gradient_is_the_slope_of_the_loss(page, likelihood):
    reference = Reference(5, likelihood)
    weights = np.concatenate([np.ravel(weight) for weight in reference.weights])
    direction = np.random.default_rng(1).normal(size=weights.shape)
    direction /= np.linalg.norm(direction)
    step = 1e-3
    up, down = (
        page.evaluate(GRADIENT, reference(weights=(weights + sign * step * direction).tolist()))
        for sign in (1, -1)
    )
    slope = (up["loss"] - down["loss"]) / (2 * step)
    gradient = page.evaluate(GRADIENT, reference())["gradient"]
    assert np.dot(gradient, direction) == pytest.approx(slope, rel=5e-3)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_ten_steps_of_adam_are_those_of_keras(page, likelihood):
    reference = Reference(19 if likelihood == "bernoulli" else 2, likelihood)
    rng, rate = np.random.default_rng(2), 0.01
    batches = [(rng.permutation(reference.x)[:7], rng.normal(size=(7, LATENT))) for _ in range(10)]
    given = [{"x": x.ravel().tolist(), "noise": noise.ravel().tolist()} for x, noise in batches]
    found = page.evaluate(DESCENT, reference(batches=given, rate=rate))
    adam = keras.optimizers.Adam(rate)
    start = [weight.numpy().copy() for weight in reference.weights]
    for x, noise in batches:
        adam.apply(reference.gradients(x, noise)[1], reference.weights)
    for part, weight, before in zip(reference.parts(found), reference.weights, start, strict=True):
        moved = np.abs(weight - before).max()
        assert moved > 5 * rate
        np.testing.assert_allclose(part, np.ravel(weight), rtol=0, atol=2e-3 * moved)


def test_products_are_those_of_numpy(page):
    rng = np.random.default_rng(3)
    multiply = """
    ({ a, b, c, rows, depth, columns, turned }) => {
      const { array, multiply } = LatentProducts.products();
      const put = (values) => { const room = array(values.length); room.set(values); return room; };
      const sum = put(c);
      multiply(put(a), put(b), sum, rows, depth, columns, turned);
      return Array.from(sum);
    }
    """
    for rows, depth, columns in [(1, 1, 1), (50, 64, 128), (7, 3, 19), (6, 50, 2), (3, 2, 8)]:
        a, b, c = (rng.normal(size=s) for s in [(rows, depth), (depth, columns), (rows, columns)])
        for turned in (False, True):
            given = {"a": (a.T if turned else a).ravel().tolist(), "b": b.ravel().tolist()}
            given |= {"c": c.ravel().tolist(), "rows": rows, "depth": depth, "columns": columns}
            found = page.evaluate(multiply, given | {"turned": turned})
            np.testing.assert_allclose(found, (c + a @ b).ravel(), atol=1e-4)


def test_initial_weights_have_the_distribution_of_keras(page):
    sizes = {"inputs": 64, "hidden": 128, "latent": 2, "likelihood": "bernoulli"}
    found = page.evaluate(
        """(sizes) => {
          const vae = new LatentLearning.VAE(sizes, 7);
          return [vae.encoder, vae.heads, vae.decoder, vae.output].map(({ kernel, bias }) =>
            [Array.from(kernel), Array.from(bias)]);
        }""",
        sizes,
    )
    for (kernel, bias), shape in zip(found, [(64, 128), (128, 2), (2, 128), (128, 64)]):
        limit = np.abs(keras.initializers.GlorotUniform(0)((*shape,))).max()
        assert stats.kstest(kernel, stats.uniform(-limit, 2 * limit).cdf).pvalue > 1e-3
        assert not np.any(bias)


def test_random_numbers_are_uniform_and_normal_and_follow_the_seed(page):
    draw = """
    ([seed, stream]) => {
      const random = new LatentLearning.Random(seed, stream);
      return [Array.from(random.normals(new Float64Array(20000))),
              Array.from({ length: 20000 }, () => random.uniform()),
              random.shuffle(Array.from({ length: 1000 }, (_, i) => i))];
    }
    """
    normal, uniform, order = page.evaluate(draw, [0, "noise"])
    assert stats.kstest(normal, "norm").pvalue > 1e-3
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert sorted(order) == list(range(1000))
    assert abs(np.corrcoef(order, range(1000))[0, 1]) < 0.15
    assert page.evaluate(draw, [0, "noise"]) == [normal, uniform, order]
    for other in ([1, "noise"], [0, "order"], [2**32 - 1, "noise"]):
        assert abs(np.corrcoef(page.evaluate(draw, other)[0], normal)[0, 1]) < 0.03


# One latent dimension


def curved(dim, seed=0, log_var=-2.0):
    """Return weights of a VAE with one latent dimension and its decoder in NumPy."""
    rng = np.random.default_rng(seed)
    sizes = [(dim, HIDDEN), (HIDDEN, 2), (1, HIDDEN), (HIDDEN, dim)]
    w = [rng.normal(0, 0.7, shape) for size in sizes for shape in (size, size[1:])]

    def decoder(z):
        return np.maximum(np.reshape(z, (-1, 1)) @ w[4] + w[5], 0) @ w[6] + w[7]

    return np.concatenate([*map(np.ravel, w), [log_var]]).tolist(), decoder, math.exp(log_var / 2)


JUDGE = """
({ dim, weights, points, means, sigmas, split }) => {
  const sizes = { inputs: dim, hidden: 10, latent: 1, likelihood: "gaussian" };
  const vae = new LatentLearning.VAE(sizes);
  vae.weights.set(weights);
  const truth = new LatentTruth.Truth(vae), rows = Float32Array.from(points);
  const told = truth.judge(rows, means, sigmas, split);
  const look = truth.look(rows.subarray(0, dim), means[0], sigmas[0], split);
  const plain = (_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
  return JSON.parse(JSON.stringify({ ...told, look, z: LatentTruth.shownZ() }, plain));
}
"""


def judged(page, dim, points, means, sigmas, seed=0):
    weights, decoder, sigma = curved(dim, seed)
    given = {"dim": dim, "weights": weights, "points": np.ravel(points).tolist(), "split": True}
    return page.evaluate(JUDGE, given | {"means": means, "sigmas": sigmas}), decoder, sigma


POINTS = {1: [[-0.7], [0.4], [2.0]], 2: [[-0.7, 0.1], [0.4, 1.2], [2.0, -1.0]]}
MEANS, SIGMAS = [-0.5, 0.8, 1.9], [0.9, 0.2, 0.05]


@pytest.mark.parametrize("dim", [1, 2])
def test_likelihood_posterior_and_elbo_are_those_of_scipy(page, dim):
    found, decoder, sigma = judged(page, dim, POINTS[dim], MEANS, SIGMAS)

    def log_joint(z, x):
        return stats.norm.logpdf(x, decoder(z)[0], sigma).sum() + stats.norm.logpdf(z)

    def summed(function, low, high):
        return integrate.quad(function, low, high, limit=500, epsabs=0, epsrel=1e-6)[0]

    for i, (x, mean, spread) in enumerate(zip(POINTS[dim], MEANS, SIGMAS)):
        exact = math.log(summed(lambda z, x=x: math.exp(log_joint(z, x)), -8, 8))
        q = stats.norm(mean, spread)
        elbo = summed(
            lambda z, x=x, q=q: q.pdf(z) * (log_joint(z, x) - q.logpdf(z)),
            mean - 7 * spread,
            mean + 7 * spread,
        )
        assert found["likelihoods"][i] == pytest.approx(exact, abs=1e-4)
        assert found["perPoint"][i] == pytest.approx(exact - elbo, abs=2e-4 * max(1, abs(elbo)))
        if i == 0:
            z = np.array(found["z"])[::64]
            known = [math.exp(log_joint(each, x) - exact) for each in z]
            np.testing.assert_allclose(found["look"]["posterior"][::64], known, atol=1e-4)
    assert found["gap"] == pytest.approx(found["logLikelihood"] - found["elbo"])
    np.testing.assert_allclose(np.array(found["z"])[[0, 512, -1]], [-4, 0, 4])


@pytest.mark.parametrize("seed", range(4))
def test_best_gaussian_is_that_of_scipy(page, seed):
    found, decoder, sigma = judged(page, 2, POINTS[2], MEANS, SIGMAS, seed)
    t = np.linspace(-7, 7, 801)
    weight = stats.norm.pdf(t) / stats.norm.pdf(t).sum()

    def loss(q, x):
        mean, spread = q[0], math.exp(q[1])
        log_likelihood = stats.norm.logpdf(x, decoder(mean + spread * t), sigma).sum(axis=1)
        return 0.5 * (mean**2 + spread**2 - 1) - q[1] - weight @ log_likelihood

    def best(x):
        starts = [(mean, width) for mean in np.linspace(-3, 3, 13) for width in (-3, -1)]
        low = sorted(starts, key=lambda q: loss(q, x))[:6]
        runs = [optimize.minimize(loss, q, (x,), method="Nelder-Mead") for q in low]
        return min(run.fun for run in runs)

    known = [best(x) for x in POINTS[2]]
    assert found["look"]["best"]["elbo"] == pytest.approx(-known[0], abs=2e-3)
    family = found["logLikelihood"] + np.mean(known)
    assert found["family"] == pytest.approx(family, abs=2e-3)
    assert found["encoder"] == pytest.approx(found["gap"] - family, abs=2e-3)
    assert found["family"] > -1e-4
    assert found["encoder"] > 0


# Data and settings

SETS = ("moons", "ring", "bent", "mixture", "line")


def test_data_follow_the_seed_and_are_what_their_names_say(page):
    make = "(settings) => { const { dim, train, heldOut } = LatentData.points(settings);"
    make += " return { dim, train: Array.from(train), heldOut: Array.from(heldOut) }; }"
    found = {name: page.evaluate(make, {"data": name, "seed": 3}) for name in SETS}
    x = {name: np.reshape(made["train"], (-1, made["dim"])) for name, made in found.items()}
    for name in SETS:
        again, other = (page.evaluate(make, {"data": name, "seed": seed}) for seed in (3, 4))
        assert again == found[name] != other
        assert x[name].shape == (400, 1 if name == "line" else 2)
        assert len(found[name]["heldOut"]) == 200 * found[name]["dim"]
        assert np.abs(x[name]).max() < 3
    radius = np.linalg.norm(x["ring"], axis=1)
    assert stats.kstest((radius - radius.mean()) / 0.1, "norm").pvalue > 1e-3
    assert radius.mean() == pytest.approx(1.5, abs=0.02)
    bent = x["bent"][:, 1] - (0.6 * x["bent"][:, 0] ** 2 - 1)
    assert np.abs(bent).max() < 1
    angle = np.arctan2(*x["mixture"].T[::-1])
    assert abs(np.exp(3j * angle).mean() - np.exp(1.5j * np.pi)) < 0.3
    low = stats.norm(-1.2, 0.35).cdf(x["line"][:, 0])
    cdf = 0.6 * low + 0.4 * stats.norm(1, 0.5).cdf(x["line"][:, 0])
    assert stats.kstest(cdf, "uniform").pvalue > 1e-3
    upper = x["moons"][:, 0] + 0.6, x["moons"][:, 1] + 0.3
    lower = 0.6 - x["moons"][:, 0], 0.3 - x["moons"][:, 1]
    off = [np.abs(np.hypot(*half) - 1.2) + np.maximum(-half[1] - 0.3, 0) for half in (upper, lower)]
    assert np.minimum(*off).max() < 0.5


def test_own_points_are_read_written_and_refused(page):
    there_and_back = """(text) => {
        const [x, y, ...more] = LatentData.ownPoints(text), pairs = LatentSettings.pointsOf(text);
        if (x !== pairs[0][0] || y !== pairs[0][1] || more.length !== 2) throw new Error(text);
        return LatentSettings.pointsText(pairs);
    }"""
    assert page.evaluate(there_and_back, "0.5,-1;2,1.25") == "0.5,-1;2,1.25"
    for bad in ("", "1", "1,2,3", "1,x", "1,", "1,9", ";".join(["1,1"] * 201)):
        with pytest.raises(Exception, match="points must be 1 to 200 pairs .* Received: points="):
            page.evaluate(there_and_back, bad)


def test_settings_out_of_range_are_refused_and_mended(page):
    check = "(settings) => LatentSettings.check(settings)"
    nearest = "(given) => LatentSettings.nearest(...given)"
    assert page.evaluate(check, {"view": "digits", "beta": 4})["hidden"] == 128
    for given, message in [
        ({"beta": 70}, "beta must be a number from 0 to 50. Received: beta=70"),
        ({"batch": 2.5}, "batch must be a whole number from 1 to 1000. Received: batch=2.5"),
        ({"rate": "fast"}, "rate must be a number from 0.0001 to 0.1. Received: rate=fast"),
        ({"latent": 2}, "latent must be a whole number from 1 to 1. Received: latent=2"),
        ({"broken": "sigmoid"}, "broken must be one of none, sign, .* Received: broken=sigmoid"),
        ({"view": "plane"}, "view must be one of line, digits. Received: view=plane"),
        ({"lr": 1}, "There is no setting of this name. Received: lr=1"),
    ]:
        with pytest.raises(Exception, match=message):
            page.evaluate(check, given)
    for given, known in [
        (["beta", 70, "line"], 50),
        (["beta", "7", "line"], 7),
        (["batch", 2.6, "digits"], 3),
        (["rate", "fast", "digits"], 0.002),
        (["latent", 40, "digits"], 32),
        (["data", "8x8", "line"], "moons"),
        (["broken", "tired", "digits"], "none"),
    ]:
        assert page.evaluate(nearest, given) == known


# The worker


@pytest.fixture(scope="module")
def scans():
    """Return 300 of scikit-learn's digits as the page sends them."""
    from sklearn.datasets import load_digits

    levels = load_digits().data[:300].astype(int)
    return {"levels": levels.ravel().tolist(), "white": WHITE, "train": 200}


def test_a_run_follows_its_seed(ask, scans):
    ends = []
    for seed in (5, 5, 6):
        settings = {"view": "digits", "seed": seed, "batch": 64, "hidden": 20}
        ask(type="start", settings=settings, digits=scans)
        ask(type="steps", count=3)
        ask(type="look", dimensions=[1, 0])
        ends.append(ask(type="steps", count=4))
    one, same, other = ends
    assert one["step"] == 7
    assert one["epoch"] == pytest.approx((200 + 64 * 3) / 200)
    assert one["means"] == same["means"] != other["means"]
    assert one["train"] == same["train"] != other["train"]


@pytest.mark.parametrize("batch", [64, 1000])
def test_the_loss_that_is_told_is_that_of_an_epoch_however_often_it_is_told(batch, ask, scans):
    settings = {"view": "digits", "batch": batch, "hidden": 20}
    ask(type="start", settings=settings, digits=scans)
    first = ask(type="steps", count=6)["train"]["loss"]
    told = ask(type="start", settings=settings, digits=scans)["train"]
    assert told["loss"] == pytest.approx(told["reconstruction"] + told["kl"])
    begin = told["loss"]
    for _ in range(6):
        told = ask(type="steps", count=1)["train"]
    assert told["loss"] == first != told["reconstruction"] + told["kl"]
    told = ask(type="steps", count=100)["train"]
    assert begin - told["loss"] > 10
    assert abs(told["loss"] - told["negativeElbo"]) < 1.5  # of the last steps only


def test_a_snapshot_is_what_its_parts_say(ask, scans):
    settings = {"view": "digits", "latent": 3, "hidden": 40, "beta": 0.5, "rate": 0.005}
    first = ask(type="start", settings=settings, digits=scans)
    assert first["data"] == {"train": 200, "heldOut": 100}
    told = ask(type="steps", count=400)
    mean, sigma = (np.reshape(told[name], (100, 3)) for name in ("means", "sigmas"))
    kl = ops.convert_to_numpy(losses.gaussian_kl(mean, 2 * np.log(sigma))).mean()
    held_out = told["heldOut"]
    assert held_out["kl"] == pytest.approx(kl, rel=1e-4)
    assert held_out["kl"] == pytest.approx(sum(told["klPerDimension"]), rel=1e-5)
    assert kl > 1
    assert held_out["negativeElbo"] == pytest.approx(held_out["reconstruction"] + kl, rel=1e-5)
    assert held_out["loss"] == pytest.approx(held_out["reconstruction"] + 0.5 * kl, rel=1e-5)
    np.testing.assert_allclose(told["activity"], mean.var(axis=0), rtol=1e-3, atol=1e-6)
    assert held_out["negativeElbo"] < first["heldOut"]["negativeElbo"] - 10
    pictures = told["pictures"]
    np.testing.assert_allclose(pictures["planeZ"], plots.prior_quantiles(12), atol=1e-3)
    x = np.reshape(scans["levels"], (-1, 64)) / WHITE
    error = np.reshape(pictures["reconstructions"], (10, 64)) / 255 - x[200:210]
    assert np.square(error).mean() < 0.9 * np.square(x[200:210] - x[:200].mean(axis=0)).mean()


def test_pixels_scaled_twice_are_trained_on_and_not_judged_by(ask, scans):
    settings = {"view": "digits", "hidden": 20, "rate": 0.01, "broken": "scaled"}
    ask(type="start", settings=settings, digits=scans)
    told = ask(type="steps", count=300)
    x = np.reshape(scans["levels"], (-1, 64))[:200] / WHITE**2
    base = x.mean(axis=0)
    least = np.sum(special.entr(base) + special.entr(1 - base))  # of a decoder that ignores z
    assert told["heldOut"]["loss"] < 1.5 * least
    assert told["train"]["loss"] < 1.5 * least
    assert told["heldOut"]["negativeElbo"] > 60
    assert np.mean(told["pictures"]["samples"]) < 30


def test_the_largest_network_has_room(ask):
    levels = np.random.default_rng(0).integers(0, 256, 30 * 784)
    settings = {"view": "digits", "data": "28x28", "batch": 1000, "hidden": 512}
    settings |= {"latent": 32, "rate": 1e-4}
    digits = {"levels": levels.tolist(), "white": 255, "train": 20}
    first = ask(type="start", settings=settings, digits=digits)
    told = ask(type="steps", count=1)
    assert told["heldOut"]["negativeElbo"] < first["heldOut"]["negativeElbo"]
    assert len(told["pictures"]["plane"]) == 144 * 784


def test_warm_up_raises_beta_step_by_step(ask, scans):
    settings = {"view": "digits", "hidden": 5, "beta": 2, "warmup": 4}
    betas = [ask(type="start", settings=settings, digits=scans)["beta"]]
    betas += [ask(type="steps", count=1)["beta"] for _ in range(6)]
    assert betas == [0, 0, 0.5, 1, 1.5, 2, 2]


def test_settings_turned_while_it_runs(ask, page, scans):
    ask(type="start", settings={"view": "digits", "hidden": 20, "rate": 0.01}, digits=scans)
    before = ask(type="steps", count=300)["heldOut"]["kl"]
    page.evaluate("lab.send({ type: 'run' })")
    page.evaluate(
        "lab.next('snapshot', (told) => told.running && told.stepsPerSecond).then(() => 0)"
    )
    page.evaluate("lab.send({ type: 'change', settings: { beta: 20 } })")
    page.evaluate("lab.next('snapshot', (told) => told.beta === 20).then(() => 0)")
    paused = ask(type="pause")
    assert not paused["running"]
    after = ask(type="steps", count=300)
    assert after["step"] == paused["step"] + 300
    assert after["heldOut"]["kl"] < before / 2


def test_a_diverged_training_is_reported_and_can_start_again(ask, page):
    settings = {"view": "line", "rate": 0.1, "beta": 50, "broken": "sign"}
    ask(type="start", settings=settings)
    told = ask("diverged", type="run")
    assert told["step"] > 1
    told = ask(type="start", settings={"view": "line"})
    assert told["step"] == 0
    assert math.isfinite(told["heldOut"]["negativeElbo"])


def test_exact_numbers_of_the_line(ask):
    ask(type="start", settings={"view": "line", "data": "line"})
    told = ask(type="steps", count=400)
    truth = told["truth"]
    assert told["heldOut"]["negativeElbo"] == pytest.approx(-truth["elbo"])
    assert truth["gap"] == pytest.approx(np.mean(truth["perPoint"]), rel=1e-4)
    assert "family" not in truth
    told = ask(type="look", at=[0.5], split=True)
    assert told["truth"]["gap"] == pytest.approx(told["truth"]["family"] + told["truth"]["encoder"])
    z = -4 + np.arange(1025) / 128
    assert integrate.trapezoid(told["look"]["posterior"], z) == pytest.approx(1, abs=0.01)


def test_what_the_worker_cannot_do_it_says(ask, scans):
    def refused(**message):
        return ask("error", **message)["message"]

    assert "There is no model yet" in refused(type="run")
    assert "have not been sent" in refused(type="start", settings={"view": "digits"})
    ask(type="start", settings={"view": "line"})
    assert refused(type="start", settings={"beta": 70}).endswith("Received: beta=70")
    assert refused(type="change", settings={"rate": 7}).endswith("Received: rate=7")
    assert "start again. Received: hidden" in refused(type="change", settings={"hidden": 5})
    assert "Received: count=0" in refused(type="steps", count=0)
    assert "Received: stepsPerSecond=99" in refused(type="slow", stepsPerSecond=99)
    assert "at must hold 2 numbers" in refused(type="look", at=[1])
    assert "dimensions must lie from 0 to 0" in refused(type="look", dimensions=[0, 1])
    assert "type must be one of start, " in refused(type="stop")
    assert ask(type="steps", count=1)["step"] == 1
