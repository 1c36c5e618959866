"""A part of the report: torch.profiler's profile of the slowest fused kernel.

It is the case of the operator that is farthest from its floor, as the parts before have measured it; without their
figures the first case.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from dynpose.benchmark.kp_net.case import FUSED, REFERENCE, KPNetCase
from dynpose.benchmark.kp_net.run import kp_net_benchmarks
from dynpose.benchmark.report import figure, join, table
from dynpose.benchmark.settings import Settings, choose_device, environment
from dynpose.layers import triton_support

from .figures import combined_kp_net

_CALLS = 10
_MOST_ROWS = 20


def slowest_case(folder: Path) -> KPNetCase:
    """Choose the case whose fused kernel is farthest from the floor."""
    report, benchmarks = combined_kp_net(folder), kp_net_benchmarks()
    rows = [row for row in report["cases"] if _part_of_floor(row)] if report else []
    if not rows:
        method, benchmark = next(iter(benchmarks.items()))
        size = tuple(report["cases"][0]["map_size"]) if report else (100, 167)
        return KPNetCase(method, benchmark.channels, num_instances=100 if size == (100, 167) else 2, map_size=size)
    row = min(rows, key=_part_of_floor)
    channels, training = benchmarks[row["method"]].channels, row["mode"] == "training"
    return KPNetCase(row["method"], channels, row["instances"], training, tuple(row["map_size"]))


def _part_of_floor(row):
    return row["implementations"].get(FUSED, {}).get("part_of_floor")


def profiled(case: KPNetCase, name: str, device: torch.device, trace: Path) -> list[dict[str, Any]]:
    """Profile calls of an implementation, and write their trace for chrome://tracing.

    Returns:
        A row for each kernel, the longest first: ``kernel``, ``calls`` and ``us`` of one call of the operator; on a CPU
        the operators of PyTorch instead.
    """
    on_gpu = device.type == "cuda"
    inputs = case.make_inputs(device, 0)
    case.run(name, inputs)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as recorded:
        for _ in range(_CALLS):
            case.run(name, inputs)
        if on_gpu:
            torch.cuda.synchronize(device)
    recorded.export_chrome_trace(str(trace))
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = sorted(recorded.key_averages(), key=lambda event: -getattr(event, key))
    return [
        {"kernel": event.key, "calls": event.count / _CALLS, "us": getattr(event, key) / _CALLS}
        for event in events[:_MOST_ROWS]
        if getattr(event, key) > 0
    ]


def compiled_kernels() -> list[dict[str, Any]]:
    """List the compiled forms of the operator's kernels in this process, with their registers and shared memory."""
    if triton_support.triton is None or triton_support.interprets():
        return []
    from dynpose.layers.kp_net import kernels

    rows = []
    for name, function in vars(kernels).items():
        for cache, *_ in getattr(function, "device_caches", {}).values():
            # one for each tried block size
            rows += [_compiled(name, kernel) for kernel in cache.values() if getattr(kernel, "n_regs", None)]
    return rows


def _compiled(name, kernel):
    metadata = kernel.metadata
    return {
        "kernel": name,
        "registers": kernel.n_regs,
        "spilled": kernel.n_spills,
        "shared memory, KiB": metadata.shared / 1024,
        "warps": metadata.num_warps,
        "stages": metadata.num_stages,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of the report")
    args = parser.parse_args(argv)
    device, case = choose_device(args.device), slowest_case(args.output)
    name = FUSED if device.type == "cuda" else REFERENCE
    with Settings(device, tf32=device.type == "cuda").applied():
        rows = profiled(case, name, device, args.output / "slowest_kernel.trace.json.gz")
        kernels = compiled_kernels()
        report = {
            "environment": environment(device),
            "case": case.name,
            "instances": case.num_instances,
            "implementation": name,
            "kernels": rows,
            "compiled": kernels,
        }
    (args.output / "slowest_kernel.json").write_text(json.dumps(report, indent=2) + "\n")
    print(
        join(
            table(f"{case.name}, N = {case.num_instances}, {name}: time of one call", _texts(rows), "github"),
            table("Compiled kernels, of all block sizes that were tried", _texts(kernels), "github"),
            "The trace is for chrome://tracing or ui.perfetto.dev.",
        )
    )


def _texts(rows):
    return [{key: value if isinstance(value, str) else figure(value) for key, value in row.items()} for row in rows]


if __name__ == "__main__":
    main()
