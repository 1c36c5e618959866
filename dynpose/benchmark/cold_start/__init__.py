"""From the start of Python to the first pose: an exported file against PosePredictor.

A fresh process imports the package, loads the model and predicts the people of one image; with dynpose.runtime.Pose for
an exported file, and with PosePredictor in float32 for the checkpoint that it was made from. Both get the same image
file. Time: from the start of the process to its result, median of the rounds, in each of which both run once. Memory:
the highest resident memory of the process (VmHWM of Linux).

The exit code is 1 if the two find other people: another number, keypoints that differ by more than 0.1 pixel (the
median), or scores by more than 1e-4.
"""
