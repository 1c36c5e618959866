"""A part of the report: the device, its driver and the versions."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dynpose.benchmark.settings import choose_device, environment
from dynpose.utils.environment import versions

_PACKAGES = ("torchvision", "detectron2", "timm", "numpy")
_DRIVER = ("driver_version", "clocks.max.sm", "clocks.max.memory", "power.limit")


def describe(device: torch.device) -> dict[str, Any]:
    """Describe a device: ``environment`` as in the benchmarks, ``packages``, ``properties`` of a GPU and ``driver``."""
    return {
        "environment": environment(device),
        "packages": versions(_PACKAGES),
        "properties": _properties(device) if device.type == "cuda" else {},
        "driver": _driver(device) if device.type == "cuda" else {},
    }


def _properties(device):
    found = torch.cuda.get_device_properties(device)
    return {
        "compute capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "memory, GiB": round(found.total_memory / 2**30, 1),
        "L2 cache, MiB": round(getattr(found, "L2_cache_size", 0) / 2**20, 1),
    }


def _driver(device):
    """Ask nvidia-smi, if it is there."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_DRIVER)}", "--format=csv,noheader", f"--id={device.index}"]
    if not shutil.which(command[0]):
        return {}
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    values = done.stdout.strip().split(", ")
    return dict(zip(_DRIVER, values)) if done.returncode == 0 and len(values) == len(_DRIVER) else {}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args(argv)
    found = describe(choose_device(args.device))
    args.json.write_text(json.dumps(found, indent=2) + "\n")
    flat = {key: value for group in found.values() for key, value in group.items() if value is not None}
    print("\n".join(f"- {key}: {value}" for key, value in flat.items()))


if __name__ == "__main__":
    main()
