"""Loading the annotation of a data set, and checking its image files.

An annotation with COCO's fields, people at random positions, and empty image files are written to a temporary folder.
These readers are timed, each followed by detectron2's filters for training:

    detectron2             load_coco_json, which trusts the file
    dynpose, first start   load_pose_json, which checks every item, with nothing cached (DYNPOSE_CACHE is empty)
    dynpose, second start  the same again: the file is unchanged, and its content is cached

The check of small JPEG files is timed likewise, at a first and at a second start. The readers must return the same
people for training; otherwise the exit code is 1.

Time: medians of the rounds, in each of which every reader runs once, in a fresh process. CPU seconds are those of all
threads, and depend less on other load of the machine. Memory: the peak beyond the memory of the process before.
docs/benchmarks.md has the details.
"""
