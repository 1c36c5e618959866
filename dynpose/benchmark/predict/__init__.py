"""Prediction of images of many shapes one by one, and in batches.

PosePredictor processes images of several shapes with synthetic people, in mixed order, one by one and with predict_all,
which reads ahead for images that can share a batch; the time includes resizing, but not reading files. Both must agree:
the exit code is 1 if keypoints differ by more than 1e-3 pixel or scores by more than 1e-4.

Time: medians of the rounds, in each of which both run once. CPU seconds are those of all threads, and depend less on
other load of the machine.

With --processes N it instead times dynpose predict on a folder of such images, in one process and in N processes with a
shard each: from the start of the commands to their end, and without the time until all have loaded their models. The
exit code is 1 if the merged results have other people than those of the one process.

docs/benchmarks.md has the details.
"""
