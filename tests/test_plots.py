"""Figures show what they say, the right way round, and once."""

import inspect

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from scipy import stats

from vae_utils import plots


@pytest.fixture(autouse=True)
def _no_window():
    with matplotlib.rc_context():
        plt.switch_backend("agg")
        plt.close("all")
        yield
        plt.close("all")


class PaintedPlane:
    """A VAE whose image at z is grey with Φ(z₁) in its left half, with Φ(z₂) in its right half."""

    latent_dim, image_shape = 2, (4, 6, 1)

    def __init__(self):
        self.calls = 0

    def decode_mean(self, z):
        self.calls += 1
        shares = stats.norm.cdf(z)
        return np.broadcast_to(shares.repeat(3, axis=1)[:, None, :, None], (len(z), 4, 6, 1))

    def encode(self, x):
        shares = x[:, 0, [0, 3], 0]
        return stats.norm.ppf(shares), np.zeros_like(shares)


@pytest.fixture
def plane():
    return PaintedPlane()


@pytest.fixture
def images():
    return np.linspace(0, 1, 7 * 20).reshape(7, 4, 5)


@pytest.fixture
def points():
    random = np.random.default_rng(0)
    labels = np.repeat([3, 0, 7], [40, 30, 20])
    return random.normal(size=(90, 2)) + labels[:, None], labels


def drawn_images(figure):
    return [ax.images[0].get_array() for ax in figure.axes if ax.images]


FIGURES = {
    "image_grid": lambda: plots.image_grid(np.zeros((3, 4, 4))),
    "reconstructions": lambda: plots.reconstructions(PaintedPlane(), np.full((3, 4, 6, 1), 0.5)),
    "latent_scatter": lambda: plots.latent_scatter(np.eye(2), np.array([1, 2])),
    "manifold": lambda: plots.manifold(PaintedPlane(), 3),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_returned_and_left_to_the_caller_to_show(name, monkeypatch, tmp_path):
    monkeypatch.setattr(plt, "show", None)
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    assert plt.get_fignums() == []  # or a notebook would show it twice
    figure.savefig(tmp_path / "figure.png")


def test_every_function_that_returns_a_figure_is_tested():
    functions = dict(inspect.getmembers(plots, inspect.isfunction))
    texts = {name: str(function.__doc__) for name, function in functions.items()}
    assert {name for name in texts if "Matplotlib `Figure`" in texts[name]} == set(FIGURES)


def test_the_ten_colours_of_the_digits_differ():
    colours = np.array([to_rgba(colour) for colour in plots.DIGIT_COLORS])
    assert len(colours) == 10
    apart = np.linalg.norm(colours[:, None] - colours, axis=-1)
    assert apart[~np.eye(10, dtype=bool)].min() > 0.2


# Images side by side


@pytest.mark.parametrize("channel", [(), (1,)])
def test_a_grid_shows_every_image_in_reading_order(images, channel):
    figure = plots.image_grid(images.reshape(7, 4, 5, *channel), columns=3)
    assert len(figure.axes) == 9
    np.testing.assert_array_equal(drawn_images(figure), images)
    places = [ax.get_position() for ax in figure.axes]
    assert places[0].x0 < places[1].x0 < places[2].x0
    assert places[0].y0 == places[2].y0 > places[3].y0 > places[6].y0
    assert not any(ax.axison for ax in figure.axes)


def test_ink_is_dark_on_white_paper_on_the_same_scale_everywhere(images):
    for ax in plots.image_grid(images * 0.5).axes[:7]:
        shown = ax.images[0]
        assert shown.get_clim() == (0, 1)
        assert shown.cmap(shown.norm(0.0)) == to_rgba("white")
        assert shown.cmap(shown.norm(1.0)) == to_rgba("black")


def test_reconstructions_stand_below_their_images(plane):
    shares = np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]])
    x = np.broadcast_to(shares.repeat(3, axis=1)[:, None, :, None], (3, 4, 6, 1))
    figure = plots.reconstructions(plane, x)
    shown = np.array(drawn_images(figure))
    np.testing.assert_allclose(shown[:3], x[..., 0])
    np.testing.assert_allclose(shown[3:], x[..., 0])
    assert [text.get_text() for ax in figure.axes for text in ax.texts] == [
        "image",
        "mean of p(x|z)",
    ]
    assert figure.axes[0].get_position().y0 > figure.axes[3].get_position().y0


# The latent plane


def test_a_scatter_shows_every_point_in_the_colour_of_its_digit(points):
    z, labels = points
    ax = plots.latent_scatter(z, labels).axes[0]
    assert [scatter.get_label() for scatter in ax.collections] == ["0", "3", "7"]
    for scatter, digit in zip(ax.collections, (0, 3, 7)):
        np.testing.assert_array_equal(scatter.get_offsets(), z[labels == digit])
        np.testing.assert_array_equal(
            scatter.get_facecolor()[0, :3], to_rgba(plots.DIGIT_COLORS[digit])[:3]
        )
    for text, digit in zip(ax.texts, (0, 3, 7)):
        assert text.get_text() == str(digit)
        np.testing.assert_allclose(text.get_position(), np.median(z[labels == digit], axis=0))


@pytest.mark.parametrize(
    "names",
    [
        ["cat", "dog"],
        [False, True],
        [7, 10, 42],
        list(range(26)),
        [f"class {i}" for i in range(40)],
    ],
)
def test_any_labels_have_a_colour_each(names):
    labels = np.resize(names, 200)
    z = np.random.default_rng(0).normal(size=(200, 2))
    ax = plots.latent_scatter(z, labels).axes[0]
    assert {scatter.get_label() for scatter in ax.collections} == {str(n) for n in np.unique(names)}
    assert len({tuple(c.get_facecolor()[0, :3]) for c in ax.collections}) == len(names)
    for scatter in ax.collections:
        mine = labels.astype(str) == scatter.get_label()
        np.testing.assert_array_equal(scatter.get_offsets(), z[mine])


def test_without_labels_every_point_has_the_same_colour():
    z = np.random.default_rng(0).normal(size=(20, 2))
    ax = plots.latent_scatter(z).axes[0]
    (scatter,) = ax.collections
    np.testing.assert_array_equal(scatter.get_offsets(), z)
    assert len(scatter.get_facecolor()) == 1
    assert ax.get_legend() is None


@pytest.mark.parametrize("labels", [np.eye(5), np.zeros((5, 1), int), np.zeros(4, int), 3])
def test_labels_that_are_not_one_for_each_point_are_refused(labels):
    with pytest.raises(ValueError, match=r"each of the 5 points.*argmax.*Received: shape \("):
        plots.latent_scatter(np.zeros((5, 2)), labels)


def test_the_names_of_the_rows_are_whole_in_a_saved_figure(plane):
    for n in (1, 6):
        figure = plots.reconstructions(plane, np.zeros((n, 4, 6, 1)))
        figure.canvas.draw()
        for text in [text for ax in figure.axes for text in ax.texts]:
            box = text.get_window_extent()
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.x1


@pytest.mark.parametrize("size", [(6.5, 5.5), (2.5, 2.9)])
def test_no_digits_name_covers_anothers(size):
    z = np.random.default_rng(0).normal(size=(1000, 2))  # ten medians near the origin
    _, ax = plt.subplots(figsize=size)
    plots.latent_scatter(z, np.arange(1000) % 10, ax)
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert len(pairs) == 45
    assert not any(a.overlaps(b) for a, b in pairs)


def test_a_scatter_has_named_axes_of_one_scale_and_a_legend(points):
    ax = plots.latent_scatter(*points).axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$z_1$", "$z_2$")
    assert ax.get_aspect() == 1
    assert ax.get_legend().get_title().get_text() == "digit"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0", "3", "7"]
    assert all(handle.get_alpha() == 1 for handle in ax.get_legend().legend_handles)


def test_a_scatter_takes_lists_too(points):
    z, labels = points
    ax = plots.latent_scatter(z.tolist(), labels.tolist()).axes[0]
    assert sum(len(scatter.get_offsets()) for scatter in ax.collections) == 90


def test_a_scatter_can_be_drawn_on_axes_of_ones_own(points):
    figure, axes = plt.subplots(1, 2)
    assert plots.latent_scatter(*points, ax=axes[1]) is figure
    assert not axes[0].collections
    assert len(axes[1].collections) == 3


@pytest.mark.parametrize("shape", [(5, 3), (5,), (5, 1)])
def test_points_outside_of_a_plane_are_refused(shape):
    with pytest.raises(ValueError, match=r"shape \(n, 2\).*Received: \(5,"):
        plots.latent_scatter(np.zeros(shape), np.zeros(5, int))


def test_an_ellipse_holds_the_share_of_its_posterior_that_it_says():
    """Two standard deviations of a Gaussian in the plane hold 1 − e⁻² of it."""
    mean, log_var = np.array([[1.0, -2.0]]), np.log([[0.25, 4.0]])
    _, ax = plt.subplots()
    plots.posterior_ellipses(ax, mean, log_var, deviations=2.0, edgecolor="red")
    (ellipse,) = ax.patches
    assert isinstance(ellipse, Ellipse)
    assert ellipse.get_edgecolor() == to_rgba("red")
    assert not ellipse.get_fill()
    z = np.random.default_rng(0).normal(mean, np.exp(log_var / 2), (20_000, 2))
    inside = (((z - ellipse.center) / [ellipse.width / 2, ellipse.height / 2]) ** 2).sum(1) < 1
    share = 1 - np.exp(-2)
    assert abs(inside.mean() - share) < 4 * np.sqrt(share * (1 - share) / 20_000)


def test_each_posterior_gets_its_ellipse():
    _, ax = plt.subplots()
    plots.posterior_ellipses(ax, np.arange(6).reshape(3, 2), np.zeros((3, 2)), deviations=1)
    assert [tuple(ellipse.center) for ellipse in ax.patches] == [(0, 1), (2, 3), (4, 5)]
    assert {(ellipse.width, ellipse.height) for ellipse in ax.patches} == {(2, 2)}


# The manifold


@pytest.mark.parametrize("n", [1, 2, 15])
def test_quantiles_cut_the_prior_into_equal_shares(n):
    ticks = plots.prior_quantiles(n)
    np.testing.assert_allclose(stats.norm.cdf(ticks), (np.arange(n) + 0.5) / n)
    np.testing.assert_allclose(ticks, -ticks[::-1], atol=1e-12)


def test_on_the_manifold_z1_grows_to_the_right_and_z2_upwards(plane):
    figure = plots.manifold(plane, n=5)
    ax = figure.axes[0]
    (shown,) = drawn_images(figure)
    assert shown.shape == (5 * 4, 5 * 6)
    shares = (np.arange(5) + 0.5) / 5
    left, right = shown[::4, ::6], shown[::4, 3::6]
    np.testing.assert_allclose(left, np.tile(shares, (5, 1)))
    np.testing.assert_allclose(right, np.tile(shares[::-1], (5, 1)).T)
    assert ax.yaxis_inverted()  # row 0 is on top
    assert plane.calls == 1


def named_ticks(axis):
    return zip(axis.get_ticklocs(), (label.get_text() for label in axis.get_ticklabels()))


@pytest.mark.parametrize("n", [1, 2, 6, 7, 20])
def test_the_ticks_of_the_manifold_name_the_z_of_their_tile(plane, n):
    ax = plots.manifold(plane, n).axes[0]
    (shown,) = drawn_images(ax.figure)
    columns = [(shown[0, int(x) // 6 * 6], name) for x, name in named_ticks(ax.xaxis)]
    rows = [(shown[int(y), 3], name) for y, name in named_ticks(ax.yaxis)]
    for axis in (columns, rows):
        assert len(axis) == min(n, 7)
        for share, name in axis:
            assert float(name.replace("−", "-")) == pytest.approx(stats.norm.ppf(share), abs=0.051)
    assert "z_1" in ax.get_xlabel()
    assert "z_2" in ax.get_ylabel()


def test_a_manifold_of_three_dimensions_is_refused(plane):
    plane.latent_dim = 3
    with pytest.raises(ValueError, match="2 latent dimensions. Received: latent_dim=3"):
        plots.manifold(plane)
