"""Handwritten digits: MNIST where it can be had, else the scans that ship with scikit-learn."""

import hashlib
import io
import os
import textwrap
import threading
import urllib.request
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from vae_utils import cache
from vae_utils.checks import require

SOURCES = ("auto", "mnist", "bundled")
PARTS = ("train", "validation", "test")
IMAGE_SIZE = 28
VALIDATION_SHARE = 12  # 5,000 of MNIST's 60,000 training images, the last ones
COPIES_PER_SCAN = 14
# Keras's own copy of MNIST, and its hash.
MNIST_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
MNIST_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
STALLED_SECONDS = 10
DOWNLOAD_SECONDS = 60
GET_MNIST = "Set MNIST_NPZ to the path of a complete mnist.npz, or unset it."


@dataclass(frozen=True, eq=False)
class Digits:
    """Images of handwritten digits with their labels: training, validation and test part.

    What is chosen, is chosen on training or validation images; the test images are looked at once.
    Each part is in a fixed random order, so any head of it is a random sample. (In the file, the
    first half of MNIST's test images is the harder one.)

    The grey levels are kept as uint8, a quarter of the memory of floats. `x_train`, `x_validation`
    and `x_test` are the same images as the models take them, float32 in [0, 1]. The validation and
    the test images are arrays; of `x_train`, which would take 172 MB of MNIST, only what is asked
    for is computed: `digits.x_train[:1000]` or `digits.x_train[rows]` is an array.

    Attributes:
        name: "MNIST" or "bundled digits", or whatever else describes the images.
        origin: where they were found, for the reader.
        train_levels, validation_levels, test_levels: uint8, shape `(n, 28, 28, 1)`, 0 (paper) to
            255 (ink).
        y_train, y_validation, y_test: int64 labels, shape `(n,)`, 0 to 9.
    """

    name: str
    origin: str
    train_levels: np.ndarray
    y_train: np.ndarray
    validation_levels: np.ndarray
    y_validation: np.ndarray
    test_levels: np.ndarray
    y_test: np.ndarray

    @cached_property
    def x_train(self):
        """Training images as `Pixels`, shape `(n, 28, 28, 1)`; parts of them are arrays."""
        return Pixels(self.train_levels)

    @cached_property
    def x_validation(self):
        """Validation images, float32 in [0, 1], shape `(n, 28, 28, 1)`."""
        return to_unit_interval(self.validation_levels)

    @cached_property
    def x_test(self):
        """Test images, float32 in [0, 1], shape `(n, 28, 28, 1)`."""
        return to_unit_interval(self.test_levels)

    @cached_property
    def fingerprint(self):
        """Hexadecimal digest of all images and labels: equal data, equal fingerprint."""
        digest = hashlib.sha256()
        for part in PARTS:
            for array in (getattr(self, f"{part}_levels"), getattr(self, f"y_{part}")):
                digest.update(str(array.shape).encode())
                digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()

    def __str__(self):
        train, validation, test = (len(getattr(self, f"y_{part}")) for part in PARTS)
        return (
            f"{self.name} ({self.origin}): {train:,} training, {validation:,} validation and "
            f"{test:,} test images"
        )


class Pixels:
    """Images in [0, 1] that are computed when asked for, so that not all need memory at once.

    `pixels[rows]` is a NumPy array, float32, and so is the whole, `pixels[:]`, as which functions
    of NumPy, Keras and TensorFlow take it by themselves.

    Args:
        levels: images as `to_unit_interval` takes them.
    """

    def __init__(self, levels):
        self.levels, self.scale = levels, full_scale(levels)
        self.shape, self.dtype = levels.shape, np.dtype(np.float32)

    def __len__(self):
        return len(self.levels)

    def __getitem__(self, rows):
        return np.divide(self.levels[rows], self.scale, dtype=self.dtype)

    def __array__(self, dtype=None, copy=None):
        return self[:].astype(dtype or self.dtype, copy=False)


def full_scale(images, likelihood="bernoulli"):
    """Return by what to divide images so that they are pixels: 255 for grey levels, else 1.

    Args:
        images: array of uint8 (grey levels), of booleans, or of floats, which are pixels already.
        likelihood: of which model they are to be pixels. "bernoulli": floats lie in [0, 1],
            "gaussian": floats are finite, standardized ones for example.

    Raises:
        ValueError: for other numbers, and for uint8 of zeros and ones, which may be either.
    """
    images = np.asarray(images)
    low, high = (images.min(), images.max()) if images.size else (0, 0)
    if images.dtype == np.uint8 and high != 1:
        return 255
    if images.dtype.kind in "fb" and np.all(are_pixels(np.array([low, high]), likelihood)):
        return 1
    mend = "Grey levels of 0 to 255 are divided by 255, or passed as uint8."
    if images.dtype == np.uint8:
        mend = "For black and white pass images.astype(bool), for grey levels images / 255."
    elif missing := np.count_nonzero(images != images):
        low, high = np.nanmin(images), np.nanmax(images)
        mend = f"{missing} of the {images.size} are NaN."
    wanted = "in [0, 1]" if likelihood == "bernoulli" else "finite"
    raise ValueError(
        f"Pixels must be floats {wanted}, booleans, or uint8 grey levels up to 255. {mend} "
        f"Received: dtype {images.dtype}, values {low} to {high}"
    )


def are_pixels(x, likelihood="bernoulli"):
    """Return for each number whether a pixel can have this value: booleans of the same shape."""
    finite = np.finfo(np.float32)
    low, high = (0, 1) if likelihood == "bernoulli" else (finite.min, finite.max)
    return (x >= low) & (x <= high)


def to_unit_interval(images):
    """Return images of any shape as float32 pixels in [0, 1].

    Grey levels, which are uint8, are divided by 255; booleans become 0 and 1; floats stay as they
    are. Errors: as `full_scale`.
    """
    return np.divide(images, full_scale(images), dtype=np.float32)


def load_digits(source="auto"):
    """Load handwritten digits and print one line that says which, and where they came from.

    MNIST is looked for in the file that the environment variable `MNIST_NPZ` names, then in the
    Keras cache, then downloaded from where Keras has it. Where none of these is to be had, "auto"
    takes the bundled digits and says why. The validation part is the last 5,000 of MNIST's
    training images; of the bundled digits, it is 180 of the 1,797 scans.

    Args:
        source: "auto", "mnist" (that or an error) or "bundled" (never the network).

    Returns:
        A `Digits`.

    Raises:
        ValueError: unknown `source`, or a file that is not a valid mnist.npz.
        FileNotFoundError: `MNIST_NPZ` names no file.
        ConnectionError: with "mnist", if no copy is on this machine and none can be downloaded.
    """
    require(source in SOURCES, f"source must be one of {SOURCES}.", f"{source=}")
    try:
        digits = _bundled_digits() if source == "bundled" else _mnist()
    except ConnectionError as error:
        if source == "mnist":
            raise
        notice = f"{error} The bundled digits are used instead."
        print(textwrap.fill(notice, 80, break_on_hyphens=False))
        digits = _bundled_digits()
    print(digits)
    return digits


def _mnist():
    """Return MNIST from the first place that has it."""
    if named := os.environ.get("MNIST_NPZ"):
        if not os.path.isfile(named):
            raise FileNotFoundError(f"There is no file {named}. {GET_MNIST}")
        return _read_npz(Path(named), "the file that MNIST_NPZ names")
    keras_home = Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"))
    cached = keras_home / "datasets" / "mnist.npz"
    with cache.locked(cache.directory() / "mnist.npz"):  # two notebooks, one download
        if os.path.isfile(cached):  # False too where the folder cannot be read
            try:
                return _read_npz(cached, "the Keras cache")
            except ValueError as error:
                print(f"{error} A new copy is downloaded.")
        content = _downloaded_mnist()
        cache.write_atomically(cached, lambda path: path.write_bytes(content))
    return _read_npz(MNIST_URL, "downloaded", content)


def _downloaded_mnist():
    """Return the content of mnist.npz, or raise a `ConnectionError` that says why not.

    In a thread, since a connection that drips can be left, but not ended, at a set time.
    """
    got = [f"it took more than {DOWNLOAD_SECONDS} s"]

    def download():
        try:
            with urllib.request.urlopen(MNIST_URL, timeout=STALLED_SECONDS) as response:
                got[0] = response.read()
        except Exception as error:  # whatever a network makes its reader raise
            got[0] = error

    print(f"MNIST is downloaded, 11 MB, in at most {DOWNLOAD_SECONDS} s.", flush=True)
    thread = threading.Thread(target=download, daemon=True)
    thread.start()
    thread.join(DOWNLOAD_SECONDS)
    content = got[0]
    if isinstance(content, bytes):
        if hashlib.sha256(content).hexdigest() == MNIST_SHA256:
            return content
        content = f"what came is not mnist.npz by its hash; it begins {content[:20]!r}"
    raise ConnectionError(
        "MNIST is neither in MNIST_NPZ nor in the Keras cache, and could not be downloaded "
        f"({content}). Download {MNIST_URL} by other means and set MNIST_NPZ to its path."
    )


def _read_npz(path, origin, content=None):
    """Read a file in the layout of Keras's mnist.npz, or the content downloaded from one."""
    try:
        arrays = _arrays(io.BytesIO(content or path.read_bytes()), ("train", "test"))
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise ValueError(f"{path} is not a usable mnist.npz: {error}. {GET_MNIST}") from error

    def require_array(fits, key, wanted):
        array = arrays[key]
        got = f"dtype {array.dtype}, shape {array.shape}"
        if array.size and array.dtype.kind in "iuf":
            got += f", values {array.min()} to {array.max()}"
        require(fits, f"{path}: {key} must be {wanted}.", f"{got}. {GET_MNIST}")

    for part, least in (("train", 2), ("test", 1)):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        fits = images.dtype == np.uint8 and images.shape[1:] == (IMAGE_SIZE, IMAGE_SIZE)
        wanted = f"uint8 images of shape (n, 28, 28), n >= {least}"
        require_array(fits and len(images) >= least, f"x_{part}", wanted)
        fits = labels.dtype.kind in "iu" and labels.shape == images.shape[:1]
        wanted = f"{len(images)} integer labels from 0 to 9, one for each image"
        require_array(fits and np.isin(labels, range(10)).all(), f"y_{part}", wanted)
    for kind in "xy":
        whole = arrays[f"{kind}_train"]
        held_out = max(len(whole) // VALIDATION_SHARE, 1)
        arrays[f"{kind}_train"], arrays[f"{kind}_validation"] = np.split(whole, [-held_out])
    return _shuffled("MNIST", origin, arrays)


def _arrays(file, parts=PARTS):
    """Return images and labels of these parts of an npz file; never unpickle anything."""
    if not zipfile.is_zipfile(file):
        raise ValueError("it is no npz archive, or a truncated one")
    keys = [f"{kind}_{part}" for part in parts for kind in "xy"]
    with np.load(file, allow_pickle=False) as archive:
        missing = [key for key in keys if key not in archive]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        return {key: np.asarray(archive[key]) for key in keys}


def _shuffled(name, origin, arrays):
    """Return `Digits` whose parts are each in a random order, always the same one."""
    parts = {}
    for part in PARTS:
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        order = np.random.default_rng(0).permutation(len(images))
        parts[f"{part}_levels"] = images[order][..., np.newaxis]
        parts[f"y_{part}"] = labels[order].astype(np.int64)
    return Digits(name, origin, **parts)


def _bundled_digits():
    """Return scikit-learn's scans, enlarged; from the cache if an earlier call left them there."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    path = cache.directory() / f"bundled-digits-{recipe}.npz"

    def save(arrays, path):
        np.savez(path, **arrays)

    arrays = cache.load_or_make(path, load=_arrays, make=_enlarged_scans, save=save)
    return _shuffled("bundled digits", "scikit-learn", arrays)


def _enlarged_scans():
    """Split the 1,797 scans, then enlarge all parts and vary the training part."""
    from sklearn.datasets import load_digits as load_scans
    from sklearn.model_selection import train_test_split

    scans, labels = load_scans(return_X_y=True)
    scans = scans.reshape(-1, 8, 8) / 16
    scans, test, labels, y_test = train_test_split(
        scans, labels, test_size=0.2, stratify=labels, random_state=0
    )
    train, validation, y_train, y_validation = train_test_split(
        scans, labels, test_size=180, stratify=labels, random_state=0
    )
    random, copies = np.random.default_rng(0), COPIES_PER_SCAN - 1
    varied = [_enlarge(scan, *_small_change(random)) for _ in range(copies) for scan in train]
    return {
        "x_train": np.stack([*map(_enlarge, train), *varied]),
        "y_train": np.tile(y_train, COPIES_PER_SCAN),
        "x_validation": np.stack([*map(_enlarge, validation)]),
        "y_validation": y_validation,
        "x_test": np.stack([*map(_enlarge, test)]),
        "y_test": y_test,
    }


def _small_change(random):
    """Draw a small rotation, shear and scaling as a 2 × 2 matrix, and a shift of a pixel."""
    angle = np.radians(random.uniform(-12, 12))
    rotation = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    shear = [[1, 0], [random.uniform(-0.15, 0.15), 1]]
    scaling = np.diag(random.uniform(0.88, 1.12, size=2))
    return rotation @ scaling @ shear, random.integers(-1, 2, size=2)


def _enlarge(scan, change=((1, 0), (0, 1)), shift=(0, 0)):
    """Return an 8 × 8 scan in [0, 1] as 28 × 28 grey levels that look like MNIST's.

    Like MNIST's digits it fills 20 × 20 pixels and is centred by mass. Cubic interpolation blurs
    the edges; a logistic curve around mid-grey makes them crisp again.
    """
    from scipy import ndimage, special

    to_scan = np.asarray(change) * 8 / 20
    centre = np.full(2, (IMAGE_SIZE - 1) / 2)
    offset = np.full(2, 3.5) - to_scan @ centre
    size = (IMAGE_SIZE, IMAGE_SIZE)
    grey = ndimage.affine_transform(scan, to_scan, offset, size, order=3, mode="grid-constant")
    low, high = special.expit([-5, 5])
    ink = (special.expit(10 * (np.clip(grey, 0, 1) - 0.5)) - low) / (high - low)
    move = np.rint(centre - ndimage.center_of_mass(ink) + shift).astype(int)
    return np.rint(255 * ndimage.shift(ink, move, order=0)).astype(np.uint8)
