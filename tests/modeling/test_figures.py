"""Panels, overlays and captions of figures: where a map's values lie on the picture, by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scenes import pixels, plain_scene

from dynpose.modeling.figures import Panel, View, arrange, in_rows, paint, panel_size
from dynpose.utils.text import text_size

BLACK = np.zeros((60, 80, 3), np.uint8)


def brightest(canvas):
    """x and y of the centre of the brightest pixels, continuous."""
    total = canvas.astype(int).sum(axis=2)
    rows, columns = np.nonzero(total == total.max())
    return columns.mean() + 0.5, rows.mean() + 0.5


class TestPlaces:
    # The network's input has half the image's size and is shifted by 0.5, as of a model in pixel indices
    HALF = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5]])

    @pytest.mark.parametrize(("grid", "cell"), [((8, 4), (2, 1)), ((4, 2.5), (5, 3)), ((2, 0.5), (11, 7))])
    def test_a_cell_of_a_map(self, grid, cell):
        scene = plain_scene(BLACK, self.HALF)
        values = torch.zeros(-(-30 // grid[0]) + 1, -(-40 // grid[0]) + 1)
        values[cell[1], cell[0]] = 1
        # by hand: centre of the cell on the input, on the image, and on the canvas of eight times its size
        x, y = (8 * (2 * (index * grid[0] + grid[1]) + 0.5) for index in cell)
        view = View(scene, side=640)
        assert view.canvas.shape == (480, 640, 3)
        view.heat(values, grid)
        assert brightest(view.canvas) == pytest.approx((x, y), abs=0.6)
        point = torch.tensor([index * grid[0] + grid[1] for index in cell])
        assert view.at(point).tolist() == pytest.approx([x, y])

    def test_a_part_of_the_image(self):
        image = BLACK.copy()
        image[20:24, 30:34] = 255
        view = View(plain_scene(image), np.array([20, 10, 60, 50]), side=400)
        assert view.canvas.shape == (400, 400, 3)
        # the centre of the white square, 32, 22
        assert view.at(np.array([32.0, 22.0])).tolist() == [120, 120]
        assert brightest(view.canvas) == pytest.approx((120, 120), abs=1)

    def test_a_picture_of_another_scale(self):
        picture = np.zeros((120, 160, 3), np.uint8)
        picture[40:44, 60:64] = 255
        view = View(plain_scene(BLACK), np.array([20, 10, 60, 50]), 400, picture)
        assert brightest(view.canvas) == pytest.approx(view.at(np.array([31.0, 21.0])).tolist(), abs=1)

    def test_a_part_outside_of_the_image_is_grey(self):
        view = View(plain_scene(BLACK), np.array([-20, -20, 20, 20]), side=40)
        assert (view.canvas[:20] == 128).all()
        assert (view.canvas[20:, 20:] == 0).all()
        assert (View(plain_scene(BLACK), np.array([200, 200, 210, 210]), side=40).canvas == 128).all()

    def test_a_map_over_a_box(self):
        scene = plain_scene(np.full((60, 80, 3), 100, np.uint8))
        values = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
        view = View(scene, side=800).heat_in_box(values, torch.tensor([20.0, 10, 40, 30]))
        outside = np.ones((600, 800), bool)
        outside[100:300, 200:400] = False
        assert (view.canvas[outside] == 60).all()
        # the upper right quarter of the box, to its edge
        x, y = brightest(view.canvas)
        assert 350 <= x <= 400
        assert 100 <= y <= 150

    def test_marks(self):
        view = View(plain_scene(BLACK), side=80)
        view.cross(np.array([10.0, 10.0])).dot(np.array([30.0, 10.0])).arrow(np.array([40.0, 10]), np.array([60.0, 10]))
        view.crosshair(np.array([20.0, 45.0])).circle(np.array([40.0, 40.0]), 10).box(np.array([60.0, 30, 70, 50]))
        for x, y in ((9, 9), (30, 10), (50, 9), (49, 39), (60, 40), (29, 45), (20, 36)):
            assert view.canvas[y - 1 : y + 2, x - 1 : x + 2].max() > 100, (x, y)
        assert view.canvas[40, 40].max() == view.canvas[45, 20].max() == 0


@pytest.mark.parametrize(("factor", "expected"), [(1, (230, 6)), (8, (230, 6)), (0.1, (400, 3)), (0.05, (420, 3))])
def test_the_size_of_a_panel(factor, expected):
    """An image of 80 pixels, which the network's input has 1, 1/8, 10 or 20 times: 10, 1, 100 and 200 cells of 8."""
    scene = plain_scene(BLACK, np.array([[factor, 0, 0.0], [0, factor, 0]]))
    assert panel_size(scene, 8) == expected


def test_paint():
    image = np.full((2, 3, 3), 200, np.uint8)
    painted = paint(image, np.array([[0, 0.5, 1], [-1, np.nan, 2]]))
    # the grey of the image, six tenths of it, under no value; the highest colour under values of 1 and above
    assert painted[0, 0].tolist() == painted[1, 0].tolist() == painted[1, 1].tolist() == [120, 120, 120]
    assert painted[0, 2].tolist() == painted[1, 2].tolist()
    assert len({tuple(color) for color in painted[0].tolist()}) == 3


def test_a_page():
    panels = [Panel(f"panel {index}", np.full((50 + index, 100, 3), index, np.uint8)) for index in range(5)]
    rows = in_rows(panels, 3)
    assert [len(row) for row in rows] == [3, 2]
    page = arrange(rows, "word " * 60, ("low", "high"))
    assert page.shape[1] == 560
    positions = [np.argwhere((page == index).all(axis=2)) for index in range(1, 5)]
    sizes = [(at.max(axis=0) - at.min(axis=0) + 1).tolist() for at in positions]
    assert sizes == [[51, 100], [52, 100], [53, 100], [54, 100]]
    left = [int(at[:, 1].min()) for at in positions]
    assert left == [116, 224, 8, 116]
    assert positions[2][:, 0].min() > positions[1][:, 0].max()
    # a longer caption takes more lines, a wider row a wider page
    assert arrange(rows, "word " * 120).shape[0] > arrange(rows, "word " * 60).shape[0]
    wide = arrange([[Panel("a title that does not fit " * 9, np.zeros((20, 900, 3), np.uint8))]], "caption")
    assert wide.shape[1] == 916


def test_squares():
    scene = plain_scene(BLACK)
    assert scene.around(torch.tensor([[10.0, 20], [50, 40]]), 0.25).tolist() == [0, 0, 60, 60]
    # not smaller than 16 pixels
    assert scene.around(torch.tensor([[10.0, 20]]), 0).tolist() == [2, 12, 18, 28]
    # and not larger than the image with a quarter of its size on each side
    assert scene.around(torch.tensor([[-1e5, 30], [1e5, 30]]), 0).tolist() == [-20, -30, 100, 90]
    # a rectangle with the same margin on each side, or of the least ratio of its sides
    assert scene.around(torch.tensor([[10.0, 20], [50, 40]]), 0.25, 0.1).tolist() == [0, 10, 60, 50]
    assert scene.around(torch.tensor([[10.0, 30], [50, 30]]), 0.25, 0.5).tolist() == [0, 15, 60, 45]


def test_shown_people_and_captions():
    scene = plain_scene(pixels(), scores=(0.9, 0.5, 0.2, 0.1))
    assert scene.shown == [0, 1]
    assert scene.caption("A, section 1", "What is seen.") == (
        "A, section 1. What is seen. Image: street.jpg, person 1 of 4 by score (0.90)."
    )
    assert scene.caption("A", "B.", of_person=False) == "A. B. Image: street.jpg."
    # the chosen person is always shown
    assert plain_scene(pixels(), scores=(0.2, 0.1)).shown == [0]


def test_which_people_are_drawn():
    scores = (0.9, 0.8, 0.7, 0.5, 0.2, 0.1)
    scene = plain_scene(pixels(), scores=scores)
    assert scene.selection(scene.shown) == "4 of 6 people are drawn: those with a score of at least 0.3."
    assert scene.first(2) == [0, 1]
    assert scene.selection([0, 1]) == "2 of 6 people are drawn: the first 2 of the 4 with a score of at least 0.3."
    # the chosen person is drawn in any case
    scene = replace(scene, person=5)
    assert scene.first(3) == [0, 1, 5]
    chosen = "and person 6, who is chosen."
    assert scene.selection(scene.shown) == f"5 of 6 people are drawn: those with a score of at least 0.3, {chosen}"
    few = f"3 of 6 people are drawn: the first 2 of the 4 with a score of at least 0.3, {chosen}"
    assert scene.selection([0, 1, 5]) == few
    scene = replace(scene, person=3)
    assert scene.selection(scene.first(2)).endswith(
        "the first 1 of the 4 with a score of at least 0.3, and person 4, who is chosen."
    )
    scene = plain_scene(pixels(), scores=(0.2,))
    assert scene.selection(scene.shown) == "1 of 1 person is drawn: person 1, who is chosen."
    nobody = plain_scene(pixels(), scores=())
    assert (nobody.first(3), nobody.selection([])) == ([], "")


def test_titles_are_wrapped():
    """Their ends hold values. A narrow panel is given space; the images of a row begin at the same height."""
    image = np.full((40, 60, 3), 7, np.uint8)
    page = arrange([[Panel("left_shoulder, highest 0.23", image), Panel("nose", image)]], "caption")
    at = np.argwhere((page == 7).all(axis=2))
    assert at.min(axis=0)[1] == 8
    assert at.max(axis=0)[1] == 8 + 100 + 8 + 59
    # two lines of the long title, and one of the short one, which is next to the image
    line = text_size("Ag", 13)[1]
    assert len(page) == len(arrange([[Panel("nose", image)] * 2], "caption")) + line
    ink = (page[: at.min(axis=0)[0]] < 128).any(axis=2)
    top, short_top = (np.flatnonzero(columns.any(axis=1)).min() for columns in (ink[:, :108], ink[:, 108:]))
    assert short_top - top >= line - 3


def test_portrait_panels_fill_the_page():
    portrait = plain_scene(np.zeros((300, 100, 3), np.uint8))
    square = plain_scene(np.zeros((300, 300, 3), np.uint8))
    assert panel_size(portrait, 4)[0] == panel_size(square, 4)[0] == 300
    assert (panel_size(square, 4)[1], panel_size(portrait, 4)[1]) == (1440 // 308, 1440 // 108)
