"""Holding out images: how many, of which strata, and what stays together."""

import pytest

from dynpose.data.splitting import split_images


def numbered(count):
    return [f"{i:012d}.jpg" for i in range(count)]


@pytest.mark.parametrize(
    ("num_images", "num_val"),
    [(0, 0), (1, 0), (2, 1), (4, 1), (10, 2), (16, 4), (20, 4), (40, 6), (100, 15), (20_000, 2_000)],
)
def test_the_number(num_images, num_val):
    split = split_images(numbered(num_images), [0] * num_images)
    assert len(split.val) == num_val
    assert sorted(split.train + split.val) == list(range(num_images))
    assert split.unit == "image"


def test_the_seed_alone_decides():
    names, strata = numbered(40), [0] * 40
    assert split_images(names, strata, seed=3) == split_images(names, strata, seed=3)
    assert split_images(names, strata, seed=3).val != split_images(names, strata, seed=4).val


def test_each_stratum_has_its_share():
    """Of 100 images 15 are held out: 20 % of them without people, 70 % of one class, 10 % of another."""
    strata = [None] * 20 + [0] * 70 + [1] * 10
    for seed in range(5):
        val = split_images(numbered(100), strata, seed=seed).val
        found = [strata[i] for i in val]
        assert (found.count(None), len(val)) == (3, 15)
        assert found.count(0) in (10, 11)
        assert found.count(1) in (1, 2)


@pytest.mark.parametrize(
    ("unit", "name"),
    [
        ("folder", "video{0}/{1:04d}.jpg"),
        ("folder", "a/video{0}/img{1}_{0}.png"),
        ("folder", "video{0}\\{1:04d}.jpg"),
        ("sequence", "clip{0}_frame_{1:06d}.jpg"),
        ("sequence", "2024-05-0{0}_cam-{1}.jpg"),
        ("source image", "dog{0}x_jpg.rf.{1:032x}.jpg"),
    ],
)
def test_what_belongs_together_stays_together(unit, name):
    """Eight units of ten images, of which one is held out: 12 images would be 15 %."""
    names = [name.format(i // 10, i % 10) for i in range(80)]
    split = split_images(names, [0] * 80)
    assert (split.unit, split.num_units) == (unit, 8)
    assert len(split.val) == 10
    assert {i // 10 for i in split.val}.isdisjoint(i // 10 for i in split.train)


@pytest.mark.parametrize(
    "names",
    [
        numbered(40),
        [f"COCO_train2014_{i:012d}.jpg" for i in range(40)],
        [f"{'left' if i % 2 else 'right'}/{i}.jpg" for i in range(40)],
        [f"{chr(97 + i)}.jpg" for i in range(26)],
    ],
)
def test_names_that_group_nothing(names):
    assert split_images(names, [0] * len(names)).unit == "image"


def test_folders_of_classes_are_divided():
    names = [f"species{i // 10}/{i}.jpg" for i in range(60)]
    split = split_images(names, [i // 10 for i in range(60)])
    assert split.unit == "image"
    assert len({i // 10 for i in split.val}) == 6


def test_copies_of_few_images_are_not_divided():
    names = [f"dog{'ab'[i // 20]}_jpg.rf.{i:032x}.jpg" for i in range(40)]
    split = split_images(names, [0] * 40)
    assert {i // 20 for i in split.val}.isdisjoint(i // 20 for i in split.train)


def test_groups_that_are_too_large_are_divided():
    """Four fifths of the images are one sequence, the other four have more images than may be held out."""
    names = [f"a_{i}.jpg" for i in range(60)] + [f"{'bcde'[i % 4]}_{i}.jpg" for i in range(60)]
    assert split_images(names, [0] * 120).unit == "sequence"
    names = [f"a_{i}.jpg" for i in range(60)] + [f"{'bc'[i % 2]}_{i}.jpg" for i in range(60)]
    assert split_images(names, [0] * 120).unit == "image"
