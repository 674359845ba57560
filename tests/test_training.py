"""The recipe trains, says how it went in one line, and never loses what it has learned."""

import dataclasses
import functools
import re
import traceback
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import variables_are_copied

from vae_utils import data, losses, models, replicas, training

pytestmark = [pytest.mark.usefixtures("own_folders"), variables_are_copied]


@pytest.fixture
def small():
    """Return 40 training, 10 validation and 10 test images of 4 × 4 that vary in their grey."""
    grey = np.random.default_rng(0).integers(30, 226, (60, 1, 1, 1))
    levels = np.clip(grey + np.arange(16).reshape(4, 4, 1) - 8, 0, 255).astype("uint8")
    labels = np.arange(60) % 10
    parts = [
        array[rows] for rows in np.split(np.arange(60), [40, 50]) for array in (levels, labels)
    ]
    return data.Digits("grey squares", "memory", *parts)


def linear_vae(seed=0):
    keras.utils.set_random_seed(seed)
    return models.build_vae("linear", image_shape=(4, 4, 1), seed=seed)


@pytest.fixture
def quick(monkeypatch):
    """Give the recipe batches of 10, so that the small images make several steps an epoch."""
    monkeypatch.setattr(training, "train", functools.partial(training.train, batch_size=10))


class StopBeforeEpoch(keras.callbacks.Callback):
    """What a reader does who presses Ctrl-C."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.left = [np.array(weight) for weight in self.model.get_weights()]
            raise KeyboardInterrupt


class Begin(keras.callbacks.Callback):
    """Notes the state in which the first epoch begins, once everything is restored."""

    def on_epoch_begin(self, epoch, logs=None):
        if not hasattr(self, "epoch"):
            self.epoch, self.iterations = epoch, int(self.model.optimizer.iterations)
            self.weights = [np.array(weight) for weight in self.model.get_weights()]


def as_shown(text):
    """Return the lines that stay on a page: what a carriage return is followed by replaces them."""
    lines = [line.rstrip("\r").split("\r")[-1].rstrip() for line in text.split("\n")]
    return [line for line in lines if line]


# Batches


def rows(images):
    return {image.tobytes() for image in np.asarray(images)}


def test_an_epoch_holds_every_image_once_with_its_exact_pixels(digits):
    epoch = list(training.batches(digits.train_levels, 64).as_numpy_iterator())
    assert [batch.shape for batch in epoch] == [(64, 28, 28, 1)] * 5
    assert {batch.dtype for batch in epoch} == {np.dtype("float32")}
    assert rows(np.concatenate(epoch)) == rows(digits.x_train)


def test_the_order_is_new_in_each_epoch_and_never_that_of_the_file(small):
    pipeline = training.batches(small.train_levels, 40)
    orders = [small.x_train[:], *(next(pipeline.as_numpy_iterator()) for _ in range(3))]
    assert len({order.tobytes() for order in orders}) == 4
    assert all(rows(order) == rows(orders[0]) for order in orders)


@pytest.mark.parametrize(("count", "size"), [(40, 15), (40, 39), (40, 40), (40, 200), (1, 200)])
def test_sizes_of_batches_are_even_and_nothing_is_left_out(small, count, size):
    pipeline = training.batches(small.train_levels[:count], size)
    epoch = list(pipeline.as_numpy_iterator())
    sizes = [len(batch) for batch in epoch]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == len(pipeline) == -(-count // size)
    assert rows(np.concatenate(epoch)) == rows(small.x_train[:count])


@pytest.mark.parametrize("dtype", ["bool", "float32", "float64"])
def test_what_is_pixels_already_is_not_scaled_again(small, dtype):
    images = small.x_train[:]
    images = (images > 0.4 if dtype == "bool" else images).astype(dtype)
    (epoch,) = training.batches(images, 40).as_numpy_iterator()
    assert epoch.dtype == np.float32
    assert rows(epoch) == rows(images.astype("float32"))


@pytest.mark.parametrize(
    "images", [np.array([0, 1], "uint8"), np.array([0.0, 255.0]), np.array([0.5, np.nan])]
)
def test_what_is_no_pixels_is_no_batch(images):
    with pytest.raises(ValueError, match="Pixels must be floats in"):
        training.batches(np.resize(images, (20, 4, 4, 1)), 10)


def test_a_seed_repeats_the_order(small):
    def epochs(seed):
        pipeline = training.batches(small.train_levels, 10, seed=seed)
        return np.concatenate([batch for _ in range(2) for batch in pipeline.as_numpy_iterator()])

    np.testing.assert_array_equal(epochs(1), epochs(1))
    assert not np.array_equal(epochs(1), epochs(2))


def test_the_random_seed_of_keras_repeats_the_order_too(small):
    def epoch():
        keras.utils.set_random_seed(4)
        return next(training.batches(small.train_levels, 40).as_numpy_iterator())

    np.testing.assert_array_equal(epoch(), epoch())


@pytest.mark.parametrize("batch_size", [0, -1, 2.5])
def test_a_batch_size_that_is_none_is_refused(small, batch_size):
    with pytest.raises(ValueError, match=f"positive integer.*Received: batch_size={batch_size}"):
        training.batches(small.train_levels, batch_size)


# The learning rate


@pytest.mark.parametrize("steps", [10, 100, 640])
def test_the_learning_rate_rises_for_a_tenth_then_falls_like_a_cosine(steps):
    schedule = training.warm_up_and_decay(4e-3, steps)
    t, warm_up = np.arange(steps + 1), steps // 10
    rise = 4e-4 + 3.6e-3 * t / warm_up
    fall = 4e-3 * np.cos(np.pi / 2 * (t - warm_up) / (steps - warm_up)) ** 2
    rates = [float(schedule(step)) for step in t]
    np.testing.assert_allclose(rates, np.where(t < warm_up, rise, fall), atol=1e-8)
    assert max(rates) == pytest.approx(4e-3)
    assert np.argmax(rates) == warm_up
    assert rates[-1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_shortest_training_has_a_learning_rate_too(steps):
    schedule = training.warm_up_and_decay(4e-3, steps)
    rates = [float(schedule(step)) for step in range(steps)]
    assert rates[0] == pytest.approx(4e-4)
    assert all(0 < rate < 4.001e-3 for rate in rates)


# Training


def test_train_returns_both_parts_for_both_splits_and_learns(small):
    vae = linear_vae()
    history = training.train(vae, small, epochs=15, batch_size=10, learning_rate=0.05)
    assert set(history.history) == {
        f"{split}{part}" for split in ("", "val_") for part in ("loss", "reconstruction", "kl")
    }
    assert all(len(values) == 15 for values in history.history.values())
    for split in ("", "val_"):
        curve = history.history[f"{split}loss"]
        assert curve[-1] < curve[0] - 5
        parts = np.add(history.history[f"{split}reconstruction"], history.history[f"{split}kl"])
        np.testing.assert_allclose(parts, curve, rtol=1e-5, atol=1e-4)


def test_the_watched_images_are_the_validation_images(small):
    far = dataclasses.replace(small, validation_levels=255 - small.validation_levels * 0)
    vae = linear_vae()
    history = training.train(vae, far, epochs=1, batch_size=10, learning_rate=1e-6).history
    assert history["val_loss"][0] > history["loss"][0] + 20
    expected = vae.evaluate(far.x_validation, verbose=0)[0]
    assert history["val_loss"][0] == pytest.approx(expected, rel=0.2)


def test_the_test_images_are_never_looked_at(small):
    unseen = dataclasses.replace(small, test_levels=None)
    training.train(linear_vae(), unseen, 1, progress=False)


def as_dataset(images):
    return tf.data.Dataset.from_tensor_slices(images).batch(10)


def ended(images, validation=None, **kwargs):
    """Return the last logs of a training whose batches hold all images."""
    history = training.train(
        linear_vae(), images, 20, validation, progress=False, learning_rate=0.02, **kwargs
    ).history
    return {name: values[-1] for name, values in history.items()}


def test_images_of_ones_own_train_as_digits_do(small, monkeypatch):
    # In one order, so that each image meets the same noise as in a stream, which is not shuffled.
    monkeypatch.setattr(tf.random.experimental, "stateless_shuffle", lambda rows, seed: rows)
    expected = ended(small)
    assert set(expected) > {"val_loss"}
    for images, validation in (
        (small.train_levels, small.x_validation),
        (small.x_train, small.validation_levels),
        (small.x_train[:].astype("float64"), small.x_validation),
    ):
        assert ended(images, validation) == pytest.approx(expected, rel=1e-4)
    stream = tf.data.Dataset.from_tensors(small.x_train)
    held_out = tf.data.Dataset.from_tensors(small.x_validation)
    assert ended(stream, held_out) == pytest.approx(expected, rel=1e-4)
    assert set(ended(small.x_train)) == {"loss", "reconstruction", "kl"}


def test_a_gaussian_model_learns_standardized_pixels_and_a_bernoulli_model_refuses_them(small):
    x = small.x_train[:]
    x = (x - x.mean()) / x.std()
    assert ended(x, x)["val_loss"] < linear_vae_loss(x) - 1
    keras.utils.set_random_seed(0)
    bernoulli = models.build_vae("linear", image_shape=(4, 4, 1), likelihood="bernoulli")
    for images, validation in ((x, None), (small.x_train, x)):
        with pytest.raises(ValueError, match=r"floats in \[0, 1\].*Received: .*values -"):
            training.train(bernoulli, images, 1, validation, progress=False)


def linear_vae_loss(x):
    vae = linear_vae()
    vae.compile()
    return vae.evaluate(x, verbose=0)[0]


def test_images_of_another_shape_are_refused_before_the_training(small):
    for images, validation in ((small.x_train[:, 1:], None), (small.x_train, small.x_train[0])):
        with pytest.raises(ValueError, match=r"must have the shape \(n, 4, 4, 1\). Received"):
            training.train(linear_vae(), images, 1, validation)


@pytest.mark.parametrize("change", [lambda s: s.repeat(), lambda s: s.filter(lambda x: True)])
def test_a_data_set_of_unknown_length_is_refused_with_the_mend(small, change):
    stream = change(as_dataset(small.x_train))
    with pytest.raises(ValueError, match="known number of steps.*Received: a cardinality of -"):
        training.train(linear_vae(), stream, 1)
    mended = stream.take(4).apply(tf.data.experimental.assert_cardinality(4))
    training.train(linear_vae(), mended, 1, progress=False)


@pytest.mark.parametrize("steps_at_once", [1, 3])
def test_every_batch_is_one_step_down_the_whole_schedule(small, monkeypatch, steps_at_once):
    monkeypatch.setattr(training, "STEPS_PER_EXECUTION", steps_at_once)
    vae = linear_vae()
    training.train(vae, small, epochs=3, batch_size=10, progress=False)
    assert int(vae.optimizer.iterations) == 3 * 4
    assert float(vae.optimizer.learning_rate) == pytest.approx(0, abs=1e-9)


def test_training_can_be_repeated(small):
    losses_of = [
        training.train(linear_vae(seed), small, 2, batch_size=10, progress=False).history["loss"]
        for seed in (1, 1, 2)
    ]
    assert losses_of[0] == pytest.approx(losses_of[1], rel=1e-6)
    assert losses_of[0] != pytest.approx(losses_of[2], rel=1e-6)


def test_further_callbacks_are_called(small):
    begin = Begin()
    training.train(linear_vae(), small, 1, batch_size=10, callbacks=[begin])
    assert (begin.epoch, begin.iterations) == (0, 0)


def test_a_training_that_diverges_says_what_to_try(small):
    with pytest.raises(FloatingPointError, match=r"in epoch \d+, batch \d+\. .*diverged.*smaller"):
        training.train(linear_vae(), small, 50, batch_size=10, learning_rate=1e9)


class Explode(keras.callbacks.Callback):
    """Make the learning rate explode in an epoch, and note that the training was ended."""

    ended = False

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 2:
            self.best = [np.array(weight) for weight in self.model.get_weights()]

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3:
            self.model.optimizer.learning_rate = 1e30

    def on_train_end(self, logs=None):
        self.ended = True


def test_a_divergence_gives_the_best_weights_back_and_closes_what_callbacks_opened(
    small, monkeypatch, tmp_path
):
    prepare = training.prepare

    def with_a_rate_that_can_change(vae, images, epochs, learning_rate):
        prepare(vae, images, epochs, learning_rate)
        vae.compile(keras.optimizers.Adam(1e-2))

    monkeypatch.setattr(training, "prepare", with_a_rate_that_can_change)
    explode, log = Explode(), keras.callbacks.CSVLogger(tmp_path / "log.csv")
    best = keras.callbacks.EarlyStopping("val_loss", patience=9, restore_best_weights=True)
    vae = linear_vae()
    with pytest.raises(FloatingPointError, match="in epoch 4, batch .*have diverged"):
        training.train(vae, small, 9, batch_size=10, callbacks=[explode, best, log])
    assert explode.ended
    assert log.csv_file is None or log.csv_file.closed
    for weight, kept in zip(vae.get_weights(), explode.best):
        np.testing.assert_array_equal(weight, kept)


def test_bad_pixels_in_a_stream_are_named_as_the_cause_and_harm_no_weight(small):
    x = small.x_train[:]
    x[25, 1, 1] = np.nan
    vae = linear_vae()
    with pytest.raises(FloatingPointError, match=r"within bounds.* pixels outside"):
        training.train(vae, as_dataset(x), 2)
    assert all(np.isfinite(weight).all() for weight in vae.get_weights())
    with pytest.raises(FloatingPointError, match="on the validation images in epoch 1"):
        training.train(vae, small.x_train, 2, as_dataset(x))


def test_ctrl_c_leaves_a_traceback_of_a_few_lines(small):
    with pytest.raises(KeyboardInterrupt, match="was interrupted") as caught:
        training.train(linear_vae(), small, 5, callbacks=[StopBeforeEpoch(1)], progress=False)
    assert len(traceback.format_exception(caught.value)) < 10


def test_a_single_batch_is_enough(small):
    history = training.train(linear_vae(), small, epochs=1, batch_size=40)
    assert np.isfinite(history.history["loss"]).all()


# The progress bar


LINE = r"linear_vae: █{20} 5/5 epochs in \d\d:\d\d, loss=-?[\d.]+, val_loss=-?[\d.]+"


def test_the_progress_bar_leaves_one_clean_line(small, capsys):
    training.train(linear_vae(), small, epochs=5, batch_size=10)
    output = capsys.readouterr()
    (line,) = as_shown(output.out)
    assert re.fullmatch(LINE, line)
    assert output.out.endswith("\n")
    assert output.err == ""


def test_the_bars_last_word_is_the_last_epochs_loss(small, capsys):
    history = training.train(linear_vae(), small, epochs=5, batch_size=10).history
    shown = dict(re.findall(r"(\w+)=(-?[\d.]+)", as_shown(capsys.readouterr().out)[0]))
    assert float(shown["loss"]) == pytest.approx(history["loss"][-1], rel=0.01)
    assert float(shown["val_loss"]) == pytest.approx(history["val_loss"][-1], rel=0.01)


def test_an_interrupted_training_does_not_spoil_the_next_bar(small, capsys):
    with pytest.raises(KeyboardInterrupt) as kept:  # as a notebook keeps the last traceback
        training.train(linear_vae(), small, 5, batch_size=10, callbacks=[StopBeforeEpoch(2)])
    capsys.readouterr()
    training.train(linear_vae(), small, epochs=5, batch_size=10)
    output = capsys.readouterr().out
    assert "\x1b" not in output  # no moves of the cursor
    (line,) = as_shown(output)
    assert re.fullmatch(LINE, line)
    del kept


def test_progress_can_be_silent(small, capsys):
    training.train(linear_vae(), small, epochs=2, batch_size=10, progress=False)
    assert capsys.readouterr() == ("", "")


# Resuming


def test_an_interrupted_training_goes_on_where_it_was(small, tmp_path, capsys):
    folder = tmp_path / "backup"
    interrupted = StopBeforeEpoch(2)
    recipe = {"epochs": 4, "batch_size": 10, "backup_dir": folder}
    with pytest.raises(KeyboardInterrupt):
        training.train(linear_vae(1), small, callbacks=[interrupted], **recipe)
    assert any(folder.iterdir())

    vae, begin = linear_vae(2), Begin()
    capsys.readouterr()
    history = training.train(vae, small, callbacks=[begin], **recipe)
    assert (begin.epoch, begin.iterations) == (2, 2 * 4)
    for restored, left in zip(begin.weights, interrupted.left):
        np.testing.assert_array_equal(restored, left)
    assert history.epoch == [2, 3]
    assert int(vae.optimizer.iterations) == 4 * 4
    assert float(vae.optimizer.learning_rate) == pytest.approx(0, abs=1e-9)
    assert "4/4 epochs" in as_shown(capsys.readouterr().out)[-1]
    assert not folder.exists() or not any(folder.iterdir())


def test_a_training_that_ended_is_not_resumed(small, tmp_path):
    for _ in range(2):
        begin = Begin()
        training.train(
            linear_vae(), small, 2, batch_size=10, callbacks=[begin], backup_dir=tmp_path / "backup"
        )
        assert (begin.epoch, begin.iterations) == (0, 0)


# The cache of trained models


@pytest.fixture
def trainings(monkeypatch, quick):
    """Count the trainings, and note which epochs they ran."""
    counted = []
    train = training.train

    def counting_train(*args, **kwargs):
        history = train(*args, **kwargs)
        counted.append(history.epoch)
        return history

    monkeypatch.setattr(training, "train", counting_train)
    return counted


def test_a_model_is_trained_once_and_then_loaded(small, trainings, capsys):
    trained = training.load_or_train("linear", small, epochs=2)
    assert "2/2 epochs" in capsys.readouterr().out
    loaded = training.load_or_train("linear", small, epochs=2)
    assert capsys.readouterr().out == ""
    assert trainings == [[0, 1]]
    for ours, theirs in zip(trained.encode(small.x_test), loaded.encode(small.x_test)):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.evaluate(small.x_test, verbose=0) == trained.evaluate(small.x_test, verbose=0)


def test_what_follows_is_as_random_trained_or_loaded(small, trainings):
    draws = []
    for _ in range(2):
        training.load_or_train("linear", small, epochs=1)
        draws.append([*np.random.rand(2), *np.asarray(keras.random.normal((2,)))])
    assert len(trainings) == 1
    np.testing.assert_array_equal(*draws)


def test_the_network_takes_the_shape_of_the_images(small, trainings):
    vae = training.load_or_train("linear", small, 3, epochs=1)
    assert vae.image_shape == (4, 4, 1)
    assert vae.latent_dim == 3


def test_images_of_ones_own_are_recognized_without_labels(small, trainings):
    for images in (
        small.train_levels,
        small.train_levels.copy(),
        as_dataset(small.x_train),
        as_dataset(small.x_train[::-1]),  # the same images
    ):
        training.load_or_train("linear", images, epochs=1)
    assert len(trainings) == 2
    training.load_or_train("linear", as_dataset(small.x_train[:39]), epochs=1)
    assert len(trainings) == 3


@pytest.fixture
def untrained(monkeypatch):
    """Skip the training itself, and return a list that grows with each."""
    calls = []
    monkeypatch.setattr(training, "train", lambda *args, **kwargs: calls.append(args))
    return calls


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "dense"},
        {"latent_dim": 3},
        {"epochs": 3},
        {"seed": 1},
        {"likelihood": "bernoulli"},
        {"beta": 2.0},
    ],
)
def test_each_setting_has_its_own_entry(small, untrained, change):
    settings = {"architecture": "linear", "latent_dim": 2, "epochs": 2, "seed": 0}
    for changed in (settings, settings | change, settings, settings | change):
        vae = training.load_or_train(images=small, **changed)
        assert vae.name == f"{changed['architecture']}_vae"
        assert vae.latent_dim == changed["latent_dim"]
        assert vae.seed == changed["seed"]
    assert len(untrained) == 2


def test_other_data_have_their_own_entry(small, untrained):
    levels = small.train_levels.copy()
    levels[0, 0, 0] ^= 1
    for digits in (small, dataclasses.replace(small, train_levels=levels), small):
        training.load_or_train("linear", digits)
    assert len(untrained) == 2


@pytest.mark.parametrize("module", [losses, models, replicas, training])
def test_a_change_of_the_code_trains_anew(small, untrained, module, monkeypatch, tmp_path):
    training.load_or_train("linear", small)
    changed = tmp_path / "changed.py"
    changed.write_text(Path(module.__file__).read_text() + "\n# another thought\n")
    monkeypatch.setattr(module, "__file__", str(changed))
    training.load_or_train("linear", small)
    assert len(untrained) == 2


def test_another_keras_trains_anew(small, untrained, monkeypatch):
    training.load_or_train("linear", small)
    monkeypatch.setattr(keras, "__version__", "99")
    training.load_or_train("linear", small)
    assert len(untrained) == 2


def test_an_unreadable_model_is_trained_anew_with_a_notice(small, trainings, own_folders, capsys):
    training.load_or_train("linear", small, epochs=1)
    (entry,) = own_folders.glob("*.keras")
    entry.write_bytes(entry.read_bytes()[:1000])
    capsys.readouterr()
    training.load_or_train("linear", small, epochs=1)
    assert "is unreadable" in capsys.readouterr().out
    assert len(trainings) == 2
    training.load_or_train("linear", small, epochs=1)
    assert len(trainings) == 2


def test_without_a_writable_cache_models_are_trained_each_time(
    small, trainings, monkeypatch, tmp_path, capsys
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VAE_UTILS_CACHE", str(tmp_path / "file" / "cache"))
    for _ in range(2):
        vae = training.load_or_train("linear", small, epochs=1)
        assert np.isfinite(vae.encode(small.x_test)[0]).all()
        assert f"Nothing can be cached in {tmp_path / 'file' / 'cache'}" in capsys.readouterr().out
    assert len(trainings) == 2


@pytest.fixture
def interrupted(small, own_folders, monkeypatch, quick):
    """Leave a training of four epochs interrupted after its second; return its backup folder."""
    with monkeypatch.context() as patch:
        stop = functools.partial(training.train, callbacks=[StopBeforeEpoch(2)])
        patch.setattr(training, "train", stop)
        with pytest.raises(KeyboardInterrupt):
            training.load_or_train("linear", small, epochs=4)
    (folder,) = own_folders.glob("unfinished-*")
    assert not list(own_folders.glob("*.keras"))
    return folder


def test_an_interrupted_call_is_resumed_by_the_next(small, interrupted, trainings):
    vae = training.load_or_train("linear", small, epochs=4)
    assert trainings == [[2, 3]]
    assert int(vae.optimizer.iterations) == 4 * 4
    assert not interrupted.exists()


def test_another_training_does_not_take_up_an_interrupted_one(small, interrupted, trainings):
    training.load_or_train("linear", small, epochs=4, seed=1)
    assert trainings == [[0, 1, 2, 3]]
    assert interrupted.exists()


def test_a_damaged_backup_costs_time_but_not_the_run(small, interrupted, trainings, capsys):
    damaged = interrupted / "latest.keras"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    training.load_or_train("linear", small, epochs=4)
    assert "It starts anew" in capsys.readouterr().out
    assert trainings == [[0, 1, 2, 3]]
    assert not interrupted.exists()


def test_two_processes_that_want_a_model_at_once_train_it_once(run_python, own_folders, small):
    np.savez(own_folders.parent / "small.npz", levels=small.train_levels, labels=small.y_train)
    code = f"""
        import numpy as np
        from vae_utils import data, training

        with np.load({str(own_folders.parent / "small.npz")!r}) as file:
            levels, labels = file["levels"], file["labels"]
        digits = data.Digits("", "", *(levels[:30], labels[:30]) * 2, levels[30:], labels[30:])
        training.train.__kwdefaults__["batch_size"] = 10
        meet()
        vae = training.load_or_train("linear", digits, epochs=2)
        print(float(np.sum(vae.encode(digits.x_test))))
    """
    outputs = [as_shown(output) for output in run_python(code, processes=2)]
    assert sorted(map(len, outputs)) == [1, 2]  # one of them shows a progress bar
    assert outputs[0][-1] == outputs[1][-1]
    assert len(list(own_folders.glob("*.keras"))) == 1
    assert not list(own_folders.glob("unfinished-*"))
