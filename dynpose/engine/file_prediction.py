"""Prediction on image files: results are recorded as they are found, pictures drawn, and what fails is listed."""

import sys
from contextlib import suppress

from PIL import Image
from tqdm import tqdm

from dynpose.data.image_files import frames_note
from dynpose.data.image_reading import read_image
from dynpose.utils import draw_poses
from dynpose.utils.finite import finite_instances

from .prediction_record import to_instances, to_records
from .predictor import PosePredictor

__all__ = ["FilePredictor", "PictureFolder"]


class FilePredictor(PosePredictor):
    """Finds the people in image files, and records them.

    Args:
        cfg (CfgNode): see :class:`~dynpose.engine.PosePredictor`.
    """

    _run = None

    def predict_files(self, images, record, *, batch_size=1, pictures=None):
        """Predict the images that are not in a record yet, and add them to it.

        An image's results are added as soon as they are computed, and its picture is there before. What can't be read
        is added as skipped and reported; a picture that can't be written is reported, and noted in the results.

        Args:
            images (list[tuple[str, Path]]): names and files, see :func:`~dynpose.data.image_files.find_images`.
            record (PredictionRecord): takes the results.
            batch_size (int): most images in a forward pass.
            pictures (PictureFolder | None): None = no pictures. Those of images in the record are drawn where they are
                missing.

        Raises:
            OSError: the record can't be written.
        """
        done = [image for image in images if record.has(*image)]
        names = {name for name, _ in done}
        left = [image for image in images if image[0] not in names]
        with tqdm(total=len(images), unit="image", desc="predict", disable=None) as progress:
            self._run = _Run(self, record, pictures, progress)
            try:
                self._run.draw_missing(done)
                for _ in self.infer_all(self._run.prepared(left), batch_size):
                    pass
            finally:
                self._run = None

    def infer(self, inputs):
        """Find the people in some prepared images, and record them where they are of :meth:`predict_files`.

        infer_all calls this before older images of other shapes have their batch: what is computed is not held back.
        """
        results = super().infer(inputs)
        if self._run is not None:
            for one, instances in zip(inputs, results):
                self._run.add(one, instances.to("cpu"))
        return results


class _Run:
    """The images of one call of predict_files, on their way into the record."""

    def __init__(self, predictor, record, pictures, progress):
        self.prepare = predictor.prepare
        self.category_names = predictor.metadata.get("thing_classes") or ()
        self.record = record
        self.pictures = pictures
        self.progress = progress

    def prepared(self, images):
        """Read images; gives the inputs of the model, with ``name``, ``path`` and ``note``."""
        for name, path in images:
            try:
                inputs = {**self.prepare(path), "name": name, "path": path, "note": frames_note(path)}
            except Exception as error:
                # Pillow raises OSError, SyntaxError, ValueError and more for files that are not quite images
                reason = _in_a_line(error)
                self.record.add_skipped(name, reason, is_failure=True)
                self.report(f"skipped {path}: {reason}")
                self.progress.update()
            else:
                yield inputs

    def add(self, inputs, instances):
        """Draw and record what was found in an image."""
        finite = finite_instances(instances)
        entry = {
            "file_name": inputs["name"],
            "width": inputs["width"],
            "height": inputs["height"],
            "instances": to_records(instances[finite], self.category_names),
            "not_finite": int((~finite).sum()),
            **({"note": inputs["note"]} if inputs["note"] else {}),
        }
        self.record.add_image(self.with_picture(entry, inputs["path"]), inputs["path"])
        self.progress.update()

    def draw_missing(self, images):
        """Draw images of the record that have no picture."""
        for name, path in images:
            if self.pictures and (self.record.lacks_picture(name) or not self.pictures.has(name)):
                (entry,) = self.record.entries([name])
                error = entry.pop("picture_error", None)
                drawn = self.with_picture(entry, path)
                if drawn.get("picture_error") != error:
                    self.record.add_image(drawn, path)
            self.progress.update()

    def with_picture(self, entry, path):
        """Draw an image's picture; gives the entry, with the reason if that fails."""
        if self.pictures is None:
            return entry
        try:
            self.pictures.draw(entry, path)
        except Exception as error:  # encoders raise various errors too
            reason = _in_a_line(error)
            self.report(f"no picture of {path}: {reason}")
            return {**entry, "picture_error": reason}
        return entry

    def report(self, line):
        """Say something beside the progress bar."""
        self.progress.write(line, file=sys.stderr)


class PictureFolder:
    """Pictures of images with the people that were found in them.

    Args:
        folder (Path)
        schema (KeypointSchema)
        score_threshold (float): people below are not drawn.
    """

    def __init__(self, folder, schema, score_threshold):
        self.folder = folder
        self.schema = schema
        self.score_threshold = score_threshold

    def has(self, name):
        """Whether the picture of an image is there."""
        return (self.folder / name).is_file()

    def draw(self, entry, path):
        """Write the picture of an image, in the format of the image; what fails leaves none.

        Args:
            entry (dict): results, see :meth:`~dynpose.engine.prediction_record.PredictionRecord.add_image`.
            path (Path): the image, which is read again, since to hold images in full size for a batch takes memory.

        Raises:
            Exception: the image can't be read any more, or the picture can't be written.
        """
        image = read_image({"file_name": str(path)}, "RGB")
        instances = to_instances(entry, self.schema.num_keypoints)
        drawn = draw_poses(image, instances, self.schema, score_threshold=self.score_threshold)
        target = self.folder / entry["file_name"]
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            Image.fromarray(drawn).save(target, quality=92)
        except BaseException:
            with suppress(OSError):
                target.unlink()
            raise


def _in_a_line(error):
    """Why an image is skipped, without its name where the error tells the two apart."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    fault = getattr(error, "fault", None)
    text = " ".join((fault.reason if fault else str(error)).split())
    return text if isinstance(error, (OSError, ValueError)) and text else f"{type(error).__name__}: {text}"
