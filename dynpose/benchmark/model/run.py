"""One run of `dynpose benchmark model`."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

from dynpose.benchmark.configs import PEER_NAME, without_folders
from dynpose.benchmark.measure import measure as measure_case
from dynpose.benchmark.measure import progress
from dynpose.benchmark.settings import Settings, environment
from dynpose.engine.fast_inference import resolve_precision
from dynpose.profiling.flops import count_parameters

from .alternatives import compare_parts, compared_parts
from .case import BuiltModels, ModelCase, load_models
from .parts import time_parts


def measure(args: Namespace) -> dict[str, Any]:
    """Run the measurements that the arguments select.

    Args:
        args: of the command.

    Returns:
        The report: ``environment``, ``settings``, ``models`` (a row each, with the sizes), ``cases`` (a row for each
        number of people, with the figures of all models), ``parts`` (of :func:`~.alternatives.compare_parts`), ``peer``
        (its name, or None), ``optimized`` (the name of the model by that of its optimized copy) and ``notes``.

    Raises:
        ConfigError: a config is invalid, detections can't be injected into a model, the people do not fit into the
            image, or alternatives are requested and no model has any.
        CheckpointError: weights do not fit.
    """
    optimized = {"precisions": args.precision, "compile": args.compile}
    models = load_models(args.config_file or (), args.weights or (), args.opts, peer=args.peer, **optimized)
    parts = compared_parts(models) if args.alternatives else {}
    settings, image_size, numbers = Settings.from_args(args), tuple(args.size), sorted(set(args.people))
    with settings.applied():
        built = BuiltModels(models, settings.device, image_size)
        rows = [_model_row(model, built, numbers if args.flops else None) for model in models]
        cases = [_case_row(ModelCase(built, number, image_size), settings, args.parts) for number in numbers]
        return {
            "environment": environment(settings.device),
            "settings": {
                **settings.report(),
                "image_size": list(image_size),
                "opts": without_folders(args.opts),
            },
            "models": rows,
            "cases": cases,
            "parts": compare_parts(parts, built, numbers, image_size, settings),
            "peer": PEER_NAME if args.peer else None,
            "optimized": {
                model.optimized(precision, args.compile).name: model.name
                for model in models
                if not model.precision
                for precision in args.precision
            },
            "notes": _notes(models, cases),
        }


def _model_row(model, built, numbers):
    network = built[model.name]
    flops = {} if numbers is None else built.count_flops(model.name, [0, *numbers])
    tensors = [*network.parameters(), *network.buffers()]
    counted = f"{flops[0] / 1e9:.1f} GFLOPs without people" if flops else "built"
    print(f"{model.name}: {counted}", file=sys.stderr, flush=True)
    return {
        "model": model.name,
        "meta_architecture": model.cfg.MODEL.META_ARCHITECTURE,
        "weights": "given" if model.weights else "random",
        "precision": _precision(model, network.device),
        "parameters": sum(total for total, _ in count_parameters(network).values()),
        "weights_mib": sum(tensor.nbytes for tensor in tensors) / 2**20,
        "gflops": {str(number): value / 1e9 for number, value in flops.items()},
    }


def _precision(model, device):
    if model.precision != "auto":
        return model.precision or "as trained"
    return f"auto: {resolve_precision('auto', device, model.architecture)}"


def _case_row(case, settings, with_parts):
    device, rounds = settings.device, settings.rounds
    measurements = measure_case(case, case.models.names(), device, settings.make_clock(), rounds)
    models = {}
    for name, measurement in measurements.items():
        models[name] = {
            **measurement.figures(),
            "people_found": sorted(case.people_found[name]),
            "parts_ms": _parts(case, name, settings) if with_parts and measurement.median else {},
        }
    times = ", ".join(progress(*each) for each in models.items())
    print(f"{case.num_people} people: {times}", file=sys.stderr, flush=True)
    return {"people": case.num_people, "models": models}


def _parts(case, name, settings):
    inputs = case.make_inputs(settings.device, 0)
    model = case.models.with_people(name, case.num_people)
    seconds = time_parts(model, lambda: case.run(name, inputs), settings.make_clock(), settings.rounds)
    return {part: 1000 * value for part, value in seconds.items()}


def _notes(models, cases):
    """Name the models that detected another number of people than were injected."""
    limits = {model.name: model.detection_limit_key for model in models}
    return [
        f"{name}: of {row['people']} injected people, "
        f"{' or '.join(str(number) for number in figures['people_found'])} were detected. The model limits their number"
        + (f": check {limits[name]}" if limits[name] else "")
        for row in cases
        for name, figures in row["models"].items()
        if figures["people_found"] not in ([], [row["people"]])
    ]
