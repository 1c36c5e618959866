"""Models over the number of people in the image.

For every config, and for detectron2's Keypoint R-CNN (R-50-FPN) as their peer: parameters, GFLOPs, and the time and
memory of one image with 1, 2, 5, 10, 20, 50 and 100 people. No weights and no data are needed: detections are injected
into the predictions, so that the whole network runs and outputs exactly that number of people.

Time: the median of many rounds, in each of which every model runs once, from the image on the device to the finished
poses. Memory: the peak beyond weights and image. docs/benchmarks.md has the details.
"""
