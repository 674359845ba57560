"""Two processes train the model that one would, and lose at most an epoch when one is killed."""

import ast
import json
import os
import signal
import subprocess
import sys
import textwrap

import keras
import nbformat
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, free_port, variables_are_copied

from vae_utils import models
from vae_utils.yours import cluster

pytestmark = variables_are_copied

SHAPE, STEPS, EPOCHS = (4, 4, 1), 3, 4


def vae_and_share(strategy, workers=1, number=0):
    """Return a compiled model without noise, so that one process and two see the same, and data."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).uniform(size=(24, *SHAPE)).astype("float32")
    with strategy.scope():
        vae = models.build_vae("linear", image_shape=SHAPE, seed=3)
        vae.compile(keras.optimizers.Adam(1e-2))
        spread = vae.encoder.get_layer("log_var")
        spread.set_weights([np.zeros((16, 2)), np.full(2, -60.0)])
    parts = x.reshape(STEPS, workers, 8 // workers, *SHAPE)[:, number]
    return vae, tf.data.Dataset.from_tensor_slices(parts)


# A process goes through several trainings, as loading TensorFlow is what takes its time. In the
# last of them one of the two dies.
WORKER = """
    import os, signal, sys, time
    from pathlib import Path
    import numpy as np
    from test_yours_machines import vae_and_share
    from vae_utils import models, training
    from vae_utils.yours import cluster

    number, folder = strategy.cluster_resolver.task_id, Path(sys.argv[1])
    whole = models.VAE.save_weights

    class Share:  # may be the end of its process
        def __init__(self, share, before_a_batch):
            self.share, self.before_a_batch = share, before_a_batch
            self.cardinality = share.cardinality

        def __iter__(self):
            for batch in self.share:
                self.before_a_batch()
                yield batch

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def train(name, death=None):
        vae, share = vae_and_share(strategy, 2, number)
        saving = folder / f"{name}-saving"

        def before_a_batch():
            steps = vae.optimizer.iterations.numpy()
            if number == 1 and death == "in an epoch" and steps == 4:
                die()
            while number == 1 and death == "while the first saves" and steps == 6:
                if saving.exists():
                    die()
                time.sleep(0.01)

        def save(vae, path):
            last_one = vae.optimizer.iterations.numpy() == 6
            if last_one and death == "while the first saves":
                saving.touch()
                time.sleep(1)
            whole(vae, path)
            if last_one and death == "in a save":
                os.truncate(path, path.stat().st_size // 2)
                die()

        models.VAE.save_weights = save
        kept = folder / f"{name}.weights.h5"
        share, logs = Share(share, before_a_batch), []
        for epochs in (4,) if death else (2, 4):  # a second call goes on, too
            logs += cluster.train(vae, share, epochs, kept)
        models.VAE.save_weights = whole
        np.savez(folder / f"{name}-{number}.npz", *vae.get_weights())
        print(name, logs, flush=True)

    if "vae" in globals():  # the page's
        print("weights", *(abs(w).sum() for w in vae.get_weights()), flush=True)
    vae, _ = vae_and_share(strategy, 2, number)
    try:
        training.train(vae, np.zeros((8, 4, 4, 1)), 1)
    except ValueError as error:
        print("refused", error, flush=True)
    for name in sys.argv[2:]:
        train(*name.split(":"))
"""
OF_TWO = """
    import tensorflow as tf
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
"""


def run_two(folder, code, *trainings):
    """Run the trainings in two processes until one is dead; return what each has said, by name."""
    cluster = {"worker": [f"localhost:{free_port()}" for _ in range(2)]}
    command = [sys.executable, "-c", code + textwrap.dedent(WORKER), folder, *trainings]
    processes = []
    for index in range(2):
        task = {"type": "worker", "index": index}
        environment = os.environ | {
            "TF_CONFIG": json.dumps({"cluster": cluster, "task": task}),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path]),
        }
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, env=environment, cwd=folder, **pipes))
    said = []
    try:
        for process in processes:
            output, errors = process.communicate(timeout=500)
            lines = dict(line.split(" ", 1) for line in output.splitlines() if " " in line)
            said.append({"code": process.returncode, "errors": errors, **lines})
    finally:
        for process in processes:
            process.kill()
    return said


@pytest.fixture(scope="module")
def script():
    """Return the script that the page shows."""
    page = nbformat.read(ROOT / "book" / "yours" / "3_machines.ipynb", as_version=4)
    (cell,) = [cell for cell in page.cells if cell.id == "cluster-script"]
    return cell.source.removeprefix("```python\n").removesuffix("```")


@pytest.fixture(scope="module")
def said(tmp_path_factory, session_cache, script):
    """Return the folder of three generations of two processes, and what these have said.

    Each goes on with what the one before it has left half done.
    """
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAE_UTILS_CACHE", str(session_cache))
        return folder, [
            run_two(folder, script, "undisturbed", "first:in an epoch"),
            run_two(folder, textwrap.dedent(OF_TWO), "first", "second:in a save"),
            run_two(folder, textwrap.dedent(OF_TWO), "second", "third:while the first saves"),
        ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return logs and weights of all epochs in this process, on its own."""
    file = tmp_path_factory.mktemp("alone") / "vae.weights.h5"
    vae, share = vae_and_share(tf.distribute.get_strategy())
    return cluster.train(vae, share, EPOCHS, file), vae.get_weights()


def assert_same(logs, weights, alone):
    """The last epochs of a training that was alone, and its weights."""
    for ours, theirs in zip(logs, alone[0][-len(logs) :], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    for ours, theirs in zip(weights, alone[1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def assert_same_on_both(said, generation, name, epochs, alone):
    folder, generations = said
    for number, one in enumerate(generations[generation]):
        assert name in one, one["errors"][-3000:]
        logs = ast.literal_eval(one[name])
        assert len(logs) == epochs
        with np.load(folder / f"{name}-{number}.npz") as weights:
            assert_same(logs, [weights[key] for key in weights.files], alone)


def test_two_processes_have_the_loss_and_the_weights_of_one(said, alone):
    assert_same_on_both(said, 0, "undisturbed", EPOCHS, alone)


@pytest.mark.parametrize(
    ("generation", "dead", "name"), [(0, 1, "first"), (1, 0, "second"), (2, 1, "third")]
)
def test_a_killed_process_ends_the_other(said, generation, dead, name):
    one, other = said[1][generation][dead], said[1][generation][1 - dead]
    assert one["code"] == -signal.SIGKILL
    assert other["code"] not in (0, -signal.SIGKILL)
    assert "tensorflow" in other["errors"].lower()
    assert name not in one
    assert name not in other


def test_after_a_death_in_an_epoch_both_go_on_with_the_last_whole_one(said, alone):
    assert_same_on_both(said, 1, "first", EPOCHS - 1, alone)


def test_after_a_death_in_a_save_both_go_on_with_the_file_before_it(said, alone):
    assert_same_on_both(said, 2, "second", EPOCHS - 1, alone)


def test_after_a_death_while_the_first_saves_its_file_is_whole_and_one_process_can_go_on(
    said, alone
):
    vae, share = vae_and_share(tf.distribute.get_strategy())
    logs = cluster.train(vae, share, EPOCHS, said[0] / "third.weights.h5")
    assert len(logs) == EPOCHS - 2
    assert_same(logs, vae.get_weights(), alone)


def test_the_script_of_the_page_learns_and_both_processes_log_the_same(said):
    one, other = (ast.literal_eval(process["logs"]) for process in said[1][0])
    assert one == other
    assert one[0]["loss"] > one[1]["loss"] > 0
    assert len({process["weights"] for process in said[1][0]}) == 1


def test_the_recipe_for_one_process_says_what_to_use_instead(said):
    message = "use vae_utils.yours.cluster.train. Received: a model of a CollectiveAllReduce"
    for process in said[1][0]:
        assert message in process["refused"]


@pytest.mark.parametrize(
    ("share", "name", "message"),
    [(lambda s: s.repeat(), "a.weights.h5", "known number"), (lambda s: s, "a.h5", "weights.h5")],
)
def test_what_could_not_be_resumed_is_refused(share, name, message, tmp_path):
    vae, batches = vae_and_share(tf.distribute.get_strategy())
    with pytest.raises(ValueError, match=message):
        cluster.train(vae, share(batches), 1, tmp_path / name)
