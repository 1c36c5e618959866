"""What figures depend on, for their table's header and file. No path is part of it."""

from __future__ import annotations

import datetime
import platform
import subprocess
from pathlib import Path

import torch

import dynpose
from dynpose.layers import triton_support


def describe(device: torch.device) -> dict:
    """Describe the software and the machine; call it under the settings that are measured.

    Returns:
        Versions (None for what is not there), the commit of the source where it is known, the device, the threads.
    """
    on_gpu = device.type == "cuda"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "dynpose": dynpose.__version__,
        "commit": commit(Path(dynpose.__file__).parent),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton_support.triton.__version__ if triton_support.triton else None,
        "cuda": torch.version.cuda if on_gpu else None,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "device": torch.cuda.get_device_name(device) if on_gpu else _cpu_name(),
        "cpu_threads": torch.get_num_threads(),
    }


def commit(folder: Path) -> str | None:
    """Give the commit that a package's folder is at, with "+" behind it where files differ from it.

    Returns:
        None where the folder is not under git. That includes an installed package that lies within the working tree of
        something else.
    """
    tracked = _git(folder, "ls-files", "--error-unmatch", "__init__.py")
    head = _git(folder, "rev-parse", "--short=12", "HEAD")
    if tracked is None or head is None:
        return None
    return head + ("+" if _git(folder, "status", "--porcelain", "--", ".") else "")


def _git(folder, *arguments):
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
