"""One run of `dynpose benchmark model`, and the report that it ends in: a dict of plain values, without a path."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from dynpose.profiling.flops import count_parameters

from .environment import describe
from .measuring import ROUNDS, choose_device, make_wall_clock, measure, quartiles, torch_settings
from .models import PEER_NAME, BuiltModels, ModelCase, load_models
from .parts import time_parts


def measure_models(args) -> dict:
    """Measure what the arguments ask for.

    Args:
        args: of the command.

    Returns:
        The report: ``environment``, ``settings``, ``models`` (a row each, with the sizes), ``cases`` (a row for each
        number of people, with the figures of all models), ``peer`` (its name, or None) and ``notes``.

    Raises:
        ConfigError: if a config is wrong, a model can't be given people, or so many do not fit into the image.
        CheckpointError: if weights do not fit.
    """
    models = load_models(args.config_file or (), args.weights or (), args.opts, peer=args.peer)
    device = choose_device(args.device)
    image_size = tuple(args.size)
    numbers = sorted(set(args.people))
    rounds = args.repeats or ROUNDS["cuda" if device.type == "cuda" else "cpu"]
    tf32 = args.tf32 and device.type == "cuda"
    with torch_settings(device, threads=args.threads, tf32=tf32, cudnn_benchmark=args.cudnn_benchmark):
        built = BuiltModels(models, device, image_size)
        rows = [_model_row(model, built, numbers) for model in models]
        cases = [_case_row(ModelCase(built, number, image_size), device, rounds, args.parts) for number in numbers]
        return {
            "environment": describe(device),
            "settings": {
                "device": device.type,
                "dtype": "float32",
                "tf32": tf32,
                "cudnn_benchmark": args.cudnn_benchmark,
                "deterministic": False,
                "rounds": rounds,
                "image_size": list(image_size),
                "opts": [Path(word).name for word in args.opts],  # a value may be a path
            },
            "models": rows,
            "cases": cases,
            "peer": PEER_NAME if args.peer else None,
            "notes": _notes(models, cases),
        }


def _model_row(model, built, numbers):
    network = built[model.name]
    flops = built.count_flops(model.name, [0, *numbers])
    tensors = [*network.parameters(), *network.buffers()]
    print(f"{model.name}: {flops[0] / 1e9:.1f} GFLOPs without people", file=sys.stderr, flush=True)
    return {
        "model": model.name,
        "meta_architecture": model.cfg.MODEL.META_ARCHITECTURE,
        "weights": "given" if model.weights else "random",
        "parameters": sum(total for total, _ in count_parameters(network).values()),
        "weights_mib": sum(tensor.nbytes for tensor in tensors) / 2**20,
        "gflops": {str(number): value / 1e9 for number, value in flops.items()},
    }


def _case_row(case, device, rounds, with_parts):
    measurements = measure(case, case.models.names(), device, make_wall_clock(device), rounds)
    contestants = {}
    for name, measurement in measurements.items():
        measured = measurement.seconds and not measurement.note
        contestants[name] = {
            "note": measurement.note,
            "rounds": len(measurement.seconds) if measured else None,
            "ms": 1000 * statistics.median(measurement.seconds) if measured else None,
            "ms_quartiles": [1000 * x for x in quartiles(measurement.seconds)] if measured else None,
            "mib": None if measurement.num_bytes is None else measurement.num_bytes / 2**20,
            "people_found": sorted(case.people_found[name]),
            "parts_ms": _parts(case, name, device, rounds) if with_parts and measured else {},
        }
    row = {"people": case.num_people, "contestants": contestants}
    print(_progress(row), file=sys.stderr, flush=True)
    return row


def _parts(case, name, device, rounds):
    inputs = case.make_inputs(device, 0)
    model = case.models.with_people(name, case.num_people)
    seconds = time_parts(model, lambda: case.run(name, inputs), device, rounds)
    return {part: 1000 * value for part, value in seconds.items()}


def _notes(models, cases):
    """Name the models that detected another number of people than were injected."""
    limits = {model.name: model.detection_limit_key for model in models}
    return [
        f"{name}: of {row['people']} people that were injected, "
        f"{' or '.join(str(number) for number in contestant['people_found'])} came out. The model itself limits them"
        + (f": look at its {limits[name]}" if limits[name] else "")
        for row in cases
        for name, contestant in row["contestants"].items()
        if contestant["people_found"] not in ([], [row["people"]])
    ]


def _progress(row):
    times = (
        f"{name} {contestant['note'] or '{:.3f} ms'.format(contestant['ms'])}"
        for name, contestant in row["contestants"].items()
    )
    return f"{row['people']} people: {', '.join(times)}"
