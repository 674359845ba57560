"""A folder of image files as an array, as an array on disk, or as a stream of batches."""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
import os
import tempfile
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.lib import format as npy
from PIL import Image, ImageColor, ImageOps

from vae_utils.checks import is_positive_integer, require
from vae_utils.training import BATCH_SIZE, shuffled_rows

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
SUFFIXES += (".pbm",)
MODES = {"grey": "L", "colour": "RGB"}  # Pillow's words, a letter for each channel
FITS = ("pad", "crop", "stretch")
INKS = ("light", "dark")
UNREADABLE = ("error", "skip")
NAMED = 5  # most files or sizes that a message names


def files(folder):
    """Return the paths of all image files in a folder and those below it, in order of their names.

    A file is an image by the end of its name (`SUFFIXES`, in small or capital letters). Hidden
    files and folders, whose names begin with a full stop, do not count.

    Args:
        folder: path of a folder.

    Returns:
        A list of `pathlib.Path`.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no image file.
    """
    return _sorted_out(folder)[0]


def read(folder, size=None, *, unreadable="error", **how):
    """Read a folder of image files into an array that `training.train` takes as it is.

    Palettes, black and white, 16 bits per grey level, transparency, and the orientation that a
    camera has noted are resolved; of an animation, the first picture counts. Printed lines say
    what was read and what was left out.

    Args:
        folder: path of a folder, or a list of paths of image files.
        size: `(height, width)` of the images returned, or one integer for both. None if all files
            have one size, which is kept.
        unreadable: "error", or "skip" to leave out, by name, the files that cannot be read.
        mode: "grey" for one channel (the default), "colour" for three.
        fit: how an image of another shape gets into `size`. "pad" (the default): whole and
            undistorted, with `ground` around it; "crop": undistorted, what stands out at two
            sides is cut off; "stretch": distorted.
        ground: what lies under transparent pixels and around padded images: a level from 0 to
            255, a colour's name, or a triple of levels. Without it black; white with dark ink.
        ink: "light" (the default) leaves the levels as they are; "dark" turns them round, for
            dark ink on light paper, so that ink is 255 and paper 0, as in the book's digits.

    Returns:
        Levels, uint8, shape `(n, height, width, 1)`, or 3 channels in colour; in the order of
        `files`, which is not random: see `split`.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: for an empty folder, an unreadable file, several sizes without `size`, and
            arguments outside of what is said above.
    """
    levels, count = None, 0
    for levels_of_one, most in _decoded(folder, _Decoder(size, **how), unreadable):
        if levels is None:
            levels = np.empty((most, *levels_of_one.shape), np.uint8)
        levels[count] = levels_of_one
        count += 1
    return levels[:count]


def pack(folder, file, size=None, *, unreadable="error", **how):
    """Read a folder into one `.npy` file, for images that do not fit into memory.

    Args:
        folder, size, unreadable, how: as `read`.
        file: where to write. An existing file is replaced once all is read.

    Returns:
        The array on disk, as `numpy.load(file, mmap_mode="r")` gives it: uint8, shape
        `(n, height, width, channels)`. `stream` makes shuffled batches of it.

    Raises:
        FileNotFoundError, ValueError: as `read`.
        OSError: if the file cannot be written. Nothing is left behind then.
    """
    file, count = Path(file), 0
    with tempfile.TemporaryDirectory(dir=file.parent) as neighbour:
        unfinished = Path(neighbour) / file.name
        with open(unfinished, "wb") as out:
            for levels, most in _decoded(folder, _Decoder(size, **how), unreadable):
                if not count:
                    _write_header(out, (most, *levels.shape))
                out.write(np.ascontiguousarray(levels))
                count += 1
            out.seek(0)
            _write_header(out, (count, *levels.shape))  # of the same length, NumPy leaves room
        os.replace(unfinished, file)
    return np.load(file, mmap_mode="r")


def stream(images, size=None, *, batch_size=BATCH_SIZE, seed=None, **how):
    """Return shuffled batches that read their images when needed, a few batches ahead.

    Each epoch holds every image once, in an order of its own: all row numbers are shuffled, not
    only the images in a buffer.

    Args:
        images: a folder or a list of image files, decoded anew in each epoch; or levels, uint8,
            shape `(n, height, width, channels)`, such as `pack` leaves on disk.
        size: of images from files, as `read`, but not None.
        batch_size: most images per batch; all batches are of about one size.
        seed: integer that makes the order repeatable, or None.
        **how: `mode`, `fit`, `ground` and `ink` of files, as `read`.

    Returns:
        A `tf.data.Dataset` of float32 batches in [0, 1], shape `(batch, height, width, channels)`,
        of known length, as `training.train` takes it.

    Raises:
        FileNotFoundError, ValueError: as `read`. A file that turns out to be unreadable ends the
            epoch with a `tf.errors.OpError` that names it; `pack` can leave such files out.
    """
    wanted = "batch_size must be a positive integer."
    require(is_positive_integer(batch_size), wanted, f"{batch_size=}")
    if isinstance(images, np.ndarray):
        shape, fetch = images.shape[1:], _rows_of(images)
        wanted = "size and what else concerns files has no meaning for an array."
        require(size is None and not how, wanted, f"{size=}, {how}")
    else:
        images, decode = _paths(images)[0], _Decoder(size, **how)
        require(decode.shape, "A stream of files needs the size of its images.", f"{size=}")
        shape = decode.shape

        def fetch(rows):
            return np.stack([decode(images[row]) for row in rows])

    def to_pixels(rows):
        levels = tf.numpy_function(fetch, [rows], tf.uint8, stateful=False)
        return tf.cast(tf.ensure_shape(levels, (None, *shape)), "float32") / 255

    rows = shuffled_rows(len(images), batch_size, seed)
    return rows.map(to_pixels, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def split(images, held_out=0.1, seed=0):
    """Split images at random into those to train on and those to watch.

    Images that belong together, cut from one photograph or taken of one person, are to be split
    by photograph or person instead: this function does not know them.

    Args:
        images: array, shape `(n, ...)`, or a list, of paths for one.
        held_out: share of the images to hold out, between 0 and 1; at least one image.
        seed: integer from which the choice follows.

    Returns:
        `(train, validation)`, each in random order, of the same kind as `images`.

    Raises:
        ValueError: if no image would be left to train on.
    """
    require(0 < held_out < 1, "held_out must be a share between 0 and 1.", f"{held_out=}")
    count = max(round(held_out * len(images)), 1)
    wanted = "A split takes two images or more: one to watch, one to train on."
    require(count < len(images), wanted, f"{len(images)} images, {held_out=}")
    order = np.random.default_rng(seed).permutation(len(images))
    parts = order[count:], order[:count]
    if isinstance(images, list):
        return tuple([images[row] for row in rows] for rows in parts)
    return tuple(images[rows] for rows in parts)


class _Decoder:
    """Turns the path of an image file into levels, uint8, shape `(height, width, channels)`."""

    def __init__(self, size=None, *, mode="grey", fit="pad", ground=None, ink="light"):
        size = (size, size) if is_positive_integer(size) else size
        valid = size is None or (np.shape(size) == (2,) and all(map(is_positive_integer, size)))
        require(valid, "size must be (height, width), one integer for both, or None.", f"{size=}")
        for name, value, known in (("mode", mode, MODES), ("fit", fit, FITS), ("ink", ink, INKS)):
            require(value in known, f"{name} must be one of {(*known,)}.", f"{name}={value!r}")
        if ground is None:
            ground = 255 if ink == "dark" else 0
        self.size, self.mode, self.fit, self.ink = size, MODES[mode], fit, ink
        self.ground = Image.new("RGB", (1, 1), _levels(ground))
        self.shape = size and (*size, len(MODES[mode]))
        self.sizes = set()  # of the files, before they are fitted

    def __call__(self, path):
        try:
            with Image.open(path, formats=FORMATS) as file:
                image = _eight_bits(ImageOps.exif_transpose(file))
        except Exception as error:  # whatever a damaged file makes its reader raise
            reason = str(error).replace(f" {os.fspath(path)!r}", "")
            raise ValueError(f"{path.name} cannot be read: {reason}") from error
        self.sizes.add(image.size[::-1])
        if image.has_transparency_data:
            image = image.convert("RGBA")
            ground = self.ground.resize(image.size).convert("RGBA")
            image = Image.alpha_composite(ground, image)
        image = image.convert(self.mode)
        if self.size:
            image = self._fitted(image)
        levels = np.asarray(image).reshape(*image.size[::-1], -1)
        return 255 - levels if self.ink == "dark" else levels

    def _fitted(self, image):
        """Return an image of the wanted size, changed as little as `fit` allows."""
        target, resampling = self.size[::-1], Image.Resampling.BICUBIC
        if self.fit == "crop":
            return ImageOps.fit(image, target, resampling)
        if self.fit == "stretch":
            return image.resize(target, resampling)
        scale = min(np.divide(target, image.size))
        inner = [max(round(side * scale), 1) for side in image.size]
        whole = self.ground.resize(target).convert(self.mode)
        corner = [(outer - side) // 2 for outer, side in zip(target, inner)]
        whole.paste(image.resize(inner, resampling), corner)
        return whole


def _levels(ground):
    """Return a ground as a triple of levels."""
    try:
        triple = ImageColor.getrgb(ground)[:3] if isinstance(ground, str) else ground
        levels = tuple(int(level) for level in np.broadcast_to(triple, 3))
    except (TypeError, ValueError):
        levels = (-1,)
    wanted = "ground must be a level from 0 to 255, a triple of them, or a colour's name."
    require(all(0 <= level <= 255 for level in levels), wanted, f"{ground=}")
    return levels


def _eight_bits(image):
    """Return an image of 16-bit levels, or of floats in [0, 1], as one of 8-bit levels."""
    if not image.mode.startswith(("I", "F")):
        return image
    values, full = np.asarray(image, "float64"), 1 if image.mode == "F" else 65535
    low, high = values.min(), values.max()
    wanted = f"Levels of the kind {image.mode} must lie between 0 and {full}."
    require(low >= 0 and high <= full, wanted, f"{low:g} to {high:g}")
    return Image.fromarray(np.rint(values * (255 / full)).astype(np.uint8))


def _sorted_out(folder):
    """Return the image files of a folder, and how many other files it has of each kind."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}. Looked from: {Path.cwd()}")
    images, others = [], Counter()
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file():
            continue
        if path.suffix.lower() in SUFFIXES:
            images.append(path)
        else:
            others[path.suffix or path.name] += 1
    wanted = f"{folder} must hold image files: {', '.join(SUFFIXES)}."
    require(images, wanted, f"only {_counted(others)}" if others else "an empty folder")
    return images, others


def _paths(images):
    """Return the paths of a folder's or a list's images, and the number of other files."""
    if isinstance(images, str | os.PathLike):
        return _sorted_out(images)
    require(len(images), "A list of image files must not be empty.", images)
    return [Path(path) for path in images], Counter()


def _decoded(folder, decode, unreadable):
    """Yield each image with the number of files; say at the end what was read, or refuse it."""
    wanted = f"unreadable must be one of {UNREADABLE}."
    require(unreadable in UNREADABLE, wanted, f"{unreadable=}")
    (paths, others), failed, shapes = _paths(folder), [], {}
    for path in paths:
        try:
            levels = decode(path)
        except ValueError as error:
            failed.append(str(error).replace(" cannot be read: ", " (") + ")")
            continue
        shapes.setdefault(levels.shape[:2], path.name)
        if len(shapes) == 1:
            yield levels, len(paths)
    left_out = f"{len(failed)} of {len(paths)} files cannot be read: {_few(failed)}."
    if failed and (unreadable == "error" or not shapes):
        raise ValueError(f'{left_out} Mend them, or leave them out with unreadable="skip".')
    wanted = "Images of several sizes need size=(height, width), and fit= says how they get there."
    received = _few([f"{_times(size)} ({name})" for size, name in shapes.items()])
    require(len(shapes) == 1, wanted, received)
    sizes = sorted(decode.sizes)
    span = " to ".join(_times(size) for size in dict.fromkeys((sizes[0], sizes[-1])))
    (kept,) = shapes
    count, kind = len(paths) - len(failed), "grey" if decode.mode == "L" else "colour"
    images = f"{count:,} image{'s' * (count > 1)}"
    print(f"{images} of {span} pixels, now {_times(kept)}, {kind}.")
    if failed:
        print(textwrap.fill(f"Left out: {left_out}", 80, break_on_hyphens=False))
    if others:
        print(f"Left out, as no images by name: {_counted(others)}.")


def _rows_of(levels):
    """Return a function that reads rows of an array, in the order in which a disk has them."""
    wanted = "An array to stream holds levels, uint8, shape (n, height, width, channels), n > 0."
    valid = levels.dtype == np.uint8 and levels.ndim == 4 and len(levels)
    require(valid, wanted, f"dtype {levels.dtype}, shape {levels.shape}")
    return lambda rows: levels[np.sort(rows)]


def _write_header(out, shape):
    """Write the head of an npy file of levels."""
    description = {"shape": shape, "fortran_order": False, "descr": "|u1"}
    npy.write_array_header_1_0(out, description)


def _few(texts):
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more


def _counted(kinds):
    return _few([f"{count} {kind}" for kind, count in kinds.items()])


def _times(size):
    return " × ".join(map(str, size))
