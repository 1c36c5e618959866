"""The runtime in a process where PyTorch, detectron2 and what comes with them can't be imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dynpose.video import VideoWriter

ROOT = Path(__file__).parents[2]
BLOCKED = (
    *("torch", "torchvision", "detectron2", "fvcore", "iopath", "pycocotools", "timm", "omegaconf", "yacs"),
    *("matplotlib", "yaml", "onnx", "safetensors", "tqdm"),
)
PROGRAM = f"""
import sys
sys.modules.update(dict.fromkeys({BLOCKED!r}))
import dynpose.runtime
slow = {{"cv2", "av", "scipy", "onnxruntime", "openvino", "dynpose.video", "dynpose.tracking"}} & set(sys.modules)
assert not slow, slow
from dynpose.runtime import Pose
file, image, video = sys.argv[1:]
pose = Pose(file)
assert len(pose(image)) == 2
assert "cv2" not in sys.modules
from dynpose.tracking import PoseTracker
tracker = PoseTracker(pose.schema.sigmas)
for frame, people in pose.predict_video(video, tracker=tracker):
    print(frame.index, people.track_ids.tolist())
heavy = [name for name in {BLOCKED!r} if sys.modules.get(name) is not None]
assert not heavy, heavy
"""


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_images_videos_and_tracking(kind, exported, openvino_file, photo, photo_file, tmp_path):
    with VideoWriter(tmp_path / "two.mp4", 10.0) as writer:
        for index in range(2):
            writer.write(photo, index / 10, 1 / 10)
    file = exported if kind == "onnx" else openvino_file
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(file), str(photo_file), str(tmp_path / "two.mp4")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == ["0 [1, 2]", "1 [1, 2]"], done.stderr


INTERRUPTED = """
import signal
import sys
from dynpose.runtime import Pose
first, second = Pose(sys.argv[1]), Pose(sys.argv[1])
del first
del second
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_after_two_openvino_files(openvino_file):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(openvino_file)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
