"""Everything else that a reader waits for: imports, first calls, figures, likelihoods.

Usage: python benchmarks/waiting.py
"""

import argparse
import json
import resource
import time

import machine

SAMPLES, IMAGES = 5000, 1000


def measure():
    """Time one thing after the other in this process; print the seconds as a line of JSON."""
    seconds = {}

    def timed(name, do):
        start = time.perf_counter()
        result = do()
        seconds[name] = time.perf_counter() - start
        return result

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    from importlib import import_module

    timed("import vae_utils.data", lambda: import_module("vae_utils.data"))
    timed("import the rest, TensorFlow included", lambda: import_module("vae_utils.page.explorer"))
    from vae_utils import data, evaluation, models, plots, training
    from vae_utils.page import explorer

    digits = timed("load the digits", data.load_digits)
    vae = timed("build the dense VAE", lambda: models.build_vae("dense"))
    training.train(vae, digits, epochs=1, progress=False)
    x = digits.x_test
    mean, _ = timed("first encode, one image", lambda: vae.encode(x[:1]))
    timed("encode again, one image", lambda: vae.encode(x[:1]))
    timed("first decode, one point", lambda: vae.decode(mean))
    timed("decode again, one point", lambda: vae.decode(mean))
    timed("encode all test images", lambda: vae.encode(x))
    timed("decode 225 points", lambda: vae.decode_mean(mean.repeat(225, axis=0)))
    timed("figure: manifold of 225 images", lambda: plots.manifold(vae))
    codes, _ = vae.encode(x)
    timed(
        "figure: all test images in the plane", lambda: plots.latent_scatter(codes, digits.y_test)
    )
    timed("explorer for the page", lambda: explorer.show(vae, digits))
    before = peak()
    bound = f"log p(x) of {IMAGES:,} images, {SAMPLES:,} samples each"
    timed(bound, lambda: evaluation.log_likelihood(vae, x[:IMAGES], SAMPLES))
    print(json.dumps({"seconds": seconds, "before": before, "after": peak()}))


def main():
    print(machine.description(), "\n")
    result = machine.in_fresh_process(__file__)
    rows = [[name, f"{seconds:.3f}"] for name, seconds in result["seconds"].items()]
    print(machine.table(["what", "seconds"], rows))
    before, after = result["before"], result["after"]
    print(f"\nPeak memory {before:.0f} MiB before the last row, {after:.0f} after it.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    measure() if parser.parse_args().one else main()
