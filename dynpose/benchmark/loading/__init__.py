"""Loading the annotation of a data set, and checking its image files.

An annotation with COCO's fields, people at random positions, and empty image files are written to a temporary folder.
These readers are timed, each with detectron2's filters for training behind it:

    detectron2             load_coco_json, which trusts the file
    dynpose, first start   load_pose_json, which checks every item, with nothing cached (DYNPOSE_CACHE is empty)
    dynpose, second start  the same again: the file has not changed, and its content is cached

So is the check of small JPEG files, at a first and at a second start. The readers must give training the same people;
one that does not makes the exit code 1.

Time: medians of the rounds, in each of which every reader runs once, in a fresh process. CPU seconds are those
of all threads, and depend less on what else the machine does. Memory: what is held at the peak beyond what the process
held before. docs/benchmarks.md describes it all precisely.
"""
