"""The comparisons of round_trips.sh, which installs the tools. Each part fails at the first difference."""

import contextlib
import io
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

from dynpose.tools import cli

NAMES = ["nose", "right_ear", "left_ear", "tail"]
SIZE = (640, 360)
HALF = np.array([0.5, 0.5, 0])


def main() -> None:
    """Run all parts in the current folder."""
    rng = np.random.default_rng(7)
    for index in range(4):
        Path("images").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)).save(f"images/{index}.png")
    for part in (sleap, sleap_video, deeplabcut, label_studio, labelme, ultralytics):
        part(rng)


def convert(*words: object) -> str:
    """Run `dynpose convert-data`, which must succeed, and return what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = cli.main(["convert-data", *map(str, words)])
    assert code == 0, words
    return printed.getvalue()


def people(file: str) -> dict[str, list[np.ndarray]]:
    """File name -> (K, 3) keypoints of its people."""
    data = json.loads(Path(file).read_text())
    names = {image["id"]: image["file_name"] for image in data["images"]}
    found: dict[str, list[np.ndarray]] = {name: [] for name in names.values()}
    for item in data["annotations"]:
        found[names[item["image_id"]]].append(np.reshape(item["keypoints"], (-1, 3)))
    return found


def random_people(rng: np.random.Generator, count: int, visibilities: tuple[int, ...] = (0, 1, 2)) -> list[np.ndarray]:
    """(K, 3) keypoints in COCO's coordinates; the last one is labelled."""
    found = []
    for _ in range(count):
        points = np.column_stack([rng.uniform(1, SIZE[0] - 2, 4), rng.uniform(1, SIZE[1] - 2, 4)])
        seen = rng.choice(visibilities, 4)
        seen[-1] = 2
        found.append(np.column_stack([np.where(seen[:, None] > 0, points, 0), seen]))
    return found


def report(tool: str, number: int, difference: float) -> None:
    """Print the result of a part."""
    print(f"{tool} {version(tool)}: {number} people, names equal, largest difference {difference:.1e} pixels")


def labels_of(sleap_io: object, video: object, frames: dict[int, list[np.ndarray]]) -> object:
    """sleap-io's Labels with tracks."""
    skeleton = sleap_io.Skeleton(  # type: ignore[attr-defined]
        nodes=list(NAMES), edges=[("nose", "tail")], symmetries=[("left_ear", "right_ear")], name="mouse"
    )
    tracks = [sleap_io.Track(f"t{i}") for i in range(3)]  # type: ignore[attr-defined]
    labelled = []
    for index, rows in frames.items():
        instances = []
        for row, track in zip(rows, tracks):
            points = np.where(row[:, 2:] > 0, row[:, :2], np.nan)
            instance = sleap_io.Instance.from_numpy(points, skeleton=skeleton, track=track)  # type: ignore[attr-defined]
            instance.points["visible"] = row[:, 2] == 2
            instances.append(instance)
        labelled.append(
            sleap_io.LabeledFrame(video=video, frame_idx=index, instances=instances)  # type: ignore[attr-defined]
        )
    return sleap_io.Labels(labelled)  # type: ignore[attr-defined]


def sleap(rng: np.random.Generator) -> None:
    """Labels on image files, and the same in a package that holds the images: exact."""
    import sleap_io

    video = sleap_io.Video.from_filename([str(Path(f"images/{i}.png").absolute()) for i in range(4)])
    frames = {index: random_people(rng, 3) for index in (2, 0, 3)}
    labels = labels_of(sleap_io, video, frames)
    labels.save("mouse.slp", verbose=False)  # type: ignore[attr-defined]
    labels.save("mouse.pkg.slp", embed="user", verbose=False)  # type: ignore[attr-defined]
    for name, where in (("mouse.slp", "{}.png"), ("mouse.pkg.slp", "mouse.pkg/mouse.pkg_0/{:06d}.png")):
        convert(name, "--output", "sleap.json")
        data, found = json.loads(Path("sleap.json").read_text()), people("sleap.json")
        assert data["categories"][0]["keypoints"] == NAMES
        assert data["categories"][0]["skeleton"] == [[1, 4]]
        assert data["categories"][0]["flip_pairs"] == [["left_ear", "right_ear"]]
        assert sorted(found) == sorted(where.format(index) for index in frames)
        for index, rows in frames.items():
            np.testing.assert_array_equal(found[where.format(index)], rows)
        by_id = {track["id"]: track["name"] for track in data["tracks"]}
        assert [by_id[item["track_id"]] for item in data["annotations"]] == ["t0", "t1", "t2"] * 3
    for index in frames:
        extracted = Image.open(f"sleap_images/mouse.pkg/mouse.pkg_0/{index:06d}.png")
        np.testing.assert_array_equal(np.asarray(extracted), np.asarray(Image.open(f"images/{index}.png")))
    report("sleap-io", 18, 0)


def sleap_video(rng: np.random.Generator) -> None:
    """The frame of a video file is the one of that number: its grey value tells."""
    import imageio
    import sleap_io

    with imageio.get_writer("v.mp4", fps=10, macro_block_size=1) as writer:
        for index in range(12):
            writer.append_data(np.full((SIZE[1], SIZE[0], 3), 20 * index, np.uint8))
    video = sleap_io.Video.from_filename(str(Path("v.mp4").absolute()))
    labels_of(sleap_io, video, {i: random_people(rng, 1) for i in (9, 4)}).save(  # type: ignore[attr-defined]
        "video.slp", verbose=False
    )
    convert("video.slp", "--output", "video.json")
    for index in (4, 9):
        mean = np.asarray(Image.open(f"video_images/video/v_0/{index:06d}.png")).mean()
        assert abs(mean - 20 * index) < 4, (index, mean)
    print("sleap-io: frames 4 and 9 of a video are extracted")


def deeplabcut(rng: np.random.Generator) -> None:
    """CollectedData as DeepLabCut writes it with pandas, as CSV and as HDF5, one animal and several: exact."""
    import pandas

    folder = Path("dlc/labeled-data/vid")
    folder.mkdir(parents=True)
    names = ["img2.png", "img0.png"]
    for name in names:
        Image.new("RGB", SIZE).save(folder / name)
    for individuals in ([], ["m1", "m2"]):
        rows = [random_people(rng, max(len(individuals), 1), (0, 2)) for _ in names]
        levels = [["me"], *([individuals] if individuals else []), NAMES, ["x", "y"]]
        titles = ["scorer", *(["individuals"] if individuals else []), "bodyparts", "coords"]
        columns = pandas.MultiIndex.from_product(levels, names=titles)
        values = [np.concatenate([np.where(row[:, 2:] > 0, row[:, :2], np.nan) for row in row_]) for row_ in rows]
        index = pandas.MultiIndex.from_tuples([("labeled-data", "vid", name) for name in names])
        table = pandas.DataFrame([value.ravel() for value in values], index=index, columns=columns)
        file = folder / "CollectedData_me"
        table.to_csv(f"{file}.csv")
        table.to_hdf(f"{file}.h5", key="df_with_missing", mode="w")
        for suffix in ("csv", "h5"):
            convert(f"{file}.{suffix}", "--output", "dlc.json")
            found = people("dlc.json")
            assert json.loads(Path("dlc.json").read_text())["categories"][0]["keypoints"] == NAMES
            for name, row in zip(names, rows):
                np.testing.assert_array_equal(found[name], row)
    report("pandas", 12, 0)


def label_studio(rng: np.random.Generator) -> None:
    """A task's JSON, against Label Studio's own export to YOLO of it, which keeps people and order."""
    from label_studio_sdk.converter import Converter

    labels = "".join(f'<Label value="{name}" model_index="{i}"/>' for i, name in enumerate(NAMES))
    config = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image"><Label value="mouse"/>'
        f'</RectangleLabels><KeyPointLabels name="points" toName="image">{labels}</KeyPointLabels></View>'
    )
    rows, results = random_people(rng, 3, (2,)), []
    for i, row in enumerate(rows):
        low, high = row[:, :2].min(axis=0), row[:, :2].max(axis=0)
        box = {"width": (high - low)[0] * 100 / SIZE[0], "height": (high - low)[1] * 100 / SIZE[1], "rotation": 0}
        results.append(_region(f"r{i}", "box", "rectanglelabels", low, rectanglelabels=["mouse"], **box))
        for name, point in zip(NAMES, row + HALF):
            region = _region(f"{name}{i}", "points", "keypointlabels", point, width=1, keypointlabels=[name])
            results.append(region | {"parentID": f"r{i}"})
    task = {"id": 1, "data": {"image": "/data/upload/1/0.png"}}
    task["annotations"] = [{"id": 1, "completed_by": 1, "was_cancelled": False, "result": results}]
    Path("tasks.json").write_text(json.dumps([task]))
    convert("tasks.json", "--output", "studio.json", "--keypoints", *NAMES)
    (found,) = people("studio.json").values()
    Converter(config, ".", download_resources=False).convert_to_yolo("tasks.json", "studio_yolo", is_dir=False)
    (labels_file,) = Path("studio_yolo/labels").glob("*.txt")
    theirs = [np.array(line.split()[5:], float).reshape(-1, 3) for line in labels_file.read_text().splitlines()]
    difference = 0.0
    for mine, row, other in zip(found, rows, theirs, strict=True):
        difference = max(difference, np.abs(mine - row).max())
        difference = max(difference, np.abs(other * (*SIZE, 1) - HALF - mine).max())
    assert difference < 1e-3
    report("label-studio-sdk", len(rows), difference)


def _region(region_id: str, name: str, kind: str, point: np.ndarray, **value: object) -> dict:
    position = {"x": 100 * point[0] / SIZE[0], "y": 100 * point[1] / SIZE[1]}
    size = {"original_width": SIZE[0], "original_height": SIZE[1], "image_rotation": 0}
    return {"id": region_id, "from_name": name, "to_name": "image", "type": kind, **size, "value": position | value}


def labelme(rng: np.random.Generator) -> None:
    """A file that labelme's own class writes."""
    from labelme._label_file import LabelFile

    rows = random_people(rng, 3, (0, 2))
    shapes = [
        {"label": name, "points": [(point[:2] + 0.5).tolist()], "group_id": i, "shape_type": "point", "flags": {}}
        for i, row in enumerate(rows)
        for name, point in zip(NAMES, row)
        if point[2] > 0
    ]
    for shape in shapes:
        shape |= {"description": "", "mask": None}
    arguments = {"image_path": "1.png", "image_height": SIZE[1], "image_width": SIZE[0], "image_data": None}
    LabelFile().save(filename="images/1.json", shapes=shapes, **arguments, other_data={}, flags={})
    convert("images/1.json", "--output", "labelme.json", "--keypoints", *NAMES)
    (found,) = people("labelme.json").values()
    difference = max(np.abs(mine - row).max() for mine, row in zip(found, rows, strict=True))
    assert difference < 1e-9
    report("labelme", len(rows), difference)


def ultralytics(rng: np.random.Generator) -> None:
    """What dynpose writes, read by Ultralytics' own check and data set; and back to COCO."""
    from ultralytics.data.utils import check_det_dataset, img2label_paths, verify_image_label

    convert("mouse.slp", "--output", "before.json")
    for visibility, words in ((3, []), (2, ["--no-visibility"])):
        output = Path(f"yolo{visibility}")
        convert("mouse.slp", "--to", "yolo-pose", "--output", output, *words)
        data = check_det_dataset(str(output / "data.yaml"), autodownload=False)
        assert data["kpt_shape"] == [len(NAMES), visibility]
        assert data["flip_idx"] == [0, 2, 1, 3]
        assert data["kpt_names"] == {0: NAMES}
        difference, number = 0.0, 0
        for name, rows in people("before.json").items():
            image = next(Path(data["train"]).rglob(name))
            (labels,) = img2label_paths([str(image)])
            arguments = (str(image), labels, "", True, len(data["names"]), len(NAMES), visibility, False)
            _, boxes, shape, _, keypoints, missing, found, empty, corrupt, message = verify_image_label(arguments)
            assert (missing, found, empty, corrupt, message) == (0, 1, 0, 0, ""), message
            assert shape == SIZE[::-1]
            assert len(boxes) == len(keypoints) == len(rows)
            # the check sorts people by class, box and keypoints where some are equal, and keeps the order otherwise
            for mine, other in zip(rows, keypoints):
                labelled = mine[:, 2] > 0
                places = other[labelled, :2].astype(float) * SIZE - 0.5
                difference = max(difference, np.abs(places - mine[labelled, :2]).max())
                if visibility == 3:
                    np.testing.assert_array_equal(other[:, 2], mine[:, 2])
            number += len(rows)
        # Ultralytics keeps float32
        assert difference < 1e-4
        report("ultralytics", number, difference)
    convert("yolo3", "--output", "after.json")
    before, after = (json.loads(Path(f"{name}.json").read_text()) for name in ("before", "after"))
    assert before["categories"] == after["categories"]
    for (name, rows), (other_name, others) in zip(
        sorted(people("before.json").items()), sorted(people("after.json").items())
    ):
        assert Path(name).name == Path(other_name).name
        np.testing.assert_allclose(rows, others, atol=1e-5)


if __name__ == "__main__":
    main()
