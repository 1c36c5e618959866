#!/usr/bin/env bash
# Convert projects that the annotation tools themselves write, and let the tools read what dynpose writes: `dynpose
# convert-data` against sleap-io, DeepLabCut's tables of pandas, Label Studio's converter, labelme and Ultralytics.
# Not part of the tests: it installs about 1 GB of tools. PYTHON is the interpreter of an environment with dynpose.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
# dynpose, PyTorch and detectron2 are those of PYTHON
"$python" -c 'import sys; print(*filter(None, sys.path), sep="\n")' > "$work/dynpose.pth"
cp "$work/dynpose.pth" "$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dynpose.pth"
"$work/venv/bin/pip" install --quiet sleap-io==0.9.5 ultralytics==8.4.190 label-studio-sdk==2.1.2 labelme==6.3.1 pandas tables
cd "$work"
YOLO_CONFIG_DIR=$work QT_QPA_PLATFORM=offscreen "$work/venv/bin/python" "$here/round_trips.py"
