"""Results of three images and a video, with two people of three keypoints."""

NAMES = ("nose", "left_eye", "right_eye")
# COCO's indices: the corner's coordinates are half a pixel more
CAT = {
    "category": 1,
    "category_name": "chat <é> 猫",
    "bbox": [10.0, 20.0, 30.0, 40.0],
    "score": 0.9,
    "keypoints": [[19.5, 29.5, 0.8], [24.5, 39.5, 0.01], [-3.0, 30.0, 0.7]],
}
DOG = {
    "category": 0,
    "category_name": "dog",
    "bbox": [-10.0, 60.0, 50.0, 60.0],
    "score": 0.2,
    "keypoints": [[0.5, 80.25, 0.5], [99.0, 70.0, 0.5], [50.0, 60.0, 0.4]],
}


def image(name, *people, **more):
    return {"file_name": name, "width": 200, "height": 100, "instances": list(people), "not_finite": 0, **more}


ENTRIES = (image("a/x.jpg", CAT, DOG), image("b/x.png", DOG), image("b/empty.jpg"))
VIDEO = tuple(image("clip.mp4", {**CAT, "track_id": 7}, frame=frame, time=frame / 25) for frame in (0, 4))
