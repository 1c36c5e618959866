"""Prediction on videos, animations, cameras and streams: records each frame, and writes the video with the poses.

The result video is written in one pass over the frames: a resumed run decodes the video from its beginning, takes the
recorded frames from the record, predicts the others, and writes all of them. Tracks are computed anew from the recorded
people too. Both are therefore the same whether or not a run was interrupted.
"""

from __future__ import annotations

import itertools
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from dynpose.data.schema import DatasetError
from dynpose.data.sources import Source
from dynpose.tracking import PoseTracker
from dynpose.utils.finite import finite_instances
from dynpose.video import BrokenFrame, Frame, VideoReader, VideoWriter, in_background, open_video

from .file_prediction import PictureFolder, RecordingPredictor, in_a_line
from .prediction_record import Key, PredictionRecord, to_instances, to_records
from .show import Window

__all__ = ["VideoOptions", "predict_video", "result_name", "video_keys"]

# Drawn frames that wait for the encoder
_FRAMES_BEHIND = 4


@dataclass(frozen=True)
class VideoOptions:
    """How videos are predicted.

    Attributes:
        stride, max_frames: see :class:`~dynpose.video.FrameSource`.
        track (bool): give people identities.
        batch_size (int): maximum number of frames in a forward pass.
    """

    stride: int = 1
    max_frames: int | None = None
    track: bool = False
    batch_size: int = 1


def result_name(name: str) -> str:
    """The name of the result of a video or an animation, which is an MP4 file."""
    return name if name.lower().endswith(".mp4") else f"{name}.mp4"


def video_keys(record: PredictionRecord, video: Source, options: VideoOptions) -> list[Key]:
    """The keys of a video's recorded frames that the options select, in their order."""
    limit = float("inf") if options.max_frames is None else options.stride * options.max_frames
    frames = record.frames(video.name, video.location)
    return [(video.name, index) for index in frames if index % options.stride == 0 and index < limit]


def predict_video(
    predictor: RecordingPredictor,
    video: Source,
    record: PredictionRecord,
    options: VideoOptions,
    *,
    pictures: PictureFolder | None = None,
    window: Window | None = None,
) -> None:
    """Predict the frames of a video that are not yet in a record, and add them.

    A frame's results are added as soon as they are computed. Frames are decoded and prepared in one thread, and drawn
    and encoded in another one, while the model runs. A frame that can't be decoded is added as skipped and reported,
    and so is a video that can't be opened. The result video is made as a whole, see the module; its failure is noted in
    the record's description of the video.

    A live source ends when it is interrupted from the keyboard; its result video is then complete.

    Args:
        predictor (RecordingPredictor)
        video (Source): of a kind other than "image".
        record (PredictionRecord): takes the results.
        options (VideoOptions)
        pictures (PictureFolder | None): takes the result video; None, or without a folder, no video is written.
        window (Window | None): shows the frames.

    Raises:
        OSError: the record can't be written.
    """
    if _is_done(video, record, options, pictures):
        record.keep_skipped(video.name)
        return
    try:
        source = open_video(video.location, video.kind, options.stride, options.max_frames)
    except (DatasetError, OSError) as error:
        record.add_skipped(video.name, in_a_line(error), is_failure=True)
        print(f"skipped {video.location}: {in_a_line(error)}", file=sys.stderr)
        return
    with tqdm(total=source.expected_frames, unit="frame", desc=video.name, disable=None) as progress:
        run = _Run(predictor, video, record, options, source, progress)
        sink = _Sink(pictures, window, video, source)
        run.predict(sink)
        run.finish(sink)


class _Run:
    """The state of one call of predict_video."""

    def __init__(self, predictor, video, record, options, source, progress):
        self.predictor = predictor
        self.name = video.name
        self.path = video.location
        self.record = record
        self.options = options
        self.source = source
        self.progress = progress
        self.category_names = predictor.metadata.get("thing_classes") or ()
        self.tracker = PoseTracker(predictor.schema.sigmas) if options.track else None
        self.frames = 0
        self.size = None
        self.end = 0.0

    def predict(self, sink):
        """Predict, record and draw all frames."""
        try:
            with closing(self._prepared()) as prepared:
                for chunk in _chunks(prepared, self.options.batch_size):
                    for frame, entry in self._entries(chunk):
                        sink.add(frame, entry)
                        self.progress.update()
            sink.close(whole_sound=self.source.is_whole)
        except KeyboardInterrupt:
            if not self.source.is_live:
                sink.discard()
                raise
            sink.close(whole_sound=False)
        except BaseException:
            # what a live source has shown can't be written again
            sink.close(whole_sound=False) if self.source.is_live else sink.discard()
            raise

    def _prepared(self):
        """Yield frames with their model inputs, None for recorded frames."""
        prepared = _map_closing(self._with_inputs, iter(self.source))
        # a live source has a thread already, and being ahead of it is a delay; of others, a batch and one ahead of it
        return prepared if self.source.is_live else in_background(prepared, ahead=2 * self.options.batch_size)

    def _with_inputs(self, frame):
        if isinstance(frame, BrokenFrame) or self.record.has((self.name, frame.index), self.path):
            return frame, None
        try:
            return frame, self.predictor.prepare(frame.image)
        except Exception as error:  # as for images: the model may refuse their size
            return BrokenFrame(frame.index, frame.time, in_a_line(error)), None

    def _entries(self, chunk):
        """Yield the frames of a chunk with their results."""
        inputs = [inputs for _, inputs in chunk if inputs is not None]
        people = self.predictor.infer_all(inputs, self.options.batch_size) if inputs else iter(())
        for frame, inputs in chunk:
            if isinstance(frame, BrokenFrame):
                self.record.add_skipped(self.name, frame.reason, True, frame.index, round(frame.time, 6))
                self._report(f"skipped frame {frame.index} of {self.name} ({frame.time:.3f} s): {frame.reason}")
                self.progress.update()
                continue
            if inputs is None:
                (recorded,) = self.record.entries([(self.name, frame.index)])
                entry = self._tracked(recorded, frame)
            else:
                recorded = None
                entry = self._tracked(self._entry(frame, next(people)[1]), frame)
            if entry != recorded:
                self.record.add_image(entry, self.path)
            self.frames += 1
            self.size = self.size or (entry["width"], entry["height"])
            self.end = frame.time + (frame.duration or 0.0)
            yield frame, entry

    def _entry(self, frame, instances):
        instances = instances.to("cpu")
        finite = finite_instances(instances)
        height, width = frame.image.shape[:2]
        return {
            "file_name": self.name,
            "frame": frame.index,
            "time": round(frame.time, 6),
            "width": width,
            "height": height,
            "instances": to_records(instances[finite], self.category_names),
            "not_finite": int((~finite).sum()),
        }

    def _tracked(self, entry, frame):
        """The entry with identities, which replace those of an earlier run.

        The tracker gets the numbers of the record, so that a resumed run computes the same identities.
        """
        people = [{key: value for key, value in person.items() if key != "track_id"} for person in entry["instances"]]
        entry = {**entry, "instances": people}
        if self.tracker is None:
            return entry
        instances = to_instances(entry, self.predictor.schema.num_keypoints)
        ids = self.tracker.update(instances, frame.time).tolist()
        tracked = [{**person, "track_id": id_} if id_ >= 0 else person for person, id_ in zip(people, ids)]
        return {**entry, "instances": tracked}

    def finish(self, sink):
        """Record what is known of the video."""
        if self.source.cut_off is not None:
            self._report(f"{self.name}: {self.source.cut_off}")
        for problem in (sink.problem, sink.sound_problem):
            if problem is not None:
                self._report(f"{self.name}: {problem}")
        if not self.frames:
            self.record.add_skipped(self.name, self.source.cut_off or "it has no frame that can be decoded", True)
        width, height = self.size or (0, 0)
        video = {
            "file_name": self.name,
            "width": width,
            "height": height,
            "frames": self.frames,
            "seconds": round(self.end, 6),
            "frame_rate": self.source.frame_rate,
            **_settings(self.options),
            **({"cut_off": self.source.cut_off} if self.source.cut_off else {}),
            **({"result": sink.name} if sink.is_written else {}),
            **({"picture_error": sink.problem} if sink.problem else {}),
            **({"sound_error": sink.sound_problem} if sink.sound_problem else {}),
        }
        self.record.add_video(video, self.path)

    def _report(self, line):
        """Print a line without disturbing the progress bar."""
        self.progress.write(line, file=sys.stderr)


class _Sink:
    """Draws frames, and writes and shows them, in a thread behind the model; showing needs the main thread."""

    def __init__(self, pictures, window, video, source):
        self.pictures = pictures
        self.window = window
        self.name = result_name(video.name)
        self.problem: str | None = None
        self.is_written = False
        self._drawing: deque[Future[np.ndarray | None]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="dynpose-behind")
        self._writer: VideoWriter | None = None
        if pictures is not None and pictures.folder is not None:
            target = pictures.folder / self.name
            sound = source.path if isinstance(source, VideoReader) and source.has_sound and not source.is_live else None
            self._writer = VideoWriter(target, source.frame_rate, sound)
            # an earlier result is not the one of this run, should it be killed
            if target.is_file():
                target.unlink()

    @property
    def sound_problem(self) -> str | None:
        problem = self._writer and self._writer.sound_problem
        return f"the sound is missing or incomplete: {problem}" if problem else None

    def add(self, frame: Frame, entry: dict[str, Any]) -> None:
        """Draw a frame; waits while too many are not drawn yet."""
        if self.pictures is None:
            return
        self._drawing.append(self._pool.submit(self._draw, frame, entry))
        while len(self._drawing) > _FRAMES_BEHIND or (self._drawing and self._drawing[0].done()):
            self._show_next()

    def close(self, whole_sound: bool) -> None:
        """Complete the result."""
        while self._drawing:
            self._drawing.popleft().result()
        self._pool.shutdown()
        if self._writer is not None and self.problem is None:
            self._guarded(lambda: self._writer.close(whole_sound))
            self.is_written = self.problem is None and self._writer.path.is_file()

    def discard(self) -> None:
        """Delete the unfinished result."""
        self._pool.shutdown(cancel_futures=True)
        if self._writer is not None:
            self._writer.discard()

    def _show_next(self):
        drawn = self._drawing.popleft().result()
        if self.window is not None and drawn is not None:
            self.window.show(drawn)

    def _draw(self, frame, entry):
        is_written = self._writer is not None and self.problem is None
        if not is_written and self.window is None:
            return None
        drawn = self.pictures.drawn(entry, frame.image[:, :, ::-1])
        if is_written:
            self._guarded(lambda: self._writer.write(drawn, frame.time, frame.duration))
        return drawn

    def _guarded(self, write):
        """A video that can't be written costs no results."""
        try:
            write()
        except Exception as error:  # encoders raise various errors
            self.problem = f"the result video can't be written ({in_a_line(error)})"
            self._writer.discard()


def _is_done(video, record, options, pictures):
    """Whether an earlier run with the same settings has recorded the whole video and written its result."""
    known = record.video(video.name, video.location)
    if (
        known is None
        or {**known, **_settings(options)} != known
        or known["frames"] != len(video_keys(record, video, options))
    ):
        return False
    if pictures is None or pictures.folder is None:
        return True
    return "picture_error" not in known and pictures.has(result_name(video.name))


def _settings(options):
    return {"stride": options.stride, "max_frames": options.max_frames, "track": options.track}


def _map_closing(function, items):
    """map() as a generator that closes its items with itself."""
    with closing(items):
        yield from map(function, items)


def _chunks(items, size):
    while chunk := list(itertools.islice(items, size)):
        yield chunk
