"""What each idea bought: the results of all pages of Part IV, five seeds, on both data sets.

Usage: python benchmarks/ideas.py [--seeds 5]

Run it after `make replicate`, with the same cache: the pages have left their results there. It
writes all ideas that every seed has to `ideas.json`, which the last page of the part draws. An idea
that the file has and the cache lacks stays as it is: after a change of one page, it is enough
to replicate that page. The VAE alone, with a plane and with twice its epochs, which no page has the
time for, is trained where the file lacks it. Without the file, all is measured anew.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from replicate import SEED_STEP
from tqdm import tqdm

from vae_utils import data, evaluation
from vae_utils.beyond import scale
from vae_utils.checks import require

SAMPLES = 64
ALONE = {"VAE, 2-D": (2, 1), "VAE, twice": (16, 2)}
RESULTS = Path(__file__).with_suffix(".json")


def train_alone(digits, seed, ideas):
    """Record the VAE alone: latent dimensions, and how often the usual number of epochs."""
    for idea in ideas:
        latent_dim, times = ALONE[idea]
        epochs = times * scale.EPOCHS
        vae, seconds = scale.load_or_train(digits, latent_dim, epochs=epochs, seed=seed)
        nats = -evaluation.log_likelihood(vae, scale.test_images(digits), SAMPLES)
        scale.record(digits, idea, nats, f"K = {SAMPLES}", seconds, seed=seed)


def over_seeds(digits, seeds):
    """Return for each idea that every seed has its bound, and nats and seconds of the seeds."""
    runs = [{result.idea: result for result in scale.results(digits, seed)} for seed in seeds]
    return {
        idea: {
            "bound": runs[0][idea].bound,
            "nats": [round(run[idea].mean, 3) for run in runs],
            "seconds": [round(run[idea].seconds, 1) for run in runs],
        }
        for idea in runs[0]
        if all(idea in run for run in runs)
    }


def main(seeds, results):
    require(seeds > 0, "There must be at least one seed.", f"{seeds=}")
    seeds = [SEED_STEP * number for number in range(seeds)]
    kept, table = json.loads(results.read_text()) if results.exists() else {}, {}
    for source in ("mnist", "bundled"):
        digits = data.load_digits(source)
        known = kept.get(digits.name, {})
        for seed in tqdm(seeds, digits.name):
            train_alone(digits, seed, ALONE.keys() - known.keys())
        found = (known | over_seeds(digits, seeds)).items()
        table[digits.name] = dict(sorted(found, key=lambda item: -np.mean(item[1]["nats"])))
    results.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of the table")
    main(**vars(parser.parse_args()))
