"""Models over the number of people in the image.

For every config, and for detectron2's own Keypoint R-CNN (R-50-FPN) as their peer: parameters, GFLOPs, and the time
and the memory of one image with 1, 2, 5, 10, 20, 50 and 100 people. No weights and no data are needed: detections
are injected into the predictions, so that the whole network runs and exactly so many people come out.

Time: the median of many rounds, in each of which every model runs once, from the image on the device until its poses
are there. Memory: what is held at the peak beyond weights and image. docs/benchmarks.md describes it all precisely.
"""
