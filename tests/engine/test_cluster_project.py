"""The batch script and the submitit launcher, with stand-ins for SLURM's commands and for submitit."""

import importlib.util
import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

from dynpose.config import ConfigError

SCRIPT = "projects/cluster/train.sbatch"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder with commands srun and scontrol, which note their arguments in files; srun ends with SRUN_CODE."""
    for name, last in (("srun", 'exit "$SRUN_CODE"'), ("scontrol", "")):
        command = tmp_path / name
        command.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" "$@" > "{tmp_path}/{name}.txt"\n{last}\n')
        command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    return tmp_path


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (75, True)])
def test_the_batch_script(slurm, monkeypatch, code, requeued):
    monkeypatch.setenv("SRUN_CODE", str(code))
    words = ["--config-file", "a file.yaml", "OUTPUT_DIR", "runs/first"]
    assert subprocess.run(["bash", SCRIPT, *words], check=False).returncode == code
    called = (slurm / "srun.txt").read_text().splitlines()
    assert called[-7:] == ["python", "train_net.py", "--resume", *words]
    assert (slurm / "scontrol.txt").exists() is requeued
    if requeued:
        assert (slurm / "scontrol.txt").read_text().split() == ["requeue", "77"]


@pytest.fixture
def project():
    spec = importlib.util.spec_from_file_location("cluster_submit", "projects/cluster/submit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def submitit(monkeypatch):
    """A substitute for submitit 1.5 that records its calls."""

    class AutoExecutor:
        def __init__(self, folder, cluster):
            seen.update(folder=str(folder), cluster=cluster)

        def update_parameters(self, **parameters):
            seen.update(parameters=parameters)

        def submit(self, function):
            seen.update(function=function)
            return SimpleNamespace(job_id="77")

    seen = {}
    module = ModuleType("submitit")
    module.AutoExecutor = AutoExecutor
    monkeypatch.setitem(sys.modules, "submitit", module)
    return seen


WORDS = ["--config-file", "configs/FCPose/R_50_3x.yaml", "OUTPUT_DIR", "/shared/first"]


def test_submitit_arguments(project, submitit):
    assert project.submit(WORDS, nodes=2, gpus_per_node=4, hours=1.5, partition="gpu").job_id == "77"
    assert (submitit["folder"], submitit["cluster"]) == ("/shared/first/submitit", "slurm")
    assert submitit["parameters"] == {
        "name": "dynpose",
        "nodes": 2,
        "tasks_per_node": 4,
        "gpus_per_node": 4,
        "cpus_per_task": 8,
        "timeout_min": 90,
        "slurm_partition": "gpu",
        "slurm_additional_parameters": {"requeue": True, "signal": "USR1@300"},
    }
    assert submitit["function"].words == WORDS


def test_a_fault_in_the_config_is_found_before_the_queue(project, submitit):
    with pytest.raises(ConfigError, match=r"unknown config key SOLVER\.BASE_RL"):
        project.submit([*WORDS, "SOLVER.BASE_RL", "1"])
    assert not submitit


def test_without_submitit(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"submitit is not installed: pip install 'dynpose\[slurm\]'"):
        project.submit(WORDS)


@pytest.mark.parametrize(("code", "task", "requeued"), [(75, "0", True), (75, "1", False), (1, "0", False)])
def test_a_task_of_submitit(project, slurm, monkeypatch, code, task, requeued):
    seen = []

    def end(main, args):
        seen.append(args)
        raise SystemExit(code)

    monkeypatch.setattr(project, "launch", end)
    monkeypatch.setenv("SLURM_PROCID", task)
    with pytest.raises(SystemExit) as raised:
        project.Training(WORDS)()
    assert raised.value.code == code
    assert seen[0].resume
    assert seen[0].opts == WORDS[2:]
    assert (slurm / "scontrol.txt").exists() is requeued


def test_the_command_line(project, submitit, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["submit.py", "--nodes", "3", "--", *WORDS])
    monkeypatch.setattr(project, "submit", lambda words, **options: seen.update(words=words, options=options) or JOB)
    seen = {}
    project._main()
    assert seen["words"] == WORDS
    assert seen["options"]["nodes"] == 3


JOB = SimpleNamespace(job_id="77", paths=SimpleNamespace(folder="/shared/first/submitit"))
