"""Drawing: its content, positions and sizes."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from dynpose.data import KeypointSchema
from dynpose.utils import draw_poses

BLUE, ORANGE, GREEN = (86, 180, 233), (230, 159, 0), (0, 158, 115)
SCHEMA = KeypointSchema(names=("top", "left_end", "right_end"), skeleton=((0, 1), (0, 2)))
FLIPPED = KeypointSchema(
    names=("top", "left_end", "right_end"), flip_pairs=(("left_end", "right_end"),), skeleton=((0, 1), (0, 2))
)
# far apart, so that a pixel belongs to one of them
POINTS = ((400.5, 100.5), (600.5, 400.5), (200.5, 400.5))


def person(points=POINTS, confidence=0.5, score=0.9, size=(500, 800)):
    keypoints = torch.tensor([(*point, confidence) for point in points])[None]
    return Instances(
        size,
        pred_boxes=Boxes(torch.tensor([[150.0, 50.0, 650.0, 450.0]])),
        scores=torch.tensor([score]),
        pred_classes=torch.tensor([0]),
        pred_keypoints=keypoints,
    )


def black(size=(500, 800)):
    return np.zeros((*size, 3), dtype=np.uint8)


def has(image, color):
    return (image == color).all(axis=2).any()


def test_keypoints_and_limbs_stand_where_they_are_in_the_colour_of_their_side():
    image = draw_poses(black(), person(), FLIPPED, show_boxes=False, show_scores=False)
    for (x, y), color in zip(POINTS, (GREEN, BLUE, ORANGE)):
        assert tuple(image[int(y), int(x)]) == color
    # halfway along the two limbs
    assert tuple(image[250, 500]) == BLUE
    assert tuple(image[250, 300]) == ORANGE


def test_a_tracked_person_has_the_colour_of_the_identity():
    def drawn(track_id):
        tracked = person()
        tracked.track_ids = torch.tensor([track_id])
        return draw_poses(black(), tracked, FLIPPED, show_boxes=False, show_scores=False)

    pixels = [tuple(drawn(track_id)[250, x]) for track_id in (1, 2) for x in (500, 300)]
    assert pixels[0] == pixels[1] != pixels[2] == pixels[3]
    assert np.array_equal(drawn(-1), draw_poses(black(), person(), FLIPPED, show_boxes=False, show_scores=False))


def test_a_keypoint_is_drawn_around_its_continuous_position():
    """A keypoint at (400.5, 100.5) lies in the middle of pixel (400, 100)."""
    image = draw_poses(black(), person(), KeypointSchema(names=SCHEMA.names), show_boxes=False, show_scores=False)
    disc = (image.astype(int).sum(axis=2) > 0)[50:150]
    rows, columns = disc.nonzero()
    assert rows.mean() + 50 == pytest.approx(100, abs=0.05)
    assert columns.mean() == pytest.approx(400, abs=0.05)


@pytest.mark.parametrize(
    ("people", "drawn"),
    [
        pytest.param(person(score=0.31), True, id="above-score"),
        pytest.param(person(score=0.29), False, id="below-score"),
        pytest.param(person(confidence=0.021), True, id="above-confidence"),
        pytest.param(person(confidence=0.019), False, id="below-confidence"),
        pytest.param(person(points=[(float("nan"), 5.0)] * 3), False, id="not-a-number"),
        pytest.param(person()[:0], False, id="no person"),
    ],
)
def test_thresholds(people, drawn):
    assert has(draw_poses(black(), people, FLIPPED, show_boxes=False, show_scores=False), BLUE) == drawn


def test_a_limb_needs_both_ends():
    people = person()
    people.pred_keypoints[0, 1, 2] = 0
    image = draw_poses(black(), people, FLIPPED, show_boxes=False, show_scores=False)
    assert not has(image, BLUE)
    assert tuple(image[250, 300]) == ORANGE


def test_the_better_scored_person_is_on_top():
    """Both at one place: the better one's top keypoint covers the other's left one."""
    order = torch.tensor([0, 1, 2]), torch.tensor([1, 0, 2])
    people = Instances.cat([person(score=0.5), person(score=0.9)])
    people.pred_keypoints[1] = people.pred_keypoints[1][order[1]]
    schema = KeypointSchema(names=FLIPPED.names, flip_pairs=FLIPPED.flip_pairs)
    for candidates in (people, people[torch.tensor([1, 0])]):
        image = draw_poses(black(), candidates, schema, show_boxes=False, show_scores=False)
        assert tuple(image[100, 400]) == BLUE


def test_boxes_and_scores_are_optional():
    nothing = KeypointSchema(names=("a", "b", "c"))
    unseen = person(confidence=0.0)
    assert not draw_poses(black(), unseen, nothing, show_boxes=False, show_scores=False).any()
    box = draw_poses(black(), unseen, nothing, show_scores=False)
    assert tuple(box[250, 150]) == (255, 255, 255)
    assert not box[250, 200:600].any()
    label = draw_poses(black(), unseen, nothing, show_boxes=False)
    assert has(label[50:80, 150:200], (255, 255, 255))
    assert not label[100:].any()


def test_class_names_are_shown_if_there_are_several():
    def label(**more):
        return draw_poses(black(), person(), FLIPPED, show_boxes=False, **more)

    plain = label()
    assert np.array_equal(label(class_names=["person"]), plain)
    several = label(class_names=["person", "dog"])
    assert not np.array_equal(several, plain)
    assert np.array_equal(label(class_names=["person"], show_labels=True), several)
    assert np.array_equal(label(class_names=["person", "dog"], show_labels=False), plain)
    # an unknown name is its index
    assert np.array_equal(label(show_labels=True), label(class_names=["0"], show_labels=True))
    assert has(label(show_labels=True, show_scores=False)[50:80, 150:165], (255, 255, 255))


def test_widths_are_pixels_of_the_picture():
    schema = KeypointSchema(names=SCHEMA.names, skeleton=((0, 2),))

    def drawn(**more):
        image = draw_poses(black(), person(), schema, show_boxes=False, show_scores=False, **more)
        return np.all(image == GREEN, axis=2)

    # a limb over 300 rows and 200 columns: 1.2 columns for each pixel across it
    columns = [drawn(line_width=width)[250, 200:400].sum() for width in (9, 19)]
    assert columns[1] - columns[0] == pytest.approx(10 * 1.2, abs=1)
    assert drawn(point_radius=20)[100, 350:450].sum() == pytest.approx(40, abs=2)


@pytest.mark.parametrize("style", [{"line_width": 0}, {"point_radius": -1}, {"line_width": float("nan")}])
def test_widths_must_be_positive(style):
    with pytest.raises(ValueError, match="give a positive number of pixels"):
        draw_poses(black(), person(), FLIPPED, **style)


@pytest.mark.parametrize("size", [(100, 100), (480, 640), (3000, 4000)])
def test_limbs_have_the_same_width_relative_to_the_picture(size):
    people = person()
    scale = size[0] / 500
    people.pred_keypoints[..., :2] *= scale
    people.pred_boxes.scale(scale, scale)
    schema = KeypointSchema(names=SCHEMA.names, skeleton=((0, 2),))
    image = draw_poses(black(size), people, schema, show_boxes=False, show_scores=False)
    row = np.all(image == GREEN, axis=2)[image.shape[0] // 2]
    assert row.sum() / image.shape[0] == pytest.approx(4 * 1.2 / 480, rel=0.25)


def test_the_image_that_is_given_stays_as_it_is():
    image = black()
    draw_poses(image, person(), FLIPPED)
    assert not image.any()


@pytest.mark.parametrize(
    ("size", "drawn_size"),
    [
        ((500, 800), (500, 800)),
        ((120, 240), (480, 960)),
        # a strip grows until its long side is 1920
        ((10, 960), (20, 1920)),
        ((10, 5000), (10, 5000)),
    ],
)
def test_small_images_are_enlarged(size, drawn_size):
    image = draw_poses(black(size), person(size=size)[:0], FLIPPED)
    assert image.shape == (*drawn_size, 3)


def test_drawing_on_an_enlarged_image_keeps_its_place():
    people = person()
    people.pred_keypoints[..., :2] /= 5
    people.pred_boxes.scale(0.2, 0.2)
    image = draw_poses(black((100, 160)), people, FLIPPED, show_boxes=False, show_scores=False)
    assert image.shape == (480, 768, 3)
    for (x, y), color in zip(POINTS, (GREEN, BLUE, ORANGE)):
        assert tuple(image[int(y * 0.96), int(x * 0.96)]) == color


def test_lines_grow_with_the_person():
    def drawn_pixels(scale):
        people = person()
        people.pred_boxes.scale(scale, scale)
        return draw_poses(black(), people, FLIPPED, show_boxes=False, show_scores=False).any(axis=2).sum()

    assert drawn_pixels(1.0) > 1.3 * drawn_pixels(0.1)


def test_far_outside_does_not_overflow():
    """A limb to a point a billion pixels to the right is a horizontal line."""
    points = ((400.5, 100.5), (1e9, 100.5), (200.5, 400.5))
    image = draw_poses(black(), person(points=points), FLIPPED, show_boxes=False, show_scores=False)
    assert tuple(image[100, 790]) == BLUE


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_people_are_skipped(value):
    """The person between the two others stays as if alone; a single keypoint is skipped like one without confidence."""
    sound = person()
    box, score, keypoint = person(), person(), person()
    box.pred_boxes.tensor[0, 2] = value
    score.scores[0] = value
    drawn = draw_poses(black(), Instances.cat([box, sound, score]), FLIPPED)
    assert np.array_equal(drawn, draw_poses(black(), sound, FLIPPED))
    keypoint.pred_keypoints[0, 1, 0] = value
    unseen = person()
    unseen.pred_keypoints[0, 1, 2] = 0
    assert np.array_equal(draw_poses(black(), keypoint, FLIPPED), draw_poses(black(), unseen, FLIPPED))


def test_another_number_of_keypoints_is_refused():
    with pytest.raises(ValueError, match="3 keypoints, but a schema of 2"):
        draw_poses(black(), person(), KeypointSchema(names=("a", "b")))
