#!/usr/bin/env bash
# Guess: sleap_io.Skeleton(nodes=names) copies the list of names.
# Seen (sleap-io 0.9.5): it keeps the list and replaces the names in it by Node objects. The same list, used afterwards for a
# second skeleton, as the columns of a table or as a COCO category's keypoints, no longer holds text; a second skeleton
# shares its nodes with the first.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet sleap-io==0.9.5
"$work/venv/bin/python" - <<'PYTHON'
import sleap_io

names = ["nose", "tail"]
first = sleap_io.Skeleton(nodes=names)
print("the caller's list afterwards:", names)
second = sleap_io.Skeleton(nodes=names)
second.nodes[0].name = "snout"
print("names of the first skeleton after a node of the second is renamed:", [node.name for node in first.nodes])
assert [type(name).__name__ for name in names] == ["Node", "Node"]
assert [node.name for node in first.nodes] == ["snout", "tail"]
PYTHON
