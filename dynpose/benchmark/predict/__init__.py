"""Prediction of images of many shapes one by one, and in batches.

PosePredictor processes images of several shapes with synthetic people, in mixed order, one by one and with predict_all,
which reads ahead for images that can share a batch; the time includes resizing, but not reading files. Both must agree:
the exit code is 1 if keypoints differ by more than 1e-3 pixel or scores by more than 1e-4.

Time: medians of the rounds, in each of which both run once. CPU seconds are those of all threads, and depend less on
other load of the machine. docs/benchmarks.md has the details.
"""
