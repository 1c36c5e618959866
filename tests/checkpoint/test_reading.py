"""Checkpoints are read without running code in them; all kinds of weights still load."""

import collections
import contextlib
import os
import pickle

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from safetensors.torch import save_file

from dynpose.checkpoint import CheckpointError, PoseCheckpointer
from dynpose.checkpoint.reading import TRUST_VARIABLE, read_checkpoint
from dynpose.tools import cli


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def trace(tmp_path):
    """What a malicious checkpoint would create."""
    return tmp_path / "trace"


def write(path, content):
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)


@pytest.mark.parametrize("name", ["model.pth", "model.pkl", "model.pyth", "model"])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"model": x}, lambda x: {"model": {}, "optimizer": [x]}])
def test_nothing_in_a_file_is_run(tmp_path, trace, monkeypatch, name, wrap):
    write(tmp_path / name, wrap(Malicious(trace)))
    with pytest.raises(CheckpointError, match=rf"{name}: it holds more than weights.*mkdir.*{TRUST_VARIABLE}=1"):
        PoseCheckpointer(torch.nn.Linear(1, 1)).load(str(tmp_path / name))
    assert not trace.exists()

    # with the user's word, the file is read and does it
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    with contextlib.suppress(Exception):
        read_checkpoint(str(tmp_path / name))
    assert trace.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"cos\nsystem\n(S'mkdir %s'\ntR.",
        b'cbuiltins\neval\n(S\'__import__("os").mkdir("%s")\'\ntR.',
        b"c__builtin__\nexec\n(S'import os; os.mkdir(\"%s\")'\ntR.",
        b"cnumpy.testing._private.utils\nrunstring\n(S'import os; os.mkdir(\"%s\")'\n}tR.",
        b"ctorch.serialization\nload\n(S'%s'\ntR.",
        b"cnumpy\nload\n(S'%s'\nNI01\ntR.",
        b"c_codecs\nencode\n(S'%s'\nS'zip'\ntR.",
        b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.%.0s",
    ],
)
def test_written_pickles(tmp_path, trace, payload):
    (tmp_path / "model.pkl").write_bytes(payload % str(trace).encode())
    with pytest.raises(CheckpointError, match=r"model\.pkl: it holds more than weights"):
        PoseCheckpointer(torch.nn.Linear(1, 1)).load(str(tmp_path / "model.pkl"))
    assert not trace.exists()


def zoo(protocol, path, **content):
    """A file as detectron2's model zoo has them."""
    arrays = {
        "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.ones((2, 3))),
        "half": np.ones(2, np.float16),
        "empty": np.zeros((0, 4)),
        "scalar": np.float32(2),
        "count": np.array(7),
    }
    path.write_bytes(pickle.dumps({**content, "model": collections.OrderedDict(arrays)}, protocol=protocol))
    return arrays


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_model_zoo_files(tmp_path, protocol):
    path = tmp_path / "model.pkl"
    arrays = zoo(protocol, path, __author__="third_party", matching_heuristics=True)
    checkpoint = read_checkpoint(str(path))
    assert checkpoint["__author__"] == "third_party"
    assert checkpoint["matching_heuristics"] is True
    assert list(checkpoint["model"]) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(checkpoint["model"][name], array)
        assert checkpoint["model"][name].dtype == array.dtype


def test_pickles_of_python_2(tmp_path):
    """As Detectron wrote them: bytes are strings, numpy is of its time."""
    old = (
        b"\x80\x02}q\x00U\x05blobs}(U\x07conv1_wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"K\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00\x00@tbU\x10conv1_w_momentumK\x01us."
    )
    (tmp_path / "R-50.pkl").write_bytes(old)
    ours, theirs = (
        read(str(tmp_path / "R-50.pkl"))
        for read in (read_checkpoint, DetectionCheckpointer(torch.nn.Linear(1, 1))._load_file)
    )
    assert ours["model"].keys() == theirs["model"].keys() == {"conv1_w"}
    assert ours["model"]["conv1_w"].tolist() == theirs["model"]["conv1_w"].tolist() == [1.0, 2.0]
    assert {**ours, "model": 0} == {**theirs, "model": 0}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pth", {"model": {"weight": torch.ones(1)}, "iteration": 3, "optimizer": {"param_groups": [{"lr": 0.1}]}}),
        ("b.pth", {"weight": torch.ones(1)}),
        ("c.pyth", {"model_state": {"weight": torch.ones(1), "bn.num_batches_tracked": torch.ones(1)}}),
    ],
)
def test_files_of_torch_are_read_as_detectron2_reads_them(tmp_path, name, content):
    torch.save(content, tmp_path / name)
    path = str(tmp_path / name)
    assert read_checkpoint(path) == DetectionCheckpointer(torch.nn.Linear(1, 1))._load_file(path)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"weight": 1}, "epoch": 3},
        {"model": {"state_dict": {"weight": 1}}},
        # the released CID's: the model's name
        {"epoch": 140, "model": "CID", "state_dict": {"weight": 1}, "best_state_dict": {"weight": 2}},
    ],
)
def test_weights_may_be_called_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    assert read_checkpoint(str(tmp_path / "a.pth")) == {"model": {"weight": 1}}


def test_safetensors(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "a.safetensors")
    assert read_checkpoint(str(tmp_path / "a.safetensors"))["model"]["weight"].tolist() == [1, 1]


@pytest.mark.usefixtures("clean_run")
def test_the_command_line_says_it_in_one_line(tmp_path, trace, capsys):
    write(tmp_path / "model.pth", {"model": Malicious(trace)})
    config = "configs/FCPose/R_50_3x.yaml"
    words = ["predict", "--config-file", config, "--weights", str(tmp_path / "model.pth"), "--output", str(tmp_path)]
    words += ["--input", "docs/images", "--device", "cpu"]
    assert cli.main(words) == 2
    assert "model.pth: it holds more than weights" in capsys.readouterr().err.splitlines()[-1]
    assert not trace.exists()
