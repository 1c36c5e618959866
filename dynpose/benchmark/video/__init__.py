"""Prediction of a video from end to end, against the model alone.

Writes a video of synthetic people, and predicts it as dynpose predict does with --track: decoding, resizing, the model,
the tracker, the records, drawing, and encoding. The model alone runs on the same frames, which are prepared
outside of the measured time: one half of them before, and the other half after it. The network runs as it is, with
injected detections; people at their places, of a keypoint confidence of 1, replace its results, so that all are drawn.

Time: wall-clock and CPU seconds of all threads. Memory: the resident memory and its peak after frame 50 and at the end.
docs/benchmarks.md has the details.
"""
