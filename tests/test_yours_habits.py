"""A training that dies loses nothing; what the page on habits builds does what it says."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import variables_are_copied

from vae_utils import losses, models, training

pytestmark = [pytest.mark.usefixtures("own_folders"), variables_are_copied]

STEPS = 4  # an epoch: 40 images, 10 at a time
TRAINING = """
import os, pathlib, signal, sys, time
import keras
import numpy as np
from vae_utils import models, training

training.STEPS_PER_EXECUTION = 1
folder = pathlib.Path(sys.argv[1])
grey = np.random.default_rng(0).integers(30, 226, (40, 1, 1, 1))
levels = np.clip(grey + np.arange(16).reshape(4, 4, 1), 0, 255).astype("uint8")
keras.utils.set_random_seed(0)
vae = models.build_vae("linear", image_shape=(4, 4, 1), seed=0)


class Act(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        print(epoch, int(vae.optimizer.iterations), *vae.get_weights()[0].ravel()[:3], flush=True)
        at_epoch(epoch)

    def on_train_batch_end(self, batch, logs=None):
        in_epoch(self.epoch, batch)


def at_epoch(epoch):
    pass


def in_epoch(epoch, batch):
    pass


def run():
    recipe = {"batch_size": 10, "backup_dir": folder, "progress": False}
    return training.train(vae, levels, 6, callbacks=[Act()], **recipe)
"""
IN_AN_EPOCH = """
def in_epoch(epoch, batch):
    if (epoch, batch) == (2, 1):
        os.kill(os.getpid(), SIGNAL)

run()
"""
IN_A_SAVE = """
whole = models.VAE.save

def half(vae, path):
    whole(vae, path)
    if int(vae.optimizer.iterations) == 3 * 4:
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), SIGNAL)
        time.sleep(5)

models.VAE.save = half
run()
"""
ON_A_FULL_DISK = """
import resource

def at_epoch(epoch):
    if epoch == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    if epoch == 4:
        os._exit(7)

run()
"""


# A shell's background job, with all that it starts, ignores Ctrl-C.
HEED_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def start(code, folder):
    return subprocess.Popen(
        [sys.executable, "-c", HEED_CTRL_C + TRAINING + code, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def epochs_of(output):
    """Return what a process has said at the start of each epoch: epoch, steps, some weights."""
    lines = re.findall(r"^(\d+) (\d+) (.+)$", output, re.M)
    return [(int(epoch), int(steps), text) for epoch, steps, text in lines]


def resume(folder):
    """Go on in this process; return the same as `epochs_of`, and the model."""
    namespace, said = {}, []
    argv = sys.argv
    try:
        sys.argv = ["", str(folder)]
        exec(TRAINING, namespace)
    finally:
        sys.argv = argv
    namespace["print"] = lambda *values, **_: said.append(" ".join(map(str, values)))
    namespace["vae"].set_weights([w * 0 for w in namespace["vae"].get_weights()])
    training.STEPS_PER_EXECUTION, before = 1, training.STEPS_PER_EXECUTION
    try:
        namespace["run"]()
    finally:
        training.STEPS_PER_EXECUTION = before
    return epochs_of("\n".join(said)), namespace["vae"]


def assert_nothing_lost(folder, output):
    """The training goes on with the weights of the last whole epoch, and takes no epoch twice."""
    before, (after, vae) = epochs_of(output), resume(folder)
    assert [(epoch, steps) for epoch, steps, _ in after] == [(e, e * STEPS) for e in range(2, 6)]
    assert after[0] == next(line for line in before if line[0] == 2)
    assert int(vae.optimizer.iterations) == 6 * STEPS
    assert not folder.exists() or not any(folder.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
@pytest.mark.parametrize("code", [IN_AN_EPOCH, IN_A_SAVE], ids=["in an epoch", "in a save"])
def test_a_signal_costs_the_epoch_that_it_hits_and_no_more(tmp_path, code, name):
    folder = tmp_path / "backup"
    process = start(code.replace("SIGNAL", f"signal.{name}"), folder)
    output, errors = process.communicate(timeout=120)
    if name == "SIGKILL":
        assert process.returncode == -signal.SIGKILL, errors
    else:
        assert process.returncode != 0
        assert errors.strip().endswith("KeyboardInterrupt: The training was interrupted.")
        assert len(errors.splitlines()) < 20
    assert_nothing_lost(folder, output)


def test_a_disk_that_fills_up_costs_backups_but_not_the_training(tmp_path):
    pytest.importorskip("resource")
    folder = tmp_path / "backup"
    process = start(ON_A_FULL_DISK, folder)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 7, errors  # it went on, until it was ended
    assert [epoch for epoch, *_ in epochs_of(output)] == [0, 1, 2, 3, 4]
    assert output.count("latest.keras could not be cached") == 2
    assert_nothing_lost(folder, output)


def test_a_second_training_in_a_backup_folder_is_refused_and_disturbs_nothing(tmp_path):
    folder, leave = tmp_path / "backup", tmp_path / "leave"
    code = f"""
def at_epoch(epoch):
    deadline = time.monotonic() + 60
    while epoch == 2 and not os.path.exists({str(leave)!r}) and time.monotonic() < deadline:
        time.sleep(0.01)

run()
print("steps", int(vae.optimizer.iterations))
"""
    process = start(code, folder)
    try:
        assert any(line.startswith("2 ") for line in iter(process.stdout.readline, ""))
        with pytest.raises(ValueError, match=r"backup_dir of its own\. Received: .*in use"):
            resume(folder)
    finally:
        leave.touch()
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert f"steps {6 * STEPS}" in output
    again, _ = resume(folder)  # the lock is free, and nothing is left to resume
    assert again[0][:2] == (0, 0)


# What the page builds


@pytest.fixture
def page(chapter_code):
    return lambda *ids: chapter_code("yours", "imports", *ids)


@pytest.fixture
def images(digits):
    return digits.x_train[:50]


def linear_vae(kind=models.VAE, **kwargs):
    keras.utils.set_random_seed(0)
    parts = models.build_vae("linear", likelihood="bernoulli")
    return kind(parts.encoder, parts.decoder, seed=0, **kwargs)


def test_a_compiled_step_sees_the_beta_of_an_annealed_model(page, images):
    annealed = page("annealed")["Annealed"]
    logs = {}
    for beta in (0.0, 0.25, 1.0):
        vae = linear_vae(annealed)
        vae.compile(keras.optimizers.SGD(0.0))
        vae.train_on_batch(images)  # compiled with beta 1
        vae.reset_metrics()
        vae.sampling.seed_generator.state.assign([0, 0])
        vae.beta.assign(beta)
        logs[beta] = vae.train_on_batch(images, return_dict=True)
        total = logs[beta]["reconstruction"] + beta * logs[beta]["kl"]
        assert logs[beta]["loss"] == pytest.approx(total, rel=1e-6)
    assert logs[0.0]["kl"] == pytest.approx(logs[1.0]["kl"], rel=1e-6)
    assert logs[0.0]["kl"] > 0.01


def test_the_gradient_of_an_annealed_model_follows_its_beta(page, images):
    annealed = page("annealed")["Annealed"]
    vae = linear_vae(annealed)
    vae.compile(keras.optimizers.SGD(1.0))
    start = vae.get_weights()
    changes = []
    for beta in (1.0, 0.0, 0.5):
        vae.set_weights(start)
        vae.sampling.seed_generator.state.assign([0, 0])
        vae.beta.assign(beta)
        vae.train_on_batch(images)
        changes.append([a - b for a, b in zip(start, vae.get_weights())])
    for one, none, half in zip(*changes):
        np.testing.assert_allclose(half, (one + none) / 2, atol=2e-4, rtol=1e-3)
    assert not np.allclose(changes[0][0], changes[1][0], atol=1e-3)


def test_annealing_logs_the_true_bound_beside_the_loss(page, images):
    names = page("annealed", "anneal")
    vae = linear_vae(names["Annealed"])
    vae.compile("adam")
    betas = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(float(vae.beta)))
    seen = []
    data = {"validation_data": tf.data.Dataset.from_tensors(images)}
    log = vae.fit(
        images, epochs=4, callbacks=[names["Anneal"](2), betas], verbose=0, **data
    ).history
    assert seen == pytest.approx([0.5, 1, 1, 1])
    for split in ("", "val_"):
        parts = np.add(log[f"{split}reconstruction"], log[f"{split}kl"])
        np.testing.assert_allclose(log[f"{split}negative_elbo"], parts, rtol=1e-6)
        weighted = log[f"{split}reconstruction"] + np.multiply(seen, log[f"{split}kl"])
        np.testing.assert_allclose(log[f"{split}loss"], weighted, rtol=1e-5)


def test_the_step_of_ones_own_has_the_gradient_of_finite_differences(page, images):
    names = page("own-loss")
    vae = linear_vae()
    x = images[:20]
    kernel = vae.decoder.layers[-2].kernel

    def loss():
        vae.sampling.seed_generator.state.assign([0, 0])
        return names["negative_elbo"](vae, x)

    with tf.GradientTape() as tape:
        value = loss()
    gradient = np.array(tape.gradient(value, kernel.value))
    direction = np.random.default_rng(0).normal(size=gradient.shape).astype("float32")
    step, start = 1e-2, np.array(kernel)
    ends = []
    for sign in (1, -1):
        kernel.assign(start + sign * step * direction)
        ends.append(float(loss()))
    slope = (ends[0] - ends[1]) / (2 * step)
    assert slope == pytest.approx(float(np.sum(gradient * direction)), rel=0.01, abs=0.05)


# Programs of others


def test_tensorboard_shows_the_numbers_of_the_history(images, tmp_path):
    pytest.importorskip("tensorboard")
    vae = linear_vae()
    watch = keras.callbacks.TensorBoard(tmp_path / "run")
    history = training.train(vae, images, 2, images, callbacks=[watch], progress=False).history
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path), "--port", "0"]
    process = subprocess.Popen([*command, "--load_fast=false"], stderr=subprocess.PIPE, text=True)
    try:
        address = next(
            found[0]
            for line in iter(process.stderr.readline, "")
            if (found := re.search(r"http://localhost:\d+", line))
        )
        query = "/data/plugin/scalars/scalars?run=run/validation&tag=epoch_loss"
        deadline, shown = time.monotonic() + 300, []
        while len(shown) < 2:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.2)
            try:
                with urllib.request.urlopen(address + query) as reply:
                    shown = json.load(reply)
            except urllib.error.HTTPError as missing:  # not read yet
                missing.close()
    finally:
        process.kill()
        process.communicate()
    assert [value for _, _, value in shown] == pytest.approx(history["val_loss"], rel=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("architecture", ["conv", "dense", "linear"])
def test_onnx_computes_what_the_model_computes(images, tmp_path, architecture):
    pytest.importorskip("tf2onnx")
    runtime = pytest.importorskip("onnxruntime")
    vae = models.build_vae(architecture)
    z = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    for network, inputs in ((vae.encoder, images[:5]), (vae.decoder, z)):
        path = str(tmp_path / f"{network.name}.onnx")
        network.export(path, format="onnx", verbose=False)
        session = runtime.InferenceSession(path)
        outputs = session.run(None, {session.get_inputs()[0].name: inputs})
        for ours, theirs in zip(outputs, keras.tree.flatten(network(inputs)), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_the_loss_of_ones_own_is_the_sum_of_both_terms(page, images):
    vae = linear_vae()
    vae.sampling.seed_generator.state.assign([0, 0])
    ours = float(page("own-loss")["negative_elbo"](vae, images))
    vae.sampling.seed_generator.state.assign([0, 0])
    parts = vae(images)
    nats = losses.bernoulli_nll(images, parts["logits"])
    nats += losses.gaussian_kl(parts["mean"], parts["log_var"])
    assert ours == pytest.approx(float(np.mean(nats)), rel=1e-6)
