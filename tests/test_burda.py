"""The program that trains Table 1 of Burda et al.: its weights, its bounds, its file."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logsumexp
from scipy.stats import bernoulli, norm

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def whole_program():
    for needed in ("jax", "optax"):
        pytest.importorskip(needed, reason=f"{needed} is not installed: pip install -e '.[jax]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import burda

        yield burda
        del sys.modules["burda"]


@pytest.fixture
def burda(whole_program, monkeypatch):
    """Return the program with small networks: 6 pixels, one latent number a layer."""
    monkeypatch.setattr(whole_program, "PIXELS", 6)
    monkeypatch.setattr(whole_program, "LATENT", {1: (1,), 2: (1, 1)})
    monkeypatch.setattr(whole_program, "HIDDEN", {1: (3,), 2: (4, 3)})
    monkeypatch.setattr(whole_program, "BATCH", 16)
    return whole_program


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 2, (20, 6)).astype("float32")


def networks(burda, layers, size=1.0):
    """Return networks with all weights random, the offsets too."""
    from jax import tree

    random = np.random.default_rng(layers)
    weights = burda.networks(burda.random.key(0), layers, np.full(6, 0.3))
    return tree.map(lambda w: size * random.standard_normal(w.shape).astype("float32"), weights)


def output(block, x):
    """What a network makes of x, in NumPy."""
    *hidden, last = [(np.asarray(layer["kernel"]), layer["bias"]) for layer in block]
    for kernel, bias in hidden:
        x = np.tanh(x @ kernel + bias)
    return x @ last[0] + last[1]


def log_normal(z, block, x):
    mean, log_std = np.split(output(block, x), 2, axis=-1)
    return norm.logpdf(z, mean, np.exp(log_std)).sum(-1)


def log_joint(weights, x, drawn):
    """log p(x, z) from SciPy's densities, for z of each layer from the image upwards."""
    value = norm.logpdf(drawn[-1]).sum(-1)
    for decoder, z, target in zip(weights["decoders"][1:], drawn[1:], drawn):
        value += log_normal(target, decoder, z)
    ink = expit(output(weights["decoders"][0], drawn[0]).astype(float))
    return value + bernoulli.logpmf(x, ink).sum(-1)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_weights_are_those_of_the_densities(burda, images, monkeypatch, layers):
    weights, key = networks(burda, layers), burda.random.key(1)
    drawn, normal = [], burda.random.normal
    monkeypatch.setattr(
        burda.random, "normal", lambda *args: drawn.append(normal(*args)) or drawn[-1]
    )
    ours = burda.log_weights(weights, images, 5, key)
    below, z, proposal = images, [], 0.0
    for encoder, noise in zip(weights["encoders"], drawn, strict=True):
        mean, log_std = np.split(output(encoder, below), 2, axis=-1)
        z.append(mean + np.exp(log_std) * noise)
        proposal += log_normal(z[-1], encoder, below)
        below = z[-1]
    assert ours.shape == (5, len(images))
    np.testing.assert_allclose(ours, log_joint(weights, images, z) - proposal, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_bound_with_many_samples_is_the_evidence(burda, images, layers):
    weights = networks(burda, layers, size=0.1)  # all densities of z broad, as the prior
    weights["decoders"][0] = networks(burda, layers, size=0.5)["decoders"][0]
    line = np.linspace(-7, 7, 281, dtype="float32")[:, None]
    cell = line[1, 0] - line[0, 0]
    if layers == 1:
        drawn = [line]
    else:
        drawn = [np.repeat(line, len(line), axis=0), np.tile(line, (len(line), 1))]
    joint = np.stack([log_joint(weights, x, drawn) for x in images])
    exact = logsumexp(joint, axis=1) + layers * np.log(cell)
    stacked = {name: [[{k: v[None] for k, v in layer.items()} for layer in block]
                      for block in blocks] for name, blocks in weights.items()}  # fmt: skip
    ours = burda.negative_log_likelihood(stacked, burda.jnp.asarray(images), burda.random.key(2))
    np.testing.assert_allclose(-ours[0], exact, atol=0.05)
    assert abs(np.mean(-ours[0] - exact)) < 0.01


def test_the_loss_is_either_bound_and_falls_with_the_samples_for_one_of_them(burda, images):
    weights, key = networks(burda, 2), burda.random.key(3)
    terms = np.asarray(burda.log_weights(weights, images, 4, key), float)
    elbo, weighted = terms.mean(0), logsumexp(terms, axis=0) - np.log(4)

    def loss(x, samples, is_weighted):
        return float(burda.loss(weights, x, samples, is_weighted, key))

    assert loss(images, 4, False) == pytest.approx(-elbo.mean(), rel=1e-5)
    assert loss(images, 4, True) == pytest.approx(-weighted.mean(), rel=1e-5)
    many = np.tile(images, (200, 1))
    one, few, more = (loss(many, k, True) for k in (1, 5, 50))
    assert one - 0.05 > few > more + 0.05
    alone, averaged = (loss(many, k, False) for k in (1, 50))
    assert alone == pytest.approx(averaged, abs=0.2)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_path_gradient_differs_by_the_score_and_the_score_s_mean_is_zero(burda, images, layers):
    from jax import grad, jit, tree, vmap

    weights, many = networks(burda, layers, size=0.5), np.repeat(images[:1], 20_000, axis=0)

    def by_hand(weights, frozen, key):
        """The mean of log q over draws, the density with weights of its own."""
        value, below = 0.0, many
        for i, encoder in enumerate(weights["encoders"]):
            mean, log_std = burda._gaussian(encoder, below)
            shape = (1, *mean.shape[-2:])
            noise = burda.random.normal(burda.random.fold_in(key, i), shape)
            z = mean + burda.jnp.exp(log_std) * noise
            value += burda._log_density(z, *burda._gaussian(frozen[i], below)).mean()
            below = z
        return value

    def slopes(key):
        total, path = (
            grad(burda.loss)(weights, many, 1, False, key, kind)["encoders"]
            for kind in ("total", "path")
        )
        score = grad(by_hand, argnums=1)(weights, weights["encoders"], key)
        return total, path, score

    total, path, score = vmap(jit(slopes))(burda.random.split(burda.random.key(5), 20))
    for all_, through_draws, left_out in zip(*map(tree.leaves, (total, path, score)), strict=True):
        np.testing.assert_allclose(all_ - through_draws, left_out, atol=2e-4)
        error = left_out.std(0) / np.sqrt(len(left_out))
        assert (abs(left_out.mean(0)) < 5 * error + 1e-6).all()
        assert abs(left_out).max() > 1e-3  # there is something to leave out


@pytest.fixture
def run(burda, digits, monkeypatch, tmp_path):
    """Return a function that runs the program on 320 images; it counts what is trained."""
    monkeypatch.setattr(burda, "PIXELS", 784)
    monkeypatch.setattr(burda, "TEST_SAMPLES", 50)
    monkeypatch.setattr(burda, "TEST_BATCH", 16)
    monkeypatch.setattr(burda.data, "load_digits", lambda source: digits)
    train, trained = burda.train, []
    monkeypatch.setattr(burda, "train", lambda *args: trained.append(args[:5]) or train(*args))

    def run(**settings):
        asked = {"layers": [1], "samples": [1, 2], "epochs": 2, "seeds": 2, "gradient": "total"}
        trained.clear()
        burda.main(**asked | settings, results=tmp_path / "burda.json")
        return list(trained), json.loads((tmp_path / "burda.json").read_text())

    return run


def test_an_interrupted_run_goes_on_with_its_file(burda, run, monkeypatch):
    whole = burda.rows

    def interrupted(layers, samples, *others):
        if samples == 2:
            raise KeyboardInterrupt
        return whole(layers, samples, *others)

    monkeypatch.setattr(burda, "rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.setattr(burda, "rows", whole)
    trained, table = run()
    assert trained == [(1, 2, 2, 2, "total")]
    assert [(row["objective"], row["samples"]) for row in table] == [
        ("VAE", 1),
        ("IWAE", 2),
        ("VAE", 2),
    ]
    assert all(len(row["nats"]) == len(row["seeds"]) == 2 for row in table)
    assert all(len(set(row["nats"])) == 2 for row in table)  # each seed is a training of its own
    assert run() == ([], table)


def test_a_longer_run_takes_the_place_of_a_shorter_one_and_is_better(run):
    _, (short,) = run(samples=[1], epochs=1)
    trained, (long,) = run(samples=[1], epochs=12)
    assert trained == [(1, 1, 12, 2, "total")]
    assert np.mean(long["nats"]) < np.mean(short["nats"]) - 5


def test_both_gradients_stand_side_by_side_and_only_the_elbo_has_the_second(run):
    run(epochs=1)
    trained, table = run(epochs=1, gradient="path")
    assert trained == [(1, 1, 1, 2, "path"), (1, 2, 1, 2, "path")]
    kinds = [(row["samples"], row["gradient"], row["objective"]) for row in table]
    assert kinds == [
        (1, "path", "VAE"),
        (1, "total", "VAE"),
        (2, "path", "VAE"),
        (2, "total", "IWAE"),
        (2, "total", "VAE"),
    ]


def test_the_page_shows_what_the_file_holds(chapter_code, monkeypatch):
    monkeypatch.chdir(BENCHMARKS.parent / "book" / "10_likelihoods")
    page = chapter_code("10_likelihoods", "imports", "table", "table-2", "table-rows", "table-show")
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page["lines"][2:]]
    shown = {(int(row[0]), row[1], int(row[2])): row[3:] for row in table}
    assert len(shown) == len(table) == 13
    for run in json.loads((BENCHMARKS / "burda.json").read_text()):
        name = run["objective"] + {"total": "", "path": ", path"}[run["gradient"]]
        published, ours, more, seeds, epochs = shown[run["layers"], name, run["samples"]]
        mean = sum(run["nats"]) / len(run["nats"])
        assert float(ours) == pytest.approx(mean, abs=0.006)
        difference = float(more.replace("−", "-"))
        assert difference == pytest.approx(mean - float(published), abs=0.011)
        assert (int(seeds), int(epochs)) == (len(run["nats"]), run["epochs"])
