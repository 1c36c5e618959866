"""Lay out an exported ONNX file for Triton Inference Server: ``<repository>/<name>/config.pbtxt`` and the file.

    python model_repository.py pose.onnx models --name pose --max-batch 8
    tritonserver --model-repository models

Names and shapes are the file's. The parameter ``dynpose`` of the configuration has the file's description of keypoints
and inputs, for clients: they resize, pad and map back as :class:`dynpose.runtime.Pose` does.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import onnxruntime

TYPES = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64"}


def write_repository(file: Path, repository: Path, name: str, max_batch: int) -> Path:
    """Write a model's folder.

    Args:
        file: of `dynpose export`.
        repository: folder of Triton's models.
        name: of the model.
        max_batch: most images that Triton joins to a batch; a file of fixed batch size takes no others.

    Returns:
        The path of the configuration.
    """
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    folder = repository / name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, folder / "1" / "model.onnx")
    for weights in file.parent.glob(f"{file.name}.data"):
        # the file refers to its weights by name
        shutil.copyfile(weights, folder / "1" / weights.name)
    (folder / "config.pbtxt").write_text(config(session, name, max_batch))
    return folder / "config.pbtxt"


def config(session: onnxruntime.InferenceSession, name: str, max_batch: int) -> str:
    """The text of ``config.pbtxt``.

    Raises:
        SystemExit: the file is no dynpose export.
    """
    described = session.get_modelmeta().custom_metadata_map.get("dynpose")
    if described is None:
        raise SystemExit("it is not a dynpose export: write one with dynpose export")
    batched = not isinstance(session.get_inputs()[0].shape[0], int)
    blocks = [
        f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: {max_batch if batched else 0}',
        *(f"input [ {tensor(each, batched)} ]" for each in session.get_inputs()),
        *(f"output [ {tensor(each, batched)} ]" for each in session.get_outputs()),
        f'parameters [ {{ key: "dynpose" value {{ string_value: {json.dumps(described)} }} }} ]',
    ]
    if batched:
        # images of one padded size share a batch
        blocks.append("dynamic_batching { max_queue_delay_microseconds: 2000 }")
    return "\n".join(blocks) + "\n"


def tensor(value: Any, batched: bool) -> str:
    """An input or output; without the axis of the batch if Triton adds it."""
    sides = [side if isinstance(side, int) else -1 for side in value.shape][1 if batched else 0 :]
    # Triton has no tensors without axes: clients see one number for each image
    shape = f"dims: {sides}" if sides else "dims: [1] reshape { shape: [] }"
    return f'{{ name: "{value.name}" data_type: {TYPES[value.type]} {shape} }}'


def main() -> None:
    """Read the arguments and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="an .onnx file of `dynpose export`")
    parser.add_argument("repository", type=Path, help="folder of Triton's models")
    parser.add_argument("--name", default="pose", help="of the model, default %(default)s")
    parser.add_argument("--max-batch", type=int, default=8, help="images in a batch, default %(default)s")
    args = parser.parse_args()
    print(write_repository(args.file, args.repository, args.name, args.max_batch))


if __name__ == "__main__":
    main()
