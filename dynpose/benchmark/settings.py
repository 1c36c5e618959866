"""The settings that all implementations, models or configs of a run are measured under, and the environment."""

from __future__ import annotations

import contextlib
import datetime
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from dynpose.layers import triton_support
from dynpose.utils.environment import git_state, versions

# rounds that are timed by default
_ROUNDS = {"cuda": 50, "cpu": 7}


@dataclass(frozen=True)
class Settings:
    """What the arguments of a command set.

    Attributes:
        device: to run on.
        dtype: of the inputs.
        tf32: whether float32 factors may be rounded to TF32.
        cudnn_benchmark: whether cuDNN tries its algorithms.
        deterministic: whether the same inputs must give the same bits.
        threads: of the CPU; None leaves them.
        rounds: number that are timed.
    """

    device: torch.device
    dtype: torch.dtype
    tf32: bool
    cudnn_benchmark: bool
    deterministic: bool
    threads: int | None
    rounds: int

    @classmethod
    def from_args(cls, args, dtype: torch.dtype = torch.float32) -> Settings:
        """Read the arguments of a command."""
        device = choose_device(args.device)
        return cls(
            device=device,
            dtype=dtype,
            tf32=args.tf32 and device.type == "cuda" and dtype == torch.float32,
            cudnn_benchmark=args.cudnn_benchmark,
            deterministic=getattr(args, "deterministic", False),
            threads=args.threads,
            rounds=args.repeats or _ROUNDS["cuda" if device.type == "cuda" else "cpu"],
        )

    def applied(self):
        """Give a context manager that sets PyTorch up like this."""
        return torch_settings(
            self.device,
            threads=self.threads,
            tf32=self.tf32,
            cudnn_benchmark=self.cudnn_benchmark,
            deterministic=self.deterministic,
        )

    def report(self) -> dict:
        """Give the plain values for a report; the environment holds the threads."""
        return {
            "device": self.device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
            "tf32": self.tf32,
            "cudnn_benchmark": self.cudnn_benchmark,
            "deterministic": self.deterministic,
            "rounds": self.rounds,
        }


def choose_device(name: str | None) -> torch.device:
    """Give the device of a name, or the GPU where there is one; a GPU with its index."""
    device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return device


@contextlib.contextmanager
def torch_settings(
    device: torch.device,
    *,
    threads: int | None = None,
    tf32: bool = False,
    cudnn_benchmark: bool = False,
    deterministic: bool = False,
):
    """Set what everything runs under while entered.

    Args:
        device: if a GPU, it becomes the current one.
        threads: of the CPU; None leaves them.
        tf32: whether float32 factors may be rounded to TF32, in matrix products and in convolutions.
        cudnn_benchmark: whether cuDNN tries its algorithms.
        deterministic: whether the same inputs must give the same bits. Where an operation cannot, it warns and runs.
    """
    with contextlib.ExitStack() as after:
        for backend in (torch.backends.cuda.matmul, torch.backends.cudnn):
            after.callback(setattr, backend, "allow_tf32", backend.allow_tf32)
            backend.allow_tf32 = tf32
        after.callback(setattr, torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
        torch.backends.cudnn.benchmark = cudnn_benchmark
        after.callback(
            torch.use_deterministic_algorithms,
            torch.are_deterministic_algorithms_enabled(),
            warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        after.callback(torch.set_num_threads, torch.get_num_threads())
        if threads:
            torch.set_num_threads(threads)
        if device.type == "cuda":
            after.enter_context(torch.cuda.device(device))
        yield


def environment(device: torch.device) -> dict:
    """Describe the software and the machine; call it under the settings that are measured.

    Returns:
        Versions (None for what is not there), the commit of the source where it is known, with "+" behind it where
        files differ from it, the device and the threads.
    """
    on_gpu, state = device.type == "cuda", git_state()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        **versions(),
        "triton": triton_support.triton.__version__ if triton_support.triton else None,
        "commit": state and state["commit"][:12] + "+" * state["dirty"],
        "cuda": torch.version.cuda if on_gpu else None,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "device": torch.cuda.get_device_name(device) if on_gpu else _cpu_name(),
        "cpu_threads": torch.get_num_threads(),
    }


def _cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
