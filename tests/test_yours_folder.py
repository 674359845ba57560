"""A folder of image files becomes what the files mean, or an error that names the file."""

import struct

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from vae_utils import models, training
from vae_utils.yours import folder

RANDOM = np.random.default_rng(0)
WHITE = (255, 255, 255)


@pytest.fixture
def own(tmp_path):
    """Return a function that writes images into a folder, by name; without any, the folder."""
    place = tmp_path / "images"
    place.mkdir()

    def write(**images):
        for name, image in images.items():
            stem, kind = name.rsplit("_", 1)
            image = image if isinstance(image, Image.Image) else Image.fromarray(image)
            image.save(place / f"{stem}.{kind}")
        return place

    return write


def noise(*shape):
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


# What is in the files


def test_grey_files_come_as_they_are_in_the_order_of_their_names(own):
    levels = {name: noise(5, 7) for name in ("c_png", "a_png", "b_bmp")}
    read = folder.read(own(**levels))
    assert read.dtype == np.uint8
    expected = np.stack([levels[name] for name in sorted(levels)])[..., np.newaxis]
    np.testing.assert_array_equal(read, expected)


def test_colour_files_come_as_they_are(own):
    levels = noise(5, 7, 3)
    np.testing.assert_array_equal(folder.read(own(a_png=levels), mode="colour"), [levels])


def test_colour_becomes_grey_by_its_luminance(own):
    """The weights of Rec. 601, by hand."""
    levels = noise(9, 9, 3)
    expected = levels @ [0.299, 0.587, 0.114]
    assert np.abs(folder.read(own(a_png=levels))[0, ..., 0] - expected).max() <= 0.51


def test_a_palette_gives_the_colours_that_it_means(own):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
    image.putpalette([10, 20, 30, 200, 100, 0, 7, 8, 9])
    read = folder.read(own(a_png=image, b_gif=image), mode="colour")
    expected = [[[10, 20, 30], [200, 100, 0]], [[7, 8, 9], [200, 100, 0]]]
    np.testing.assert_array_equal(read, [expected] * 2)


def test_black_and_white_becomes_0_and_255(own):
    ink = RANDOM.random((6, 6)) > 0.5
    read = folder.read(own(a_png=Image.fromarray(ink), b_pbm=Image.fromarray(ink)))
    np.testing.assert_array_equal(read[..., 0], [255 * ink] * 2)


@pytest.mark.parametrize("kind", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_not_cut_off(own, kind):
    levels = RANDOM.integers(0, 65536, (8, 8)).astype(np.uint16)
    levels[0, :2] = 0, 65535
    read = folder.read(own(**{f"a_{kind}": levels}))[0, ..., 0]
    assert np.abs(read - levels / 65535 * 255).max() <= 0.5
    assert (read[0, 0], read[0, 1]) == (0, 255)


def test_floats_are_taken_in_the_unit_interval_only(own):
    levels = RANDOM.random((8, 8)).astype(np.float32)
    read = folder.read(own(a_tif=levels))[0, ..., 0]
    assert np.abs(read - 255 * levels).max() <= 0.5
    with pytest.raises(ValueError, match=r"a.tif \(Levels of the kind F must lie between 0 and 1"):
        folder.read(own(a_tif=200 * levels))


@pytest.mark.parametrize("ground", [0, 255, 77, "white", "#4d4d4d", (9, 99, 199)])
def test_what_is_transparent_shows_the_ground(own, ground):
    """Against the equation of compositing, alpha · image + (1 − alpha) · ground."""
    levels = noise(6, 6, 4)
    named = {"white": 255, "#4d4d4d": 0x4D}
    share = levels[..., 3:] / 255
    expected = share * levels[..., :3] + (1 - share) * np.array(named.get(ground, ground))
    read = folder.read(own(a_png=levels), mode="colour", ground=ground)[0]
    assert np.abs(read - expected).max() <= 1.01


def test_a_palette_and_a_grey_level_can_be_transparent_too(own):
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.save(own() / "a.png", transparency=1)
    Image.fromarray(np.array([[5, 90]], np.uint8)).save(own() / "b.png", transparency=90)
    read = folder.read(own(), mode="colour", ground=(1, 2, 3))
    np.testing.assert_array_equal(read, [[[[10, 20, 30], [1, 2, 3]]], [[[5, 5, 5], [1, 2, 3]]]])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_camera_gives_an_upright_image(own, orientation):
    """The eight orientations of the EXIF standard: where the 0th row and column are seen."""
    upright = noise(4, 6)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(stored))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(own() / "a.png", exif=exif)
    np.testing.assert_array_equal(folder.read(own())[0, ..., 0], upright)


def test_dark_ink_is_turned_round_and_lies_on_white(own):
    levels = noise(5, 5)
    np.testing.assert_array_equal(
        folder.read(own(a_png=levels), ink="dark")[0, ..., 0], 255 - levels
    )
    padded = folder.read(own(a_png=np.zeros((5, 9), np.uint8)), 9, ink="dark")
    assert padded[0, 0, 0, 0] == 0  # paper
    assert padded[0, 4, 4, 0] == 255


def test_cmyk_and_jpeg_are_colours(own):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = folder.read(own(a_jpg=image, b_tif=image), mode="colour")
    assert np.abs(red.astype(int) - [255, 0, 0]).max() < 16


def test_of_an_animation_the_first_picture_counts(own):
    frames = [Image.new("L", (4, 4), level) for level in (10, 200)]
    frames[0].save(own() / "a.gif", save_all=True, append_images=frames[1:])
    assert np.all(folder.read(own()) == 10)


# Sizes


@pytest.mark.parametrize("shape", [(20, 60), (60, 20), (7, 8), (1000, 1), (33, 33)])
@pytest.mark.parametrize("size", [32, (24, 40)])
def test_a_padded_image_is_whole_centred_and_not_distorted(own, shape, size):
    read = folder.read(own(a_png=np.full(shape, 255, np.uint8)), size)[0, ..., 0]
    height, width = read.shape == (32, 32) and (32, 32) or size
    scale = min(height / shape[0], width / shape[1])
    rows, columns = (np.flatnonzero(read.max(axis=axis) > 127) for axis in (1, 0))
    for found, side, room in zip((rows, columns), shape, (height, width)):
        assert abs(len(found) - max(side * scale, 1)) <= 0.5
        assert abs(found[0] - (room - 1 - found[-1])) <= 1
        assert len(found) == np.ptp(found) + 1
    assert np.all(read[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 255)


def test_a_circle_stays_round_unless_one_asks_for_distortion(own):
    y, x = np.mgrid[:40, :80]
    disc = np.uint8(255 * ((y - 19.5) ** 2 + (x - 39.5) ** 2 < 15**2))
    extents = {}
    for fit in folder.FITS:
        ink = folder.read(own(a_png=disc), 40, fit=fit)[0, ..., 0] > 127
        extents[fit] = [int(ink.any(axis=axis).sum()) for axis in (1, 0)]
    expected = {"pad": (15, 15), "crop": (30, 30), "stretch": (30, 15)}
    for fit, extent in expected.items():
        assert np.abs(np.subtract(extents[fit], extent)).max() <= 1, fit


def test_padding_has_the_colour_of_the_ground(own):
    read = folder.read(own(a_png=noise(4, 8, 3)), 8, mode="colour", ground="tomato")
    assert np.all(read[0, 0] == (255, 99, 71))


def test_several_sizes_need_leave_to_resize(own):
    place = own(a_png=noise(4, 4), b_png=noise(4, 4), c_png=noise(5, 6))
    with pytest.raises(
        ValueError, match=r"need size=.*Received: 4 × 4 \(a.png\), 5 × 6 \(c.png\)$"
    ):
        folder.read(place)
    assert folder.read(place, 8).shape == (3, 8, 8, 1)


# What is wrong with a folder


def test_no_folder_an_empty_one_and_one_without_images_are_told_apart(own, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        folder.read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="must hold image files.*Received: an empty folder"):
        folder.read(own())
    (own() / "notes.txt").write_text("none")
    (own() / "photo.HEIC").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"Received: only 1 .txt, 1 .HEIC"):
        folder.read(own())


def test_a_folder_of_one_image_is_read_but_not_split(own):
    images = folder.read(own(a_png=noise(4, 4)))
    assert images.shape == (1, 4, 4, 1)
    with pytest.raises(ValueError, match=r"two images or more.*Received: 1 images"):
        folder.split(images)


def damaged(kind, path):
    """Damage the image file at this path."""
    content = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "not an image":
        path.write_text("<html>404 Not Found</html>")
    elif kind == "a wrong checksum":
        place = content.index(b"IDAT") + 20
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
    elif kind == "a huge claim":
        path.write_bytes(content[:16] + struct.pack(">II", 100_000, 100_000) + content[24:])


DAMAGES = ["truncated", "empty", "not an image", "a wrong checksum", "a huge claim"]


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
def test_an_unreadable_file_is_named_and_left_out_on_request_only(own, kind, capsys):
    images = {f"{number:02}_png": noise(30, 30) for number in range(12)}
    place = own(**images)
    damaged(kind, place / "07.png")
    with pytest.raises(ValueError, match=r"^1 of 12 files cannot be read: 07.png \(.+\)\. Mend"):
        folder.read(place)
    read = folder.read(place, unreadable="skip")
    expected = [levels for name, levels in images.items() if name != "07_png"]
    np.testing.assert_array_equal(read[..., 0], expected)
    printed = " ".join(capsys.readouterr().out.split())
    assert "11 images of 30 × 30 pixels" in printed
    assert "Left out: 1 of 12 files cannot be read: 07.png" in printed


def test_a_folder_of_which_nothing_can_be_read_is_an_error_even_so(own):
    place = own(a_png=noise(9, 9))
    damaged("truncated", place / "a.png")
    with pytest.raises(ValueError, match="1 of 1 files cannot be read"):
        folder.read(place, unreadable="skip")


def test_files_of_other_kinds_are_counted_and_hidden_ones_ignored(own, capsys):
    place = own(a_png=noise(4, 4))
    (place / "deep").mkdir()
    Image.fromarray(noise(4, 4)).save(place / "deep" / "B.PNG")
    (place / "labels.csv").write_text("a")
    (place / "._a.png").write_bytes(b"what a Mac leaves behind")
    assert [path.name for path in folder.files(place)] == ["a.png", "B.PNG"]
    assert len(folder.read(place)) == 2
    assert "Left out, as no images by name: 1 .csv." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "size must be"),
        ({"size": (28, 28, 1)}, "size must be"),
        ({"mode": "rgb"}, "mode must be one of"),
        ({"fit": "squeeze"}, "fit must be one of"),
        ({"ink": "auto"}, "ink must be one of"),
        ({"ground": 256}, "ground must be"),
        ({"ground": "no colour"}, "ground must be"),
        ({"ground": (1, 2)}, "ground must be"),
        ({"unreadable": "ignore"}, "unreadable must be one of"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(own, wrong, message):
    with pytest.raises(ValueError, match=f"{message}.*Received: "):
        folder.read(own(a_png=noise(4, 4)), **wrong)


# On disk, and as a stream


def test_a_packed_folder_is_the_folder_read_and_an_ordinary_npy_file(own, tmp_path):
    place = own(**{f"{number:02}_png": noise(30, 20 + number) for number in range(12)})
    damaged("truncated", place / "00.png")
    damaged("empty", place / "05.png")
    how = {"mode": "colour", "ground": 9, "unreadable": "skip"}
    packed = folder.pack(place, tmp_path / "own.npy", 16, **how)
    assert isinstance(packed, np.memmap)
    np.testing.assert_array_equal(packed, folder.read(place, 16, **how))
    np.testing.assert_array_equal(np.load(tmp_path / "own.npy"), packed)
    assert packed.nbytes + 128 == (tmp_path / "own.npy").stat().st_size


def test_what_goes_wrong_leaves_the_packed_file_as_it_was(own, tmp_path):
    place = own(a_png=noise(9, 9), b_png=noise(9, 9))
    folder.pack(place, tmp_path / "own.npy")
    before = (tmp_path / "own.npy").read_bytes()
    damaged("truncated", place / "b.png")
    with pytest.raises(ValueError, match="cannot be read"):
        folder.pack(place, tmp_path / "own.npy")
    assert (tmp_path / "own.npy").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "own.npy"]


@pytest.fixture(params=["files", "array"])
def stream(request, own):
    """Return 50 images, each recognized by its level, and a function that streams them."""
    place = own(**{f"{n:02}_png": np.full((6, 4), 5 * n, np.uint8) for n in range(50)})
    images = folder.read(place, 8) if request.param == "array" else place
    size = {} if request.param == "array" else {"size": 8}
    return lambda **how: folder.stream(images, **size, **how)


def numbers(batches):
    """Return the numbers of the images by their brightest pixel."""
    pixels = np.concatenate(list(batches.as_numpy_iterator()))
    return np.rint(pixels.max(axis=(1, 2, 3)) * 255 / 5).astype(int).tolist()


def test_an_epoch_of_a_stream_holds_every_image_once_in_an_order_of_its_own(stream):
    batches = stream(batch_size=16, seed=1)
    first, second = numbers(batches), numbers(batches)
    assert sorted(first) == sorted(second) == list(range(50))
    assert len({tuple(first), tuple(second), tuple(range(50))}) == 3
    assert numbers(stream(batch_size=16, seed=1)) == first
    assert numbers(stream(batch_size=16, seed=2)) != first


def test_a_stream_has_a_known_length_and_batches_of_about_one_size(stream):
    batches = stream(batch_size=16)
    sizes = [len(batch) for batch in batches]
    assert len(batches) == len(sizes) == 4
    assert max(sizes) <= 16
    assert batches.element_spec.shape == (None, 8, 8, 1)


def test_a_stream_trains(stream):
    keras.utils.set_random_seed(0)
    vae = models.build_vae("linear", image_shape=(8, 8, 1), likelihood="bernoulli")
    history = training.train(vae, stream(batch_size=16), 3, progress=False).history
    assert history["loss"][-1] < history["loss"][0]


def test_the_shuffle_of_a_stream_reaches_everywhere(stream):
    """How far images move: for a fair shuffle of n, n/3 on average, (n² − 1)/(3n) exactly."""
    batches = stream(batch_size=10, seed=3)
    moved = [np.abs(np.array(numbers(batches)) - np.arange(50)).mean() for _ in range(20)]
    expected = (50**2 - 1) / (3 * 50)
    assert abs(np.mean(moved) - expected) < 4 * np.std(moved) / 20**0.5 + 1


def test_a_stream_ends_at_an_unreadable_file_and_names_it(own):
    place = own(**{f"{number}_png": noise(9, 9) for number in range(5)})
    batches = folder.stream(place, 8)
    damaged("truncated", place / "3.png")
    with pytest.raises(tf.errors.OpError, match="3.png cannot be read: image file is truncated"):
        list(batches)


@pytest.mark.parametrize(
    ("images", "how"),
    [
        (np.zeros((5, 8, 8, 1), np.float32), {}),
        (np.zeros((5, 8, 8), np.uint8), {}),
        (np.zeros((0, 8, 8, 1), np.uint8), {}),
        (np.zeros((5, 8, 8, 1), np.uint8), {"size": 8}),
        (np.zeros((5, 8, 8, 1), np.uint8), {"batch_size": 0}),
        (["a.png"], {}),
        ([], {"size": 8}),
    ],
)
def test_what_cannot_be_streamed_is_refused(images, how):
    with pytest.raises(ValueError, match="Received: "):
        folder.stream(images, **how)


def test_a_split_holds_each_image_once_and_out_of_order():
    images = np.arange(200).reshape(50, 2, 2, 1)
    train, held_out = folder.split(images, 0.2, seed=1)
    assert (len(train), len(held_out)) == (40, 10)
    together = np.concatenate([train, held_out])
    assert not np.array_equal(together, images)
    np.testing.assert_array_equal(np.sort(together, axis=0), images)
    as_list = folder.split(list(range(50)), 0.2, seed=1)
    assert as_list[1] == (held_out[:, 0, 0, 0] // 4).tolist()


@pytest.mark.parametrize("held_out", [0, 1, -0.1, 0.99])
def test_a_split_leaves_images_on_both_sides(held_out):
    with pytest.raises(ValueError, match="Received: "):
        folder.split(np.zeros((3, 2, 2, 1)), held_out)


# What the recipe refuses of one's own images

ONES = np.full((40, 8, 8, 1), 0.5, np.float32)
PAIRS = tf.data.Dataset.from_tensor_slices((ONES, np.arange(40))).batch(10)


def small_vae():
    return models.build_vae("linear", image_shape=(8, 8, 1), likelihood="bernoulli")


@pytest.mark.parametrize("given", [PAIRS, (ONES, np.arange(40))])
def test_a_label_where_none_is_wanted_is_refused(given, own_folders):
    for refuse in (
        lambda: training.train(small_vae(), given, progress=False),
        lambda: training.train(small_vae(), ONES, validation=given, progress=False),
        lambda: training.load_or_train("linear", given),
    ):
        with pytest.raises(ValueError, match=r"images alone.*not of \(x, y\).*Received"):
            refuse()


def test_a_stream_that_ends_early_is_refused_in_one_line():
    ten = tf.data.experimental.assert_cardinality(10)
    short = training.batches(ONES, 10).apply(ten)
    with pytest.raises(ValueError, match=r"as long as it says.*10 elements .* only 4$") as caught:
        training.train(small_vae(), short, progress=False)
    assert "\n" not in str(caught.value)


def test_scaled_and_unscaled_floats_are_told_apart():
    with pytest.raises(ValueError, match="divided by 255, or passed as uint8.*values 127.5"):
        training.train(small_vae(), 255 * ONES, progress=False)
    history = training.train(small_vae(), ONES, 1, progress=False)
    assert np.isfinite(history.history["loss"]).all()
