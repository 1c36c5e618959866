#!/usr/bin/env bash
# Guess: LabelInterface.validate_task says whether a task with pre-annotations fits the labelling config.
# Seen (label-studio-sdk 2.1.2): it says so for a task without any. With predictions, or annotations, that are valid by
# validate_prediction, it raises a TypeError about a missing argument, whatever they hold.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet label-studio-sdk==2.1.2
"$work/venv/bin/python" - <<'PYTHON'
from label_studio_sdk.label_interface import LabelInterface

interface = LabelInterface(
    '<View><Image name="image" value="$image"/>'
    '<RectangleLabels name="box" toName="image"><Label value="person"/></RectangleLabels></View>'
)
value = {"x": 1, "y": 1, "width": 10, "height": 10, "rotation": 0, "rectanglelabels": ["person"]}
region = {"id": "a", "from_name": "box", "to_name": "image", "type": "rectanglelabels", "value": value}
region |= {"original_width": 100, "original_height": 100}
prediction = {"result": [region], "score": 0.5, "model_version": "1"}
data = {"image": "street.jpg"}
assert interface.validate_prediction(prediction)
assert interface.validate_task({"data": data})
for key, content in (("predictions", prediction), ("annotations", {"result": [region]})):
    try:
        interface.validate_task({"data": data, key: [content]})
    except TypeError as error:
        print(f"a task with {key}: TypeError: {error}")
    else:
        raise SystemExit(f"a task with {key} is validated now")
PYTHON
