"""Two processes train the model that one would, and go on after one of them was killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import tensorflow as tf

from vae_utils import models
from vae_utils.yours import cluster

WORKER = """
    import json, os, sys, time
    import keras, numpy as np, tensorflow as tf
    several = "TF_CONFIG" in os.environ
    distribute = tf.distribute
    strategy = distribute.MultiWorkerMirroredStrategy() if several else distribute.get_strategy()
    number = strategy.cluster_resolver.task_id if several else 0
    from vae_utils import models
    from vae_utils.yours import cluster

    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).uniform(size=(24, 4, 4, 1)).astype("float32")
    with strategy.scope():
        vae = models.build_vae("linear", image_shape=(4, 4, 1), seed=3)
        vae.compile(keras.optimizers.Adam(1e-2))
        spread = vae.encoder.get_layer("log_var")  # no noise: one process and two see the same
        spread.set_weights([np.zeros((16, 2)), np.full(2, -60.0)])
    workers = strategy.num_replicas_in_sync if several else 1
    rows = 8 // workers
    parts = x.reshape(3, workers, rows, 4, 4, 1)[:, number]
    share = tf.data.Dataset.from_tensor_slices(parts)
    epochs, folder, pause = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])

    def slow(batch):
        time.sleep(pause)
        return batch

    if pause:
        share = share.map(lambda batch: tf.ensure_shape(
            tf.numpy_function(slow, [batch], tf.float32), batch.shape))
    logs = cluster.train(vae, share, epochs, f"{folder}/vae.weights.h5")
    print(json.dumps([logs, int(vae.optimizer.iterations.numpy())]))
    np.savez(f"{folder}/{number}.npz", *vae.get_weights())
"""


def start(workers, *arguments):
    """Start the processes of one training; return them."""
    with_ports = [socket.create_server(("localhost", 0)) for _ in range(workers)]
    addresses = [f"localhost:{server.getsockname()[1]}" for server in with_ports]
    for server in with_ports:
        server.close()
    command = [sys.executable, "-c", textwrap.dedent(WORKER), *map(str, arguments)]
    processes = []
    for index in range(workers):
        environment = dict(os.environ)
        if workers > 1:
            task = {"type": "worker", "index": index}
            config = {"cluster": {"worker": addresses}, "task": task}
            environment["TF_CONFIG"] = json.dumps(config)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, env=environment, **pipes))
    return processes


def finish(processes):
    """Return what each process has printed as its last line."""
    ended = [process.communicate(timeout=120) for process in processes]
    for process, (_, errors) in zip(processes, ended):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(output.splitlines()[-1]) for output, _ in ended]


def weights(folder, worker):
    with np.load(folder / f"{worker}.npz") as arrays:
        return [arrays[name] for name in arrays.files]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Train four epochs in one process; return its logs and its weights."""
    folder = tmp_path_factory.mktemp("alone")
    ((logs, steps),) = finish(start(1, 4, folder, 0))
    assert steps == 12
    return logs, weights(folder, 0)


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_two_processes_have_the_loss_and_the_weights_of_one(alone, tmp_path):
    for worker, (logs, steps) in enumerate(finish(start(2, 4, tmp_path, 0))):
        assert steps == 12
        for ours, theirs in zip(logs, alone[0], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5)
        assert_same(weights(tmp_path, worker), alone[1])


def test_a_killed_worker_ends_the_others_and_a_restart_loses_at_most_an_epoch(alone, tmp_path):
    processes = start(2, 4, tmp_path, 0.5)
    kept, deadline = tmp_path / "vae.weights.h5", time.monotonic() + 120
    while not kept.exists():  # the end of the first epoch
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGKILL)
    _, errors = processes[0].communicate(timeout=120)
    processes[1].communicate()
    assert processes[0].returncode != 0
    assert "tensorflow.python.framework.errors_impl" in errors or "Unavailable" in errors, errors
    for worker, (logs, steps) in enumerate(finish(start(2, 4, tmp_path, 0))):
        assert 1 <= len(logs) <= 3
        assert steps == 12
        assert logs[-1] == pytest.approx(alone[0][-1], rel=1e-5)
        assert_same(weights(tmp_path, worker), alone[1])


@pytest.mark.parametrize(
    ("share", "name", "message"),
    [(lambda s: s.repeat(), "a.weights.h5", "known number"), (lambda s: s, "a.h5", "weights.h5")],
)
def test_what_could_not_be_resumed_is_refused(share, name, message, tmp_path):
    vae = models.build_vae("linear", image_shape=(4, 4, 1))
    vae.compile()
    batches = tf.data.Dataset.from_tensors(np.zeros((2, 4, 4, 1), "float32"))
    with pytest.raises(ValueError, match=message):
        cluster.train(vae, share(batches), 1, tmp_path / name)
