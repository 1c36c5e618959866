"""The disk space of the checkpoints of each config in megabytes, as the table of docs/training.md. By hand:

    python tests/engine/disk_use.py

A model is built from each config, without weights. Its file of weights has its state, a numbered checkpoint that and
the optimizer's: one number for each learned parameter with SGD, two with Adam and AdamW. SOLVER.EMA adds the weights
once more. What else is in there, some hundred kilobytes, is not counted.
"""

import itertools
import logging
from pathlib import Path

from detectron2.modeling import build_model

from dynpose import modeling  # noqa: F401  registers the meta-architectures
from dynpose.config import load_config

# Numbers of the optimizer's state for each learned one
_STATES = {"SGD": 1, "ADAM": 2, "ADAMW": 2}


def sizes(config_file):
    """Bytes of the weights and of a numbered checkpoint, and how many of these a run keeps."""
    cfg = load_config(str(config_file))
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    model = build_model(cfg)
    weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    learned = sum(4 * parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return weights, weights + _STATES[cfg.SOLVER.OPTIMIZER] * learned, cfg.SOLVER.CHECKPOINTS_KEPT


def main():
    """Print the table, configs of the same sizes in one row."""
    rows = []
    for folder in ("FCPose", "InsPose", "CID", "QueryPose"):
        for path in sorted(Path("configs", folder).glob("*.yaml")):
            if not path.name.startswith("Base"):
                rows.append((folder, path.stem, *sizes(path)))
    rows.sort(key=lambda row: (row[0], row[2], row[3]))
    print("| configs | weights alone | a numbered checkpoint | a run |")
    print("|---|---|---|---|")
    for (folder, weights, numbered, kept), group in itertools.groupby(
        rows, key=lambda row: (row[0], round(row[2] / 1e6), round(row[3] / 1e6), row[4])
    ):
        names = ", ".join(name for _, name, *_ in group)
        print(f"| {folder}: {names} | {weights:,} | {numbered:,} | {kept * numbered + weights:,} |")


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
