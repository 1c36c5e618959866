"""The schedule that is chosen from the number of images."""

import pytest

from dynpose.config import load_config
from dynpose.engine.auto_schedule import ChosenValues, choose_schedule, training_epochs


def chosen(config, num_images, *opts, fine_tunes=True, num_processes=1):
    """The config of the schedule for one test set."""
    cfg = load_config(config, opts)
    cfg.DATASETS.TEST = ("val",)
    values = ChosenValues(cfg, given=opts[::2])
    choose_schedule(cfg, values, num_images=num_images, fine_tunes=fine_tunes, num_processes=num_processes)
    return cfg


@pytest.mark.parametrize(
    ("num_images", "fine_tunes", "epochs"),
    [(40, True, 30), (640, True, 15), (40 * 16, False, 45), (10**6, True, 10), (40, False, 90)],
)
def test_epochs(num_images, fine_tunes, epochs):
    """16 times as many images: half the epochs."""
    assert training_epochs(num_images, fine_tunes=fine_tunes) == pytest.approx(epochs)


def test_forty_images_on_a_cpu():
    cfg = chosen("custom/cpu.yaml", 40)
    solver = cfg.SOLVER
    # 30 epochs of 5 batches; a tenth of them to warm up; 15 evaluations
    assert (solver.IMS_PER_BATCH, solver.MAX_ITER, solver.WARMUP_ITERS, cfg.TEST.EVAL_PERIOD) == (8, 150, 15, 10)
    # of the config's 0.002 for 16, and a tenth of that for trained weights
    assert solver.BASE_LR == 0.0001
    assert (solver.BEST_METRIC, solver.EARLY_STOPPING_PATIENCE) == ("keypoints/AP", 8)
    assert (solver.CHECKPOINT_PERIOD, solver.CHECKPOINTS_KEPT) == (10, 2)
    assert chosen("custom/cpu.yaml", 40, fine_tunes=False).SOLVER.BASE_LR == 0.001


def test_the_shape_of_the_configs_schedule_is_kept():
    """90,000 iterations with drops after two thirds and eight ninths of them."""
    cfg = chosen("custom/gpu.yaml", 640)
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (16, 600, (400, 533))
    # 36 epochs with drops after 24 and 33
    cfg = chosen("InsPose/R_50_36e.yaml", 640, "MODEL.DEVICE", "cuda")
    assert cfg.SOLVER.MAX_EPOCHS == 0
    steps = load_config("InsPose/R_50_36e.yaml").SOLVER.STEPS_EPOCHS
    assert tuple(round(600 * step / 36) for step in steps) == cfg.SOLVER.STEPS


@pytest.mark.parametrize(("num_images", "batch"), [(1, 1), (3, 1), (5, 2), (9, 4), (15, 4), (16, 8), (1000, 8)])
def test_small_batches_of_few_images(num_images, batch):
    assert batch == chosen("custom/cpu.yaml", num_images).SOLVER.IMS_PER_BATCH


@pytest.mark.parametrize(("num_processes", "batch"), [(1, 16), (2, 16), (3, 15), (8, 16), (32, 32)])
def test_every_process_has_an_image(num_processes, batch):
    cfg = chosen("custom/gpu.yaml", 1000, num_processes=num_processes)
    assert batch == cfg.SOLVER.IMS_PER_BATCH


def test_what_the_user_sets_is_kept_and_the_rest_follows():
    cfg = chosen("custom/cpu.yaml", 40, "SOLVER.MAX_ITER", "50", "SOLVER.BASE_LR", "0.1", "SOLVER.BEST_METRIC", "")
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.BASE_LR) == (50, 5, 0.1)
    assert (cfg.TEST.EVAL_PERIOD, cfg.SOLVER.EARLY_STOPPING_PATIENCE) == (5, 0)
    cfg = chosen("custom/cpu.yaml", 40, "SOLVER.MAX_EPOCHS", "10", "TEST.EVAL_PERIOD", "0")
    assert (cfg.SOLVER.MAX_EPOCHS, cfg.SOLVER.MAX_ITER) == (0, 50)
    assert (cfg.SOLVER.EARLY_STOPPING_PATIENCE, cfg.SOLVER.CHECKPOINT_PERIOD) == (0, 50)
    # another batch: the learning rate is scaled from the one that it is meant for
    cfg = chosen("CID/HRNet_W32_140e.yaml", 40, "MODEL.DEVICE", "cpu", "SOLVER.IMS_PER_BATCH", "10")
    config = load_config("CID/HRNet_W32_140e.yaml").SOLVER
    assert pytest.approx(0.1 * config.BASE_LR * 10 / config.REFERENCE_BATCH) == cfg.SOLVER.BASE_LR
    assert cfg.SOLVER.REFERENCE_BATCH == 10


def test_each_value_is_explained(caplog):
    with caplog.at_level("INFO", logger="dynpose"):
        chosen("custom/cpu.yaml", 40, "SOLVER.WARMUP_ITERS", "7")
    messages = [record.getMessage() for record in caplog.records]
    assert "SOLVER.MAX_ITER is 150: 30 epochs of 40 images in batches of 8, from trained weights" in messages
    assert not any("WARMUP" in message for message in messages)
