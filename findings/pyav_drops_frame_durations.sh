#!/usr/bin/env bash
# Guess: a video whose frames are encoded with their times and durations plays each frame for its duration, the last too.
# Seen (PyAV 18.1.0): the encoder hands the durations of the frames on to no packet. The times of later frames hide this,
# but the last frame lasts as long as the stream's rate says: three frames of 0.1, 0.1 and 0.5 seconds give a video of 0.3
# seconds. A GIF with a long last frame, converted so, ends early.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
from fractions import Fraction

import av
import numpy as np

MILLISECOND = Fraction(1, 1000)
durations = [100, 100, 500]
with av.open("video.mp4", "w") as output:
    stream = output.add_stream("libx264", rate=10)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = MILLISECOND
    for i, duration in enumerate(durations):
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 60 * i, np.uint8), format="rgb24")
        frame.pts, frame.duration, frame.time_base = sum(durations[:i]), duration, MILLISECOND
        output.mux(stream.encode(frame))
    output.mux(stream.encode())
with av.open("video.mp4") as video:
    length = float(video.streams.video[0].duration * video.streams.video[0].time_base)
    shown = [float(frame.duration * frame.time_base) for frame in video.decode(video=0)]
print("encoded seconds:", [d / 1000 for d in durations], "- read back:", shown, "- length of the stream:", length)
assert shown == [0.1, 0.1, 0.1]
assert length == 0.3
PYTHON
