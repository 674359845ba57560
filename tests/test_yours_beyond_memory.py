"""Training on more images than memory: what growth.py and the page say, in tests that can fail."""

from pathlib import Path

import keras
import numpy as np
import pytest

from vae_utils import models, training
from vae_utils.yours import folder

GROWTH = Path(__file__).parent.parent / "benchmarks" / "growth.py"


@pytest.fixture
def disk(digits, tmp_path):
    """Return an array of images on disk."""
    np.save(tmp_path / "own.npy", digits.train_levels)
    return np.load(tmp_path / "own.npy", mmap_mode="r")


def final_losses(batches, digits):
    """Return the held-out loss after a short training, for each of three seeds."""
    ends = []
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        vae = models.build_vae("linear", likelihood="bernoulli", seed=seed)
        history = training.train(vae, batches(seed), 8, digits.x_test, progress=False)
        ends.append(history.history["val_loss"][-1])
    return np.array(ends)


def test_a_streamed_training_ends_where_one_in_memory_ends(disk, digits):
    streamed = final_losses(lambda seed: folder.stream(disk, batch_size=32, seed=seed), digits)
    in_memory = final_losses(lambda seed: training.batches(disk[:], 32, seed + 100), digits)
    start = final_losses(lambda seed: training.batches(disk[:32], 32, seed), digits)
    spread = np.hypot(streamed.std(ddof=1), in_memory.std(ddof=1)) / 3**0.5
    assert abs(streamed.mean() - in_memory.mean()) < 4 * spread + 0.5
    assert streamed.max() < start.min() - 20  # a test that sees what images are missing


def test_a_stream_is_the_pipeline_of_arrays_read_from_disk(disk):
    """The same seed, the same batches: one definition of the shuffle (each batch is its set)."""
    for one, other in zip(
        folder.stream(disk, batch_size=50, seed=3), training.batches(disk[:], 50, 3), strict=True
    ):
        rows = [np.sort(np.reshape(batch, (len(batch), -1)), axis=0) for batch in (one, other)]
        np.testing.assert_array_equal(*rows)


@pytest.mark.parametrize("way", ["in memory", "streamed"])
def test_under_a_cap_only_the_stream_trains(bundled, tmp_path, run_python, way):
    """As in the benchmark: 150 MiB of images, and 100 MiB to spare."""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is capped as on Linux")
    path, levels = tmp_path / "own.npy", bundled.train_levels
    np.save(path, np.concatenate([levels] * (200_000 // len(levels))))
    (output,) = run_python(f"""
        import runpy, sys
        sys.path.insert(0, {str(GROWTH.parent)!r})
        growth = runpy.run_path({str(GROWTH)!r})
        growth["measure_stream"]({str(path)!r}, {way!r}, 100 * 2**20, epochs=1)
    """)
    last = output.splitlines()[-1]
    assert ("per image" in last) == (way == "streamed"), last
    assert ("out of memory" in last) == (way == "in memory"), last
