"""Digits come from where the page says, whole and unchanged, or an error says how to get them."""

import contextlib
import dataclasses
import importlib.util
import itertools
import os
import pickle
import re
import socketserver
import tempfile
import threading
import time
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage, special
from sklearn.datasets import load_digits as load_scans

from vae_utils import data

pytestmark = pytest.mark.usefixtures("own_folders")

SAID = "MNIST is downloaded, 11 MB, in at most 60 s."
NOBODY_LISTENS_HERE = "http://127.0.0.1:9/mnist.npz"


def small_mnist(brightness=200, **changes):
    """Return the arrays of an mnist.npz with 12 training and 5 test images."""
    arrays = {}
    for part, count in (("train", 12), ("test", 5)):
        levels = np.arange(count * 28 * 28) % (brightness + 1)
        arrays[f"x_{part}"] = levels.reshape(count, 28, 28).astype("uint8")
        arrays[f"y_{part}"] = (np.arange(count) % 10).astype("uint8")
    return arrays | changes


def written(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **(arrays or small_mnist()))
    return path


@pytest.fixture
def named_file(monkeypatch, tmp_path):
    """Return a path that MNIST_NPZ names; the test writes the file."""
    path = tmp_path / "named" / "digits.npz"
    path.parent.mkdir()
    monkeypatch.setenv("MNIST_NPZ", str(path))
    return path


@pytest.fixture
def keras_file(tmp_path):
    return tmp_path / "keras" / "datasets" / "mnist.npz"


@pytest.fixture
def download(monkeypatch, keras_file):
    """Return a function that says from where MNIST is downloaded, and which hash it has there."""

    def offer(origin, file_hash=""):
        monkeypatch.setattr(data, "MNIST_URL", origin)
        monkeypatch.setattr(data, "MNIST_SHA256", file_hash)

    offer(NOBODY_LISTENS_HERE)
    return offer


@pytest.fixture
def serve():
    """Return a function that starts a server of this machine, and returns its address."""
    servers = []

    def start(answer):
        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                with contextlib.suppress(OSError):
                    answer(self.wfile)

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}/mnist.npz"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def small_bundled_arrays():
    arrays = small_mnist(brightness=100)
    return arrays | {"x_validation": arrays["x_test"], "y_validation": arrays["y_test"]}


@pytest.fixture
def small_bundled(monkeypatch):
    """Spare a test the seconds in which the bundled digits are enlarged."""
    monkeypatch.setattr(data, "_enlarged_scans", small_bundled_arrays)


# Where the digits come from


def test_mnist_npz_comes_before_the_keras_cache(named_file, keras_file, download):
    written(named_file, **small_mnist(brightness=90))
    written(keras_file, **small_mnist(brightness=80))
    digits = data.load_digits()
    assert digits.train_levels.max() == 90
    assert (digits.name, digits.origin) == ("MNIST", "the file that MNIST_NPZ names")


def test_the_keras_cache_comes_before_a_download(keras_file, download):
    written(keras_file, **small_mnist(brightness=80))
    digits = data.load_digits()
    assert digits.train_levels.max() == 80
    assert (digits.name, digits.origin) == ("MNIST", "the Keras cache")


def test_without_keras_home_the_keras_cache_is_at_home(monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    written(tmp_path / "home" / ".keras" / "datasets" / "mnist.npz")
    assert data.load_digits("mnist").origin == "the Keras cache"


def test_a_download_comes_before_the_bundled_digits_and_is_kept(download, tmp_path, capsys):
    served = written(tmp_path / "server" / "mnist.npz")
    download(served.as_uri(), sha256(served.read_bytes()).hexdigest())
    digits = data.load_digits()
    assert (digits.name, digits.origin) == ("MNIST", "downloaded")
    assert capsys.readouterr().out == f"{SAID}\n{digits}\n"
    served.unlink()
    assert data.load_digits().origin == "the Keras cache"


@pytest.mark.usefixtures("small_bundled")
def test_the_bundled_digits_come_last_and_never_silently(download, capsys):
    digits = data.load_digits()
    assert (digits.name, digits.origin) == ("bundled digits", "scikit-learn")
    *lines, line = capsys.readouterr().out.splitlines()
    notice = " ".join(lines)
    assert all(len(part) <= 80 for part in lines)  # as wide as a page
    assert "could not be downloaded" in notice
    assert "refused" in notice  # the reason
    assert "The bundled digits are used instead." in notice
    assert line == str(digits)


def test_who_asks_for_mnist_gets_it_or_an_error(download, capsys):
    with pytest.raises(ConnectionError, match=r"neither in MNIST_NPZ nor in the Keras cache"):
        data.load_digits("mnist")
    assert capsys.readouterr().out == f"{SAID}\n"


def drip(file):
    """Send a byte again and again, for half a minute."""
    for _ in range(600):
        file.write(b"H")
        file.flush()
        time.sleep(0.05)


def block(file):
    page = b"<html>Sign in to this network</html>"
    file.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page) + page)


@pytest.mark.usefixtures("small_bundled")
@pytest.mark.parametrize(
    ("answer", "seconds", "reason"),
    [(drip, 0.5, "more than 0.5 s"), (block, 300, "by its hash; it begins b'<html>Sign")],
)
def test_a_network_that_drips_or_blocks_costs_little_time_and_leaves_nothing(
    answer, seconds, reason, download, serve, monkeypatch, keras_file, capsys
):
    monkeypatch.setattr(data, "DOWNLOAD_SECONDS", seconds)
    download(serve(answer), "0" * 64)
    start = time.monotonic()
    assert data.load_digits().name == "bundled digits"
    assert time.monotonic() - start < 60
    first, *rest, _ = capsys.readouterr().out.splitlines()
    assert first == f"MNIST is downloaded, 11 MB, in at most {seconds} s."  # said before the wait
    assert reason in " ".join(rest)
    assert "The bundled digits are used instead." in " ".join(rest)
    with pytest.raises(ConnectionError, match=re.escape(reason)):
        data.load_digits("mnist")
    assert not keras_file.exists()


@pytest.mark.usefixtures("small_bundled")
def test_who_asks_for_the_bundled_digits_gets_no_others(named_file, keras_file, download):
    written(named_file)
    written(keras_file)
    assert data.load_digits("bundled").name == "bundled digits"


def test_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match=r"one of \('auto', .*Received: source='imagenet'"):
        data.load_digits("imagenet")


@pytest.mark.parametrize("source", ["auto", "mnist"])
def test_one_printed_line_says_what_was_loaded_and_from_where(named_file, source, capsys):
    written(named_file)
    digits = data.load_digits(source)
    assert capsys.readouterr().out == (
        "MNIST (the file that MNIST_NPZ names): 11 training, 1 validation and 5 test images\n"
    )
    assert str(digits).startswith("MNIST")


def test_a_damaged_file_in_the_keras_cache_is_replaced_and_said(
    keras_file, download, tmp_path, capsys
):
    served = written(tmp_path / "server" / "mnist.npz")
    download(served.as_uri(), sha256(served.read_bytes()).hexdigest())
    written(keras_file).write_bytes(served.read_bytes()[:1000])
    digits = data.load_digits()
    assert digits.origin == "downloaded"
    notice, _, line = capsys.readouterr().out.splitlines()
    assert str(keras_file) in notice
    assert "A new copy is downloaded" in notice
    assert keras_file.read_bytes() == served.read_bytes()


@pytest.mark.usefixtures("small_bundled")
def test_a_download_that_fails_its_hash_is_never_taken_for_mnist(download, tmp_path, keras_file):
    served = written(tmp_path / "server" / "mnist.npz")
    download(served.as_uri(), sha256(b"another file").hexdigest())
    for _ in range(2):
        with pytest.raises(ConnectionError, match=r"(?s)could not be downloaded.*hash.*MNIST_NPZ"):
            data.load_digits("mnist")
        assert data.load_digits().name == "bundled digits"
    assert not keras_file.exists()


def test_address_and_hash_are_those_of_keras():
    keras_source = Path(importlib.util.find_spec("keras").origin).parent
    source = (keras_source / "src" / "datasets" / "mnist.py").read_text()
    assert data.MNIST_SHA256 in source
    assert data.MNIST_URL.removesuffix("mnist.npz") in source


@pytest.mark.usefixtures("small_bundled")
def test_a_user_without_a_home_gets_digits_too(monkeypatch, download, tmp_path):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for an unknown user
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    for name in ("KERAS_HOME", "VAE_UTILS_CACHE", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert data.load_digits().name == "bundled digits"
    assert not (tmp_path / "~").exists()


# What is in a file


def pairs(images, labels):
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels))


def test_the_images_of_a_file_arrive_unchanged_with_their_labels(named_file):
    random = np.random.default_rng(0)
    arrays = {
        name: random.integers(0, 256, (n, 28, 28)).astype("uint8")
        for name, n in (("x_train", 36), ("x_test", 9))
    } | {"y_train": np.arange(36) % 10, "y_test": np.arange(9)}
    written(named_file, **arrays)
    digits = data.load_digits()
    x_train, y_train = arrays["x_train"], arrays["y_train"]
    parts = {
        "train": (x_train[:33], y_train[:33]),
        "validation": (x_train[33:], y_train[33:]),  # the last twelfth
        "test": (arrays["x_test"], arrays["y_test"]),
    }
    for part, expected in parts.items():
        levels, labels = getattr(digits, f"{part}_levels"), getattr(digits, f"y_{part}")
        assert pairs(levels, labels) == pairs(*expected)
        assert not np.array_equal(labels, expected[1])  # another order,
        assert levels.shape[1:] == (28, 28, 1)
        assert (levels.dtype, labels.dtype) == (np.uint8, np.int64)
    assert data.load_digits().fingerprint == digits.fingerprint  # always the same one


def test_the_head_of_each_part_is_a_random_sample(named_file):
    """Sorted by label in the file, mixed when loaded: as many of each as a draw would have."""
    levels, labels = np.full((2400, 28, 28), 99, "uint8"), np.repeat(np.arange(10), 240)
    written(named_file, x_train=levels, y_train=labels, x_test=levels, y_test=labels)
    digits = data.load_digits()
    share = np.bincount(digits.y_test[:500], minlength=10) / 500
    assert np.abs(share - 0.1).max() < 4.5 * np.sqrt(0.1 * 0.9 / 500)
    share = np.bincount(digits.y_train[:500], minlength=10)[:9] / 500  # most nines are held out
    assert np.abs(share - 0.109).max() < 4.5 * np.sqrt(0.1 * 0.9 / 500)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64"])
def test_labels_may_be_integers_of_any_size(named_file, dtype):
    written(named_file, **small_mnist(y_train=np.arange(12, dtype=dtype) % 10))
    assert data.load_digits().y_train.dtype == np.int64


def test_a_compressed_file_is_as_good(named_file):
    np.savez_compressed(named_file, **small_mnist())
    assert len(data.load_digits().x_test) == 5


def without(key):
    return {name: array for name, array in small_mnist().items() if name != key}


def save_array(path, array):
    with path.open("wb") as file:  # np.save would append .npy to a path
        np.save(file, array)


def pickled_objects():
    return np.array([{"no": "array"}] * 12, dtype=object)


UNUSABLE_FILES = {
    "an empty file": (b"", "no npz archive"),
    "a text": (b"<html>Sign in to the network</html>", "no npz archive"),
    "a pickle": (pickle.dumps([1, 2, 3]), "no npz archive"),
    "a lone array": (lambda path: save_array(path, np.zeros(3)), "no npz archive"),
    "a truncated archive": (
        lambda path: path.write_bytes(written(path).read_bytes()[:-100]),
        "truncated",
    ),
    "no x_train": (without("x_train"), "lacks x_train"),
    "no y_test": (without("y_test"), "lacks y_test"),
    "other keys": ({"images": np.zeros(3)}, "lacks x_train, y_train, x_test, y_test"),
    "objects as images": (small_mnist(x_train=pickled_objects()), "Object arrays cannot be loaded"),
    "objects as labels": (small_mnist(y_test=pickled_objects()), "Object arrays cannot be loaded"),
}

WRONG_ARRAYS = {
    "flat images": (
        {"x_train": np.zeros((12, 784), "uint8")},
        r"x_train must be uint8 images of shape \(n, 28, 28\).*Received: .*shape \(12, 784\)",
    ),
    "images with a channel": ({"x_test": np.zeros((5, 28, 28, 1), "uint8")}, r"\(5, 28, 28, 1\)"),
    "large images": ({"x_train": np.zeros((12, 32, 32), "uint8")}, r"shape \(12, 32, 32\)"),
    "a number": ({"x_train": np.uint8(3)}, r"x_train.*shape \(\)"),
    "float images": (
        {"x_train": np.full((12, 28, 28), 0.5)},
        r"x_train must be uint8.*dtype float64, .*values 0\.5 to 0\.5",
    ),
    "signed images": ({"x_test": np.zeros((5, 28, 28), "int8")}, "x_test.*dtype int8"),
    "no training images": (
        {"x_train": np.zeros((0, 28, 28), "uint8"), "y_train": np.zeros(0, "uint8")},
        r"x_train must be .*n >= 2.*shape \(0, 28, 28\)",
    ),
    "no test images": (
        {"x_test": np.zeros((0, 28, 28), "uint8"), "y_test": np.zeros(0, "uint8")},
        r"x_test must be .*n >= 1",
    ),
    "too few labels": ({"y_train": np.zeros(11, "uint8")}, r"12 integer labels.*shape \(11,\)"),
    "labels in a column": ({"y_test": np.zeros((5, 1), "uint8")}, r"y_test .*shape \(5, 1\)"),
    "one-hot labels": ({"y_test": np.eye(10, dtype="uint8")[:5]}, r"y_test .*shape \(5, 10\)"),
    "float labels": ({"y_train": np.zeros(12)}, "integer labels.*dtype float64"),
    "words as labels": ({"y_train": np.array(["one"] * 12)}, "integer labels.*dtype <U3"),
    "a label of ten": ({"y_test": np.full(5, 10)}, "labels from 0 to 9.*values 10 to 10"),
    "a negative label": ({"y_train": -np.eye(12, dtype=int)[0]}, "0 to 9.*values -1 to 0"),
}


@pytest.mark.parametrize("source", ["auto", "mnist"])
@pytest.mark.parametrize("what", UNUSABLE_FILES)
def test_an_unusable_file_is_an_error_that_names_it_and_the_mend(named_file, what, source, capsys):
    content, wrong = UNUSABLE_FILES[what]
    if isinstance(content, dict):
        written(named_file, **content)
    elif isinstance(content, bytes):
        named_file.write_bytes(content)
    else:
        content(named_file)
    with pytest.raises(ValueError, match=re.escape(wrong)) as caught:
        data.load_digits(source)
    assert str(named_file) in str(caught.value)
    assert "Set MNIST_NPZ to the path of a complete mnist.npz, or unset it" in str(caught.value)
    assert capsys.readouterr().out == ""  # nothing else was loaded instead


@pytest.mark.parametrize("what", WRONG_ARRAYS)
def test_a_wrong_array_is_an_error_that_says_which_and_what_was_received(named_file, what):
    changes, wrong = WRONG_ARRAYS[what]
    written(named_file, **small_mnist(**changes))
    with pytest.raises(ValueError, match=wrong) as caught:
        data.load_digits()
    assert str(named_file) in str(caught.value)
    assert "Set MNIST_NPZ" in str(caught.value)


def test_a_member_that_is_no_array_is_an_error(named_file):
    written(named_file)
    with zipfile.ZipFile(named_file) as whole, zipfile.ZipFile(f"{named_file}2", "w") as other:
        for name in whole.namelist():
            other.writestr(name, b"no array" if name == "x_train.npy" else whole.read(name))
    Path(f"{named_file}2").replace(named_file)
    with pytest.raises(ValueError, match="x_train must be uint8 images"):
        data.load_digits()


@pytest.mark.parametrize("path", ["nowhere.npz", "."])
@pytest.mark.parametrize("source", ["auto", "mnist"])
def test_a_missing_file_is_an_error_that_names_it_and_the_mend(monkeypatch, tmp_path, path, source):
    monkeypatch.setenv("MNIST_NPZ", str(tmp_path / path))
    with pytest.raises(FileNotFoundError, match="Set MNIST_NPZ") as caught:
        data.load_digits(source)
    assert str(tmp_path / path) in str(caught.value)


def test_any_flipped_byte_is_an_error_or_harmless(named_file):
    """Nothing but a `ValueError` that names the file, and never changed digits."""
    whole = written(named_file).read_bytes()
    fingerprint = data.load_digits().fingerprint
    random = np.random.default_rng(0)
    # The archive's own structure is a small part of it: half of the flips fall there.
    names = [match.start() for match in re.finditer(rb"[xy]_t|PK", whole)]
    near_names = random.choice(names, 100) + random.integers(-40, 40, 100)
    for place in np.concatenate([near_names, random.integers(0, len(whole), 100)]):
        damaged = bytearray(whole)
        damaged[place % len(whole)] ^= random.integers(1, 256)
        named_file.write_bytes(damaged)
        try:
            assert data.load_digits().fingerprint == fingerprint
        except ValueError as error:
            assert str(named_file) in str(error)  # noqa: PT017


class Payload:
    """Unpickling it leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("key", ["x_train", "y_train", "x_test", "y_test", "stowaway"])
def test_nothing_is_ever_unpickled(named_file, tmp_path, key):
    trace = tmp_path / "trace"
    written(named_file, **small_mnist(**{key: np.array([Payload(trace)], dtype=object)}))
    if key == "stowaway":
        data.load_digits()
    else:
        with pytest.raises(ValueError, match="Object arrays"):
            data.load_digits()
    assert not trace.exists()
    with np.load(named_file, allow_pickle=True) as archive:
        archive[key]
    assert trace.exists()  # the payload was live


@pytest.mark.parametrize("save", [pickle.dump, lambda array, file: np.save(file, array)])
def test_a_bare_pickle_is_not_unpickled_either(named_file, tmp_path, save):
    trace = tmp_path / "trace"
    with named_file.open("wb") as file:
        save(np.array([Payload(trace)], dtype=object), file)
    with pytest.raises(ValueError, match="no npz archive"):
        data.load_digits()
    assert not trace.exists()


# What the models get


def test_pixels_are_the_levels_divided_by_255(digits):
    np.testing.assert_array_equal(digits.x_test, (digits.test_levels / 255).astype("float32"))
    assert digits.x_test.dtype == np.float32
    np.testing.assert_array_equal(
        digits.x_validation, (digits.validation_levels / 255).astype("float32")
    )


def test_every_level_has_its_own_pixel_from_exactly_0_to_exactly_1():
    pixels = data.to_unit_interval(np.arange(256, dtype="uint8"))
    assert (pixels[0], pixels[-1]) == (0, 1)
    assert (np.diff(pixels) > 0).all()


@pytest.mark.parametrize("dtype", ["bool", "float16", "float32", "float64"])
def test_what_is_pixels_already_stays_as_it_is(dtype):
    pixels = np.array([0, 1, 1, 0], dtype)
    unchanged = data.to_unit_interval(pixels)
    np.testing.assert_array_equal(unchanged, [0, 1, 1, 0])
    assert unchanged.dtype == np.float32
    assert data.to_unit_interval(unchanged) is not None


NO_PIXELS = {
    "binarized": (np.array([0, 1], "uint8"), r"images.astype\(bool\).*uint8, values 0 to 1"),
    "levels as floats": (np.array([0.0, 255.0]), r"divided by 255.*values 0\.0 to 255\.0"),
    "levels as int64": (np.array([0, 255]), r"or passed as uint8.*int64, values 0 to 255"),
    "centred": (np.array([-1.0, 1.0]), r"in \[0, 1\].*values -1\.0 to 1\.0"),
    "one NaN": (np.array([0.25, np.nan, 0.5]), r"1 of the 3 are NaN.*values 0\.25 to 0\.5"),
    "infinity": (np.array([0.0, np.inf]), "values 0.0 to inf"),
}


@pytest.mark.parametrize("what", NO_PIXELS)
def test_nothing_is_scaled_twice_or_taken_for_pixels(what, digits):
    images, message = NO_PIXELS[what]
    with pytest.raises(ValueError, match=message):
        data.to_unit_interval(images)
    levels = np.resize(images, (4, 28, 28, 1))
    with pytest.raises(ValueError, match="Received: dtype"):
        _ = dataclasses.replace(digits, test_levels=levels).x_test


def test_the_mend_of_each_error_mends_it():
    np.testing.assert_array_equal(
        data.to_unit_interval(NO_PIXELS["binarized"][0].astype(bool)), [0, 1]
    )
    for what in ("levels as floats", "levels as int64"):
        levels = NO_PIXELS[what][0]
        for mended in (levels / 255, levels.astype("uint8")):
            np.testing.assert_array_equal(data.to_unit_interval(mended), [0, 1])


def test_a_gaussians_pixels_need_only_be_finite():
    assert data.full_scale(np.array([-3.0, 4.0]), "gaussian") == 1
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="floats finite"):
            data.full_scale(np.array([0.0, bad]), "gaussian")


def test_any_part_of_the_training_pixels_is_an_array_and_only_that_is_computed(digits):
    """Also where a part holds levels of 0 and 1 only, which alone would be taken for binary."""
    levels = digits.train_levels.copy()
    levels[7] = levels[7] > 127
    x_train = dataclasses.replace(digits, train_levels=levels).x_train
    rows = np.array([7, 3, 300])
    for part in (slice(5, 9), rows, 7, -1, (slice(9), ..., 0), levels.mean((1, 2, 3)) > 40):
        assert isinstance(x_train[part], np.ndarray)
        assert x_train[part].dtype == np.float32
        np.testing.assert_array_equal(x_train[part], (levels[part] / 255).astype("float32"))
    assert (len(x_train), x_train.shape, x_train.dtype) == (320, levels.shape, np.float32)


@pytest.mark.parametrize("whole", [np.asarray, np.array, lambda x: np.concatenate([x, x])[:320]])
def test_the_whole_of_the_training_pixels_is_taken_for_an_array(digits, whole):
    expected = (digits.train_levels / 255).astype("float32")
    np.testing.assert_array_equal(whole(digits.x_train), expected)
    assert whole(digits.x_train).dtype == np.float32
    assert np.asarray(digits.x_train, "float64").dtype == np.float64


def test_equal_data_have_equal_fingerprints(digits):
    copies = {
        field.name: getattr(digits, field.name).copy()
        for field in dataclasses.fields(digits)
        if field.name not in ("name", "origin")
    }
    assert data.Digits("a copy", "memory", **copies).fingerprint == digits.fingerprint


FIELDS = [name for part in data.PARTS for name in (f"{part}_levels", f"y_{part}")]


@pytest.mark.parametrize("field", FIELDS)
def test_one_changed_value_changes_the_fingerprint(digits, field):
    changed = getattr(digits, field).copy()
    changed[-1] += 1
    assert dataclasses.replace(digits, **{field: changed}).fingerprint != digits.fingerprint


def test_the_same_bytes_in_another_shape_have_another_fingerprint(digits):
    reshaped = dataclasses.replace(digits, train_levels=digits.train_levels.reshape(-1, 56, 14, 1))
    assert reshaped.fingerprint != digits.fingerprint


# The bundled digits


def mass_centre(images):
    rows, columns = np.indices((28, 28))
    mass = images.sum((1, 2))
    return np.stack([(images * axis).sum((1, 2)) / mass for axis in (rows, columns)], axis=1)


def correlations(images, others):
    parts = (np.reshape(part, (len(part), -1)).astype("float32") for part in (images, others))
    parts = (part - part.mean(axis=1, keepdims=True) for part in parts)
    images, others = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts)
    return images @ others.T


@pytest.fixture(scope="session")
def in_file_order(bundled, session_cache):
    """Return the arrays of the bundled digits before their parts were put in random orders."""
    (entry,) = session_cache.glob("*.npz")
    with np.load(entry) as arrays:
        return dict(arrays)


def test_the_bundled_digits_are_the_file_in_another_order(bundled, in_file_order):
    for part in data.PARTS:
        levels, labels = getattr(bundled, f"{part}_levels"), getattr(bundled, f"y_{part}")
        expected = in_file_order[f"x_{part}"], in_file_order[f"y_{part}"]
        assert pairs(levels, labels) == pairs(*expected)


def test_each_scan_is_in_one_part_only(in_file_order):
    """Recognised by another enlargement: linear, and compared at all shifts of up to a pixel."""
    scans, labels = load_scans(return_X_y=True)
    frames = np.zeros((1797, 28, 28))
    frames[:, 4:24, 4:24] = [
        ndimage.zoom(scan, 2.5, order=1, mode="grid-constant", grid_mode=True)
        for scan in scans.reshape(-1, 8, 8) / 16
    ]
    frames = special.expit(10 * (frames - 0.5)) - special.expit(-5)
    moves = np.rint(13.5 - mass_centre(frames)).astype(int)
    frames = np.stack([np.roll(frame, move, (0, 1)) for frame, move in zip(frames, moves)])
    # The first copies of the training scans are not yet varied.
    firsts = {"train": 1257, "validation": 180, "test": 360}
    originals = np.concatenate([in_file_order[f"x_{part}"][:n] for part, n in firsts.items()])
    agreement = np.max(
        [
            correlations(originals, np.roll(frames, shift, (1, 2)))
            for shift in itertools.product((-1, 0, 1), repeat=2)
        ],
        axis=0,
    )
    scan = agreement.argmax(axis=1)
    assert sorted(scan) == list(range(1797))
    assert agreement.max(axis=1).min() > 0.97
    expected = [label for part, n in firsts.items() for label in in_file_order[f"y_{part}"][:n]]
    np.testing.assert_array_equal(labels[scan], expected)


def test_every_training_image_is_a_small_change_of_its_training_scan(in_file_order):
    copies = in_file_order["x_train"].reshape(14, 1257, 784)
    labels = in_file_order["y_train"].reshape(14, 1257)
    assert (labels == labels[0]).all()
    for copy in copies[1:]:
        agreement = np.diagonal(correlations(copy, copies[0]))
        assert 0.6 < np.median(agreement) < 0.95
        assert (copy != copies[0]).any(axis=1).all()


def test_each_digit_has_its_share_of_every_part(bundled):
    for part in data.PARTS:
        labels = getattr(bundled, f"y_{part}")
        np.testing.assert_allclose(np.bincount(labels) / len(labels), 0.1, atol=0.01)


def test_the_bundled_digits_are_centred_by_mass(bundled):
    test = mass_centre(bundled.test_levels[..., 0].astype(float))
    assert np.abs(test - 13.5).max() < 0.51  # whole pixels, and levels are rounded
    train = mass_centre(bundled.train_levels[..., 0].astype(float))
    assert 1.3 < np.abs(train - 13.5).max() < 1.6  # moved by up to one pixel more
    assert np.abs(train.mean(axis=0) - 13.5).max() < 0.05


def test_the_bundled_digits_look_like_mnist(bundled):
    """MNIST's test images: 13 % grey on average, 16 % ink, 19.7 pixels high."""
    pixels = bundled.x_test[..., 0]
    assert pixels.min() == 0
    assert pixels.max() > 0.99
    assert 0.1 < pixels.mean() < 0.18
    assert 0.1 < (pixels > 0.25).mean() < 0.22
    assert 19.5 < (pixels.max(axis=2) > 0.3).sum(axis=1).mean() <= 20
    assert (pixels[:, 0] == 0).mean() > 0.99


def test_two_processes_that_enlarge_the_digits_at_once_agree_and_leave_one_file(
    run_python, own_folders, bundled
):
    code = """
        from vae_utils import data
        meet()
        print(data.load_digits("bundled").fingerprint)
    """
    expected = f"{bundled}\n{bundled.fingerprint}\n"
    assert run_python(code, processes=2) == [expected] * 2
    (entry,) = own_folders.glob("*.npz")
    assert {path.suffix for path in own_folders.iterdir()} == {".npz", ".lock"}
    with np.load(entry) as arrays:
        assert pairs(arrays["x_test"], arrays["y_test"]) == pairs(
            bundled.test_levels, bundled.y_test
        )


def test_the_enlarged_digits_come_from_the_cache_the_next_time(
    bundled, session_cache, monkeypatch, capsys
):
    monkeypatch.setenv("VAE_UTILS_CACHE", str(session_cache))
    monkeypatch.setattr(data, "_enlarged_scans", None)
    assert data.load_digits("bundled").fingerprint == bundled.fingerprint
    assert capsys.readouterr().out == f"{bundled}\n"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-50])


def replace_keys(path):
    np.savez(path, other=np.zeros(3))


@pytest.mark.usefixtures("small_bundled")
@pytest.mark.parametrize("damage", [truncate, replace_keys])
def test_a_damaged_cache_of_the_enlarged_digits_is_remade_with_a_notice(
    own_folders, damage, capsys
):
    fingerprint = data.load_digits("bundled").fingerprint
    (entry,) = own_folders.glob("*.npz")
    damage(entry)
    capsys.readouterr()
    assert data.load_digits("bundled").fingerprint == fingerprint
    notice, line = capsys.readouterr().out.splitlines()
    assert "unreadable" in notice
    assert data.load_digits("bundled").fingerprint == fingerprint
    assert "unreadable" not in capsys.readouterr().out


@pytest.mark.usefixtures("small_bundled")
def test_the_bundled_digits_need_no_cache(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VAE_UTILS_CACHE", str(tmp_path / "file" / "cache"))
    assert len(data.load_digits("bundled").y_test) == 5
    assert "Nothing can be cached" in capsys.readouterr().out


def test_loading_mnist_takes_less_than_600_mb_and_no_tensorflow(run_python, named_file):
    levels = np.resize(np.arange(256, dtype="uint8"), (70_000, 28, 28))
    labels = np.resize(np.arange(10, dtype="uint8"), 70_000)
    parts = {"train": slice(60_000), "test": slice(60_000, None)}
    written(
        named_file,
        **{f"x_{part}": levels[rows] for part, rows in parts.items()},
        **{f"y_{part}": labels[rows] for part, rows in parts.items()},
    )
    code = """
        import re, resource, sys
        from vae_utils import data

        digits = data.load_digits()
        assert digits.x_test.shape == (10000, 28, 28, 1)
        assert digits.x_train.shape == (55000, 28, 28, 1)
        print(sorted({"tensorflow", "keras"} & set(sys.modules)))
        if sys.platform == "linux":  # where getrusage counts what the parent had before exec
            print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
        else:
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    """
    ((line, modules, kilobytes),) = (output.splitlines() for output in run_python(code))
    assert "55,000 training, 5,000 validation and 10,000 test images" in line
    assert modules == "[]"
    assert int(kilobytes) < 600_000
