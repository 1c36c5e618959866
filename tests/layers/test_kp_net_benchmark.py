import argparse
import sys

import pytest
import torch

from dynpose.tools import benchmark

CPU = torch.device("cpu")
SMALL = benchmark._Case("small", channels=4, num_instances=3, map_size=(5, 7))


def parse(*arguments):
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return parser.parse_args(arguments)


def test_prints_a_table(monkeypatch, capsys):
    cases = (SMALL, SMALL._replace(name="small training", training=True))
    monkeypatch.setattr(benchmark, "_KP_NET_CASES", cases)
    monkeypatch.setattr(benchmark, "_memory", lambda name, *args: {"grouped": 12.0, "kp_net": 3.0}[name])
    benchmark.run(parse("kp-net", "--device", "cpu", "--repeats", "2", "--markdown"))
    header, _, titles, _, *rows = capsys.readouterr().out.splitlines()
    assert f"torch {torch.__version__}" in header
    assert f"{torch.get_num_threads()} CPU threads, float32, backend auto, median of 2" in header
    assert [title.strip() for title in titles.strip("|").split("|")][:4] == ["case", "N", "C x H x W", "grouped, ms"]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[:3] for row in cells] == [["small", "3", "4 x 5 x 7"], ["small training", "3", "4 x 5 x 7"]]
    assert [row[-2:] for row in cells] == [["12.0", "3.0"]] * 2


def test_target_is_required():
    with pytest.raises(SystemExit):
        parse()
    with pytest.raises(SystemExit):
        parse("something-else")


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("num_instances", [1, 3])
def test_contestants_agree(training, num_instances):
    case = SMALL._replace(training=training, num_instances=num_instances)
    grouped, operator = (benchmark._prepare(name, case, CPU, "auto")() for name in ("grouped", "kp_net"))
    assert grouped.shape == (num_instances, 17)
    benchmark._check_agreement(grouped, operator)
    with pytest.raises(AssertionError):
        benchmark._check_agreement(grouped, operator + 0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_the_grouped_convolution():
    # 64 x (4 + 2, 4, 4, 17) channels x 100 x 100 cells in float32: input, two hidden maps, heatmaps. The input and
    # the second hidden map, or the second hidden map and the heatmaps, are held at least.
    case = SMALL._replace(num_instances=64, map_size=(100, 100))
    mib_per_channel = 64 * 100 * 100 * 4 / 2**20
    measured = benchmark._memory("grouped", case, CPU, "auto")
    assert (4 + 17) * mib_per_channel < measured < 3 * (6 + 4 + 4 + 17) * mib_per_channel
