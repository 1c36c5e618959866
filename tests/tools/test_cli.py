"""The `dynpose` command: help, errors and exit codes."""

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from dynpose.checkpoint import CheckpointError
from dynpose.config import ConfigError
from dynpose.data import DatasetError
from dynpose.tools import cli, predict

COMMANDS = (
    "train",
    "evaluate",
    "predict",
    "merge-predictions",
    "report",
    "convert-data",
    "check-data",
    "benchmark",
    "convert-weights",
    "model-info",
)
PREDICT = ("predict", "--config-file", "c", "--weights", "w", "--input", "i", "--output", "o")


def test_help_names_every_command_and_loads_nothing_heavy():
    """In a separate process, as this one has loaded torch already."""
    program = (
        "import sys\nfrom dynpose.tools.cli import main\ntry:\n    main(['--help'])\n"
        "finally:\n    assert not {'torch', 'detectron2', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed = re.findall(r"^    ([a-z-]+)(?:\s|$)", done.stdout, re.MULTILINE)
    assert [command for command in listed if command in COMMANDS] == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    assert f"dynpose {command}" in capsys.readouterr().out


def test_a_command_is_required(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def raising(error):
    def run(args):
        raise error

    return run


@pytest.mark.parametrize("kind", [ConfigError, DatasetError, CheckpointError, FileNotFoundError, PermissionError])
def test_known_errors_are_one_line_and_exit_code_2(kind, monkeypatch, capsys):
    monkeypatch.setattr(predict, "run", raising(kind("x.json: is corrupt;\n correct it")))
    assert cli.main(PREDICT) == 2
    assert capsys.readouterr().err == "dynpose: error: x.json: is corrupt; correct it\n"


def test_other_errors_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(predict, "run", raising(KeyError("a fault of dynpose")))
    with pytest.raises(KeyError, match="a fault of dynpose"):
        cli.main(PREDICT)


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_exit_code_is_the_return_value_of_the_command(returned, code, monkeypatch):
    monkeypatch.setattr(predict, "run", lambda args: returned)
    assert cli.main(PREDICT) == code


def test_interruption_has_its_own_code(monkeypatch, capsys):
    monkeypatch.setattr(predict, "run", raising(KeyboardInterrupt()))
    assert cli.main(PREDICT) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [*PREDICT, "A.B", "1", "C.D", "-2"],
        [*PREDICT, "--no-pictures", "A.B", "1", "C.D", "-2"],
        [*PREDICT, "A.B", "1", "C.D", "-2", "--no-pictures"],
    ],
)
def test_overrides_may_stand_before_or_after_options(words, monkeypatch):
    seen = SimpleNamespace()
    monkeypatch.setattr(predict, "run", lambda args: setattr(seen, "opts", args.opts))
    cli.main(words)
    assert seen.opts == ["A.B", "1", "C.D", "-2"]


def test_a_missing_config_is_named(capsys):
    assert cli.main(["model-info", "--config-file", "nowhere.yaml"]) == 2
    assert capsys.readouterr().err.startswith("dynpose: error: nowhere.yaml: no such config file")
