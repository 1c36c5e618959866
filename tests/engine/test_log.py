"""What a run's log.txt and the screen say, read from those of real runs: everything once, nothing missing."""

import contextlib
import io
import itertools
import json
import logging
import re

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from processes import run_in_processes
from test_training import CONFIG, TINY, arguments

from dynpose.checkpoint import PoseCheckpointer
from dynpose.config import ConfigError, load_config
from dynpose.data import COCO_PERSON, schema_to_cfg
from dynpose.engine import main, setup

pytestmark = pytest.mark.usefixtures("clean_run")

# five of COCO's keypoints by their index there, and the data set's names for them
CHOSEN = {0: "nose", 5: "left_shoulder", 6: "hump", 15: "paw_one", 16: "paw_two"}
SIGMAS = [0.026, 0.079, 0.05, 0.06, 0.07]
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_HEAD = re.compile(r"^(?:[A-Z]+ )?\[\d\d/\d\d \d\d:\d\d:\d\d(?= |\])", re.MULTILINE)


def logged(text):
    """Each entry of a log.txt or of the screen without time, level and colours: ``(logger, message)``."""
    entries = _HEAD.split(_COLOURS.sub("", text))[1:]
    # "] name LEVEL: message" in the file, " name]: message" on the screen
    heads = [re.match(r"(?:\] ([\w.]+) [A-Z]+| ([\w.]+)\]): (.*)", entry, re.DOTALL) for entry in entries]
    assert all(heads), entries
    return [(head[1] or head[2], head[3].strip()) for head in heads]


def messages(text, logger=""):
    return [message for name, message in logged(text) if name.startswith(logger)]


def matching(text, pattern):
    return [message for message in messages(text) if re.search(pattern, message)]


def run(args):
    """Results of a run, and its output on the screen."""
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        results = main(args)
    return results, screen.getvalue()


def write_weights(folder):
    """Weights of COCO's keypoints, as a run leaves them: the file's name."""
    cfg = load_config(CONFIG, TINY)
    schema_to_cfg(cfg, COCO_PERSON)
    torch.manual_seed(0)
    PoseCheckpointer(build_model(cfg), str(folder)).save("coco")
    return folder / "coco.pth"


def write_people(synthetic, folder):
    """A data set of one's own with areas of 1, and with a num_keypoints too many: its entry of DATASETS.POSE."""
    data = json.loads((synthetic / "train.json").read_text())
    (category,) = data["categories"]
    category.update(keypoints=list(CHOSEN.values()), skeleton=[])
    for person in data["annotations"]:
        triples = [person["keypoints"][3 * i : 3 * i + 3] for i in CHOSEN]
        labelled = sum(visibility > 0 for _, _, visibility in triples)
        person.update(keypoints=list(itertools.chain(*triples)), num_keypoints=labelled + 1, area=1)
    (folder / "own.json").write_text(json.dumps(data))
    images = {"json_file": str(folder / "own.json"), "image_root": str(synthetic / "train")}
    return {"name": "own", **images, "sigmas": SIGMAS}, len(data["annotations"])


class Runs:
    """Two runs in one process: on synthetic people, and on a data set of one's own from weights of other keypoints."""

    def __init__(self, folder):
        self.folder, self.weights = folder, write_weights(folder)
        self.first_results, self.first_screen = run(arguments(folder / "first", "SOLVER.MAX_ITER", 1))
        self.first_log = (folder / "first/log.txt").read_text()
        entry, self.num_people = write_people(folder / "first/synthetic", folder)
        own = ["DATASETS.POSE", [entry], "DATASETS.TRAIN", ("own",), "DATASETS.TEST", ("own",), "SEED", 20261127]
        own += ["MODEL.WEIGHTS", self.weights, "INPUT.RANDOM_FLIP", "horizontal", "SOLVER.MAX_ITER", 2]
        self.results, self.screen = run(arguments(folder / "second", *own))
        self.log = (folder / "second/log.txt").read_text()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    before = {id(catalog): set(catalog) for catalog in (DatasetCatalog, MetadataCatalog)}
    yield Runs(tmp_path_factory.mktemp("runs"))
    for catalog in (DatasetCatalog, MetadataCatalog):
        for name in set(catalog) - before[id(catalog)]:
            catalog.remove(name)


def test_the_table_of_the_evaluation(runs):
    for log in (runs.log, runs.screen):
        (table,) = matching(log, "own: evaluation results for keypoints")
        names, _, values = [re.findall(r"[^|\s]+", line) for line in table.splitlines()[1:]]
        assert names == ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]
        assert values == [f"{runs.results['keypoints'][name]:.3f}" for name in names]
        assert len(matching(log, "own: evaluation results for bbox")) == 1


def test_seed_keypoints_and_sigmas(runs):
    for log in (runs.log, runs.screen):
        assert matching(log, "^SEED is") == ["SEED is 20261127"]
        assert matching(log, "^Keypoints of the model") == [
            "Keypoints of the model: nose, left_shoulder, hump, paw_one, paw_two"
        ]
        assert matching(log, "OKS sigmas") == [
            "own: OKS sigmas: nose 0.026, left_shoulder 0.079, hump 0.05, paw_one 0.06, paw_two 0.07"
        ]


def test_the_report_of_the_weights(runs):
    for log in (runs.log, runs.screen):
        (report,) = matching(log, "initialised from scratch")
        assert str(runs.weights) in report
        assert re.search(
            r"transferred: nose, left_shoulder\b.*initialised from scratch: hump, paw_one, paw_two\b", report
        )


def test_remarks_on_the_data(runs):
    number = f"{runs.num_people} of {runs.num_people} annotations"
    for log in (runs.log, runs.screen):
        (repaired,) = matching(log, "have an area that a region of their box cannot have")
        (remarked,) = matching(log, "have another num_keypoints than labelled keypoints")
        assert repaired.startswith(f"{runs.folder}/own.json: {number}")
        assert remarked.startswith(f"{runs.folder}/own.json: {number}")


def test_a_doubt_about_flip_pairs(runs):
    for log in (runs.log, runs.screen):
        (warning,) = matching(log, "flip pair ")
        assert warning.startswith("left_shoulder: in no flip pair although the name has a side")


@pytest.mark.parametrize("name", ["first", "second"])
def test_nothing_twice_and_the_screen_shows_all(runs, name):
    log, screen = (runs.first_log, runs.first_screen) if name == "first" else (runs.log, runs.screen)
    # detectron2 serialises each loader's data set, with the same words
    ours = messages(log, "dynpose")
    assert len(ours) == len(set(ours)) >= 8
    assert messages(screen, "dynpose") == ours
    for logger in ("d2", "fvcore"):
        assert len(messages(screen, logger)) > 0
    assert len(matching(screen, "Starting training from iteration 0")) == 1
    assert len(matching(log, "Starting training from iteration 0")) == 1


def test_a_run_writes_into_its_own_log_only(runs):
    assert (runs.folder / "first/log.txt").read_text() == runs.first_log
    assert "own" not in {message.split(":")[0] for message in messages(runs.first_log)}
    assert len(matching(runs.first_log, "synthetic_pose_val: evaluation results for keypoints")) == 1
    assert not matching(runs.log, "^synthetic_pose_val: ")


def test_evaluation_alone_after_a_training_appends_to_its_log(runs, tmp_path):
    """In the same folder, as people do; the seed is none of it."""
    weights = runs.folder / "first/model_final.pth"
    args = arguments(tmp_path, "MODEL.WEIGHTS", weights, "SOLVER.MAX_ITER", 1)
    args.opts += ["DATASETS.SYNTHETIC.ROOT", str(runs.folder / "first/synthetic")]
    _, training = run(args)
    args.eval_only = True
    _, evaluation = run(args)
    assert len(matching(training, "SEED is")) == 1
    assert not matching(evaluation, "SEED is")
    table = "synthetic_pose_val: evaluation results for keypoints"
    assert [len(matching(screen, table)) for screen in (training, evaluation)] == [1, 1]
    assert len(matching((tmp_path / "log.txt").read_text(), table)) == 2


def test_handlers_of_ones_own_stay(runs, tmp_path):
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    args = arguments(tmp_path, "DATASETS.SYNTHETIC.ROOT", runs.folder / "first/synthetic")
    logging.getLogger("dynpose").addHandler(handler)
    try:
        screens = []
        for _ in range(2):
            with contextlib.redirect_stdout(io.StringIO()) as screen:
                setup(args)
            screens.append(screen.getvalue())
    finally:
        logging.getLogger("dynpose").removeHandler(handler)
    assert heard.getvalue().count("Keypoints of the model") == 2
    assert [len(matching(screen, "^Keypoints of the model")) for screen in screens] == [1, 1]


@pytest.mark.parametrize("fault", ["SOLVER.IMS_PER_BATCH", "INPUT.AFFINE_RESIZE_TEST"])
def test_a_set_up_that_failed_leaves_no_second_screen(runs, tmp_path, fault):
    root = ["DATASETS.SYNTHETIC.ROOT", runs.folder / "first/synthetic"]
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        with pytest.raises(ConfigError, match=fault):
            setup(arguments(tmp_path / "faulty", *root, fault, 0 if fault.startswith("SOLVER") else True))
        setup(arguments(tmp_path / "repaired", *root))
    assert len(matching(screen.getvalue(), "^Keypoints of the model")) == 1
    assert not matching((tmp_path / "faulty/log.txt").read_text(), "^Keypoints of the model")


def _train(rank, folder):
    main(arguments(folder, "SOLVER.MAX_ITER", 1, "SOLVER.IMS_PER_BATCH", 2))


def test_of_two_processes_the_first_writes_log_txt(tmp_path, capfd):
    run_in_processes(_train, str(tmp_path / "run"), folder=tmp_path)
    screen = capfd.readouterr().out
    log, other = ((tmp_path / "run" / name).read_text() for name in ("log.txt", "log.txt.rank1"))
    assert sorted(path.name for path in (tmp_path / "run").glob("log.txt*")) == ["log.txt", "log.txt.rank1"]
    for text in (log, screen):
        assert matching(text, "^Rank of current process") == ["Rank of current process: 0. World size: 2"]
        for once in ("^SEED is 0$", "^Keypoints of the model", "OKS sigmas: nose 0.026", "results for keypoints"):
            assert len(matching(text, once)) == 1, once
    ours = messages(log, "dynpose")
    assert len(ours) == len(set(ours))
    assert matching(other, "^Rank of current process") == ["Rank of current process: 1. World size: 2"]
    assert not matching(other, "results for keypoints")
