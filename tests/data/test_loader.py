"""Training batches are a function of the seed and the iteration, and show what detectron2's samplers show."""

import random

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.utils import comm
from small_models import small_config

from dynpose.config import ConfigError
from dynpose.data import DatasetError, get_pose_dataset_dicts
from dynpose.data.loader import PoseTrainLoader, TrainingSchedule, build_pose_train_loader
from dynpose.utils.random_state import rng_state


def take(iterator, count):
    return [batch for batch, _ in zip(iterator, range(count))]


def shown_in(schedule, count):
    """The indices of the images in the first batches."""
    return np.concatenate([indices for indices, _ in take(schedule.batches(), count)]).tolist()


def draws(item):
    """A mapper whose result says which random numbers it got."""
    return {**item, "draws": (random.random(), np.random.random(), torch.rand(()).item())}


def shift(item):
    return {**item, "draws": (*draws(item)["draws"], np.random.randint(9))}


DICTS = [{"file_name": f"{i}.jpg", "width": 60 if i % 3 else 40, "height": 50} for i in range(10)]


def loader_of(mapper=draws, batch_size=4, seed=3, **kwargs):
    return PoseTrainLoader(DICTS, mapper, TrainingSchedule(len(DICTS), batch_size, seed=seed), **kwargs)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 16])
def test_every_epoch_shows_every_image_once(batch_size):
    shown = shown_in(TrainingSchedule(10, batch_size, seed=0), 160 // batch_size)
    epochs = [shown[i : i + 10] for i in range(0, len(shown) - 9, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    # each in a separate order
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs) > 10


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("start", [1, 7, 500])
def test_starting_anywhere_is_going_on(start, grouped):
    groups = np.array([i % 3 > 0 for i in range(10)], dtype=np.int64) if grouped else None
    schedule = TrainingSchedule(10, 4, seed=1, groups=groups)
    whole = take(schedule.batches(), start + 3)[start:]
    for ours, expected in zip(take(schedule.batches(start), 3), whole, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_a_batch_is_of_one_group_and_none_is_omitted():
    groups = np.array([0, 1, 1, 1, 1, 1, 1])
    schedule = TrainingSchedule(7, 3, seed=0, groups=groups)
    batches = take(schedule.batches(), 70)
    assert all(len(set(groups[indices])) == 1 for indices, _ in batches)
    # the one image of group 0 comes once in each of 30 epochs: it waits for itself
    assert sum((indices == 0).sum() for indices, _ in batches) == 30
    positions = np.concatenate([positions for _, positions in batches])
    assert len(set(positions.tolist())) == len(positions)
    # batches come in the order in which they are full
    assert [p[-1] for _, p in batches] == sorted(p[-1] for _, p in batches)


def test_repeat_factors_are_detectron2s():
    """Eight images of a frequent category, two of one that is in 1/5 of the images: sqrt(0.8 / 0.2) = 2 times."""
    dicts = [{"annotations": [{"category_id": int(i > 7)}]} for i in range(10)]
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(dicts, 0.8).numpy()
    assert factors.tolist() == [1.0] * 8 + [2.0] * 2
    shown = shown_in(TrainingSchedule(10, 12, seed=0, repeat_factors=factors), 5)
    assert np.bincount(shown).tolist() == [5] * 8 + [10] * 2
    shown = shown_in(TrainingSchedule(2, 1, seed=0, repeat_factors=np.array([1.0, 1.5])), 5000)
    # 2 of 2.5 images are the first
    assert np.bincount(shown)[0] / 5000 == pytest.approx(0.4, abs=0.02)


def test_a_subset_is_drawn_once():
    shown = shown_in(TrainingSchedule(10, 4, seed=0, subset_ratio=0.45), 100)
    assert sorted(np.bincount(shown, minlength=10).tolist()) == [0] * 6 + [100] * 4
    with pytest.raises(ValueError, match=r"subset_ratio: .* keeps at least one of 10 images, got 0\.05"):
        TrainingSchedule(10, 4, seed=0, subset_ratio=0.05)


def test_workers_and_starts_change_nothing():
    """Images and their random numbers are the same without workers, with two, and from a later iteration on."""
    expected = take(iter(loader_of()), 5)
    with_workers = loader_of(num_workers=2)
    assert take(iter(with_workers), 5) == expected
    with_workers.start_iteration = 3
    assert take(iter(with_workers), 2) == expected[3:]
    all_draws = [item["draws"] for batch in expected for item in batch]
    assert len(set(all_draws)) == len(all_draws)
    assert take(iter(loader_of(seed=4)), 5) != expected


def test_a_longer_draw_of_one_image_is_not_noticed_by_others():
    plain, shifted = (take(iter(loader_of(mapper)), 2) for mapper in (draws, shift))
    assert [i["draws"] for b in plain for i in b] == [i["draws"][:3] for b in shifted for i in b]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_global_generators_are_left_alone(num_workers):
    before = rng_state()
    take(iter(loader_of(num_workers=num_workers)), 2)
    after = rng_state()
    assert before["python"] == after["python"]
    assert torch.equal(before["torch"], after["torch"])
    assert torch.equal(before["numpy"][1], after["numpy"][1])
    assert before["numpy"][2:] == after["numpy"][2:]


def test_processes_share_the_batch_of_one(monkeypatch):
    expected = take(iter(loader_of()), 4)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        shares.append(take(iter(loader_of()), 4))
    assert [first + second for first, second in zip(*shares)] == expected
    with pytest.raises(ValueError, match="schedule: 3 images of a batch can't be shared equally by 2 processes"):
        loader_of(batch_size=3)


def test_an_image_that_the_mapper_skips_is_replaced():
    loader = loader_of(lambda item: draws(item) if item["width"] == 60 else None)
    batches = take(iter(loader), 5)
    assert all(item["width"] == 60 for batch in batches for item in batch)
    assert take(iter(loader), 5) == batches
    with pytest.raises(DatasetError, match=r"the mapper skipped 100 images in a row, the last of them \d\.jpg"):
        next(iter(loader_of(lambda item: None)))


def test_it_goes_on_with_the_seed_and_notices_other_data(caplog):
    loader = loader_of(seed=5)
    loader.load_state_dict({"seed": 3, "num_images": 10, "batch_size": 4})
    assert "the resumed run's seed 3, not 5" in caplog.text
    assert take(iter(loader), 3) == take(iter(loader_of(seed=3)), 3)
    loader.load_state_dict({"seed": 3, "num_images": 12, "batch_size": 8})
    assert "had 12 training images, now there are 10" in caplog.text
    assert "had 8 images in a batch, now there are 4" in caplog.text


@pytest.fixture
def cfg():
    cfg = small_config()
    cfg.DATASETS.TRAIN = ("ten",)
    cfg.MODEL.KEYPOINT_ON = False
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.SEED = 1
    person = {"category_id": 0, "bbox": [0, 0, 1, 1]}
    DatasetCatalog.register(
        "ten", lambda: [{**item, "annotations": [person] * (i < 8)} for i, item in enumerate(DICTS)]
    )
    yield cfg
    DatasetCatalog.remove("ten")
    MetadataCatalog.pop("ten", None)


def test_a_config_decides(cfg):
    cfg.DATALOADER.NUM_WORKERS = 0
    batches = take(iter(build_pose_train_loader(cfg, draws)), 40)
    assert all(len({item["width"] > item["height"] for item in batch}) == 1 for batch in batches)
    # the two without annotations are skipped
    assert {item["file_name"] for batch in batches for item in batch} == {f"{i}.jpg" for i in range(8)}
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    batches = take(iter(build_pose_train_loader(cfg, draws)), 5)
    assert {item["file_name"] for batch in batches for item in batch} == {f"{i}.jpg" for i in range(10)}
    cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER.RANDOM_SUBSET_RATIO = "RandomSubsetTrainingSampler", 0.2
    batches = take(iter(build_pose_train_loader(cfg, draws)), 9)
    assert len({item["file_name"] for batch in batches for item in batch}) == 2


def test_faults(cfg, monkeypatch):
    cfg.DATALOADER.SAMPLER_TRAIN = "WeightedTrainingSampler"
    with pytest.raises(ConfigError, match=r"SAMPLER_TRAIN must be .*, got 'WeightedTrainingSampler'"):
        build_pose_train_loader(cfg, draws)
    cfg.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"
    monkeypatch.delitem(DICTS[4], "height")
    with pytest.raises(DatasetError, match=r"4\.jpg: has no width and height"):
        build_pose_train_loader(cfg, draws)


def test_dicts_for_a_lazy_config(cfg):
    assert len(get_pose_dataset_dicts("ten")) == 8
    assert len(get_pose_dataset_dicts(["ten", "ten"], filter_empty=False)) == 20
    with pytest.raises(DatasetError, match=r"^data sets ten: no image is left; .*min_keypoints \(1\)"):
        get_pose_dataset_dicts("ten", min_keypoints=1)
