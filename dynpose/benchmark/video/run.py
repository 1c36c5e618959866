"""One run of `dynpose benchmark video`."""

from __future__ import annotations

import itertools
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from dynpose.benchmark.settings import Settings, choose_device, environment
from dynpose.data.sources import Source
from dynpose.engine.file_prediction import PictureFolder
from dynpose.engine.prediction_record import PredictionRecord
from dynpose.engine.video_prediction import VideoOptions, predict_video
from dynpose.video import VideoReader

from .case import KnownPeople, seconds_of, write_video

# The frame after which the memory no longer grows
SETTLED = 50


def measure(args: Namespace) -> dict[str, Any]:
    """Run the measurement.

    Args:
        args: of the command.

    Returns:
        The report: ``environment``, ``settings`` and ``video``, the figures.

    Raises:
        ConfigError: the config is invalid.
        CheckpointError: the weights do not fit the model.
    """
    device = choose_device(args.device)
    with Settings(device, threads=args.threads).applied(), tempfile.TemporaryDirectory() as folder:
        size = tuple(args.size)
        predictor = KnownPeople.build(args.config_file, args.weights, args.opts, device, args.people, size)
        video = Path(folder, "in.mp4")
        write_video(video, args.frames, size)
        return {
            "environment": environment(device),
            "settings": {"frames": args.frames, "size": size, "people": args.people, "config": args.config_file},
            "video": _measure(predictor, video, args.frames),
        }


def _measure(predictor, video, frames):
    with predictor.injected():
        _model_alone(predictor, video, 0, min(5, frames))  # warm-up
        first = _model_alone(predictor, video, 0, frames // 2)
        predictor.count = 0
        predictor.memory.clear()
        whole = _end_to_end(predictor, video)
        memory = dict(predictor.memory)
        second = _model_alone(predictor, video, frames // 2, frames)
    alone = [sum(pair) for pair in zip(first, second)]
    settled = memory[min(SETTLED, frames)]
    return {
        "model_wall_s": alone[0],
        "model_cpu_s": alone[1],
        "video_wall_s": whole[0],
        "video_cpu_s": whole[1],
        "wall_ratio": whole[0] / alone[0],
        "cpu_ratio": whole[1] / alone[1],
        "resident_settled": settled[0],
        "peak_settled": settled[1],
        "resident_end": memory[frames][0],
        "peak_end": memory[frames][1],
    }


def _model_alone(predictor, video, start, end):
    """Wall-clock and CPU seconds of the model on some frames."""
    wall = cpu = 0.0
    for frame in itertools.islice(VideoReader(video), start, end):
        inputs = predictor.prepare(frame.image)
        seconds = seconds_of(lambda inputs=inputs: predictor.infer([inputs]))
        wall, cpu = wall + seconds[0], cpu + seconds[1]
    print(f"the model alone, frames {start} to {end}: {wall:.1f} s", file=sys.stderr, flush=True)
    return wall, cpu


def _end_to_end(predictor, video):
    """Wall-clock and CPU seconds of what `dynpose predict --track` does with the video."""
    output = video.with_name("out")
    output.mkdir()
    info = {"keypoint_names": list(predictor.schema.names), "category_names": []}
    made_with = {"weights": {"sha256": "0"}, "config": {}}
    pictures = PictureFolder(output, predictor.schema, score_threshold=0.3)
    source = Source(video.name, video, "video")
    with PredictionRecord(output, info, made_with) as record:
        options = VideoOptions(track=True)
        seconds = seconds_of(lambda: predict_video(predictor, source, record, options, pictures=pictures))
    print(f"end to end: {seconds[0]:.1f} s", file=sys.stderr, flush=True)
    return seconds
