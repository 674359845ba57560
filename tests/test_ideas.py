"""What the pages recorded with several seeds is collected for the page that compares all ideas."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from vae_utils import data
from vae_utils.beyond import scale

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import ideas  # noqa: E402


@pytest.fixture
def digits(own_folders):
    return data.load_digits("bundled")


def test_an_idea_counts_that_every_seed_has(digits):
    count = len(scale.test_images(digits))
    for seed, shift in ((0, 0.0), (100, 1.0)):
        scale.record(digits, "VAE", np.full(count, 95 + shift), "K = 64", 20 + seed, seed=seed)
        scale.record(digits, "flow", np.full(count, 93 - shift), "K = 64", 30, seed=seed)
    scale.record(digits, "one seed only", np.full(count, 80.0), "exact", 1, seed=0)
    assert ideas.over_seeds(digits, (0, 100)) == {
        "VAE": {"bound": "K = 64", "nats": [95.0, 96.0], "seconds": [20.0, 120.0]},
        "flow": {"bound": "K = 64", "nats": [93.0, 92.0], "seconds": [30.0, 30.0]},
    }


def test_what_the_file_lacks_is_trained_what_the_cache_lacks_is_kept(digits, tmp_path, monkeypatch):
    asked = []

    def instead_of_training(digits, latent_dim, *, epochs, seed):
        asked.append((digits.name, latent_dim, epochs, seed))
        return None, 2.0 * epochs

    monkeypatch.setattr(ideas.data, "load_digits", lambda source: digits)
    monkeypatch.setattr(ideas.scale, "load_or_train", instead_of_training)
    nats = np.full(len(scale.test_images(digits)), -90.0)
    monkeypatch.setattr(ideas.evaluation, "log_likelihood", lambda vae, x, samples: nats)
    flow = {"bound": "exact", "nats": [91.0, 91.0], "seconds": [9.0, 9.0]}
    kept = {digits.name: {"VAE, 2-D": flow | {"nats": [80.0, 80.0]}, "flow": flow}}
    (tmp_path / "ideas.json").write_text(json.dumps(kept))
    ideas.main(2, tmp_path / "ideas.json")
    table = json.loads((tmp_path / "ideas.json").read_text())
    assert table[digits.name]["VAE, twice"] == {
        "bound": "K = 64",
        "nats": [90.0, 90.0],
        "seconds": [4.0 * scale.EPOCHS] * 2,
    }
    assert list(table[digits.name]) == ["flow", "VAE, twice", "VAE, 2-D"]  # the most nats first
    assert table[digits.name]["flow"] == flow
    assert {latent_dim for _, latent_dim, _, _ in asked} == {16}  # the plane's result was there
    with pytest.raises(ValueError, match="at least one seed"):
        ideas.main(0, tmp_path / "ideas.json")


def test_the_published_results_are_complete():
    table = json.loads(ideas.RESULTS.read_text())
    assert set(table) == {"MNIST", "bundled digits"}
    for results in table.values():
        assert {"VAE", "VAE, half", *ideas.ALONE, "mixture of Bernoullis"} <= set(results)
        for result in results.values():
            assert len(result["nats"]) == len(result["seconds"]) == 5
            assert np.isfinite(result["nats"]).all()
            assert min(result["seconds"]) >= 0
    assert set(table["MNIST"]) == set(table["bundled digits"])
