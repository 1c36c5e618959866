"""Images of many shapes one by one, and in batches.

Synthetic people on images of some shapes, in mixed order, go through PosePredictor one by one and by its predict_all,
which reads ahead for images that can share a batch; resizing is part of the time, reading files is not. Both must find
the same: people whose keypoints differ by more than 1e-3 pixel, or scores by more than 1e-4, make the exit code 1.

Time: medians of the rounds, in each of which both ways run once. CPU seconds are those of all threads, and depend less
on what else the machine does. docs/benchmarks.md describes it all precisely.
"""
