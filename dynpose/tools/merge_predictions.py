"""Join the shards that several processes of dynpose predict have written to one folder.

    dynpose merge-predictions OUTPUT [--json] [--parquet]

OUTPUT gets predictions.jsonl, in the format of a run of one process. Results are read and written one image at a time.
Shards that are missing or have ended early are listed; start them again with --resume, and merge again.

Exit codes: 0 = all shards are there and complete; 1 = some are not, and the others are joined; 2 = invalid input, such
as shards of two models, or results that can't be written. docs/clusters.md has the details.
"""

import argparse
import sys
from pathlib import Path

NAME = "merge-predictions"
HELP = "join the files of several processes of predict"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.add_argument("folder", metavar="OUTPUT", type=Path, help="the --output of dynpose predict")
    parser.add_argument("--json", action="store_true", help="also write predictions.json")
    parser.add_argument(
        "--parquet", action="store_true", help="also write predictions.parquet, with a row per image or frame"
    )


def run(args: argparse.Namespace) -> int:
    """Merge; see the module for the exit code."""
    from dynpose.config import ConfigError
    from dynpose.engine.shard_merging import merge_shards
    from dynpose.utils.printing import counted

    if not args.folder.is_dir():
        raise ConfigError(f"{args.folder}: no such folder; give the --output of dynpose predict")
    merged = merge_shards(args.folder, whole_json=args.json, parquet=args.parquet)
    there = merged.count - len(merged.missing)
    videos = f"{counted(merged.frames, 'frame')} of {counted(merged.videos, 'video')}, " if merged.frames else ""
    print(
        f"{there} of {counted(merged.count, 'shard')}, {counted(merged.images, 'image')}, {videos}{merged.people} "
        f"people, {counted(merged.skipped, 'file')} skipped: {args.folder / 'predictions.jsonl'}"
    )
    for shards, what in ((merged.missing, "missing"), (merged.incomplete, "incomplete")):
        if shards:
            listed = ", ".join(map(str, shards[:20])) + (f" and {len(shards) - 20} more" if len(shards) > 20 else "")
            again = f"--shard {shards[0]}/{merged.count} --resume"
            number = counted(len(shards), "shard")
            print(f"{number} {what}: {listed}; predict them with {again}", file=sys.stderr)
    if merged.damaged:
        print(f"{counted(merged.damaged, 'damaged line')} skipped: their images are missing", file=sys.stderr)
    return 1 if merged.missing or merged.incomplete or merged.damaged else 0
