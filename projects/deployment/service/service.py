"""An HTTP service that finds people: POST an image, get JSON. It needs dynpose.runtime and Python's standard library.

    python service.py pose.onnx --port 8000
    curl --data-binary @street.jpg 'http://127.0.0.1:8000/people?score=0.3'

``GET /model`` describes the keypoints and classes. An error is JSON too, with the key ``error``.
"""

from __future__ import annotations

import argparse
import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from dynpose.runtime import EncodedImage, People, Pose

MAX_BYTES = 32 * 2**20
SECONDS_TO_SEND = 30


class PoseServer(ThreadingHTTPServer):
    """Answers requests with a model. Images are read in a thread for each request and predicted one after another.

    Args:
        address (tuple[str, int]): host and port; port 0 = a free one.
        pose (Pose): the model.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], pose: Pose):
        super().__init__(address, Handler)
        self.pose = pose
        # the runtime uses all cores for one image
        self.predicting = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """The requests of one connection."""

    server: PoseServer
    timeout = SECONDS_TO_SEND

    def do_GET(self) -> None:
        """``/model``."""
        if urlsplit(self.path).path != "/model":
            return self._answer(HTTPStatus.NOT_FOUND, {"error": "GET /model or POST /people"})
        return self._answer(HTTPStatus.OK, describe(self.server.pose))

    def do_POST(self) -> None:
        """``/people``, the body is an image file."""
        url = urlsplit(self.path)
        if url.path != "/people":
            return self._answer(HTTPStatus.NOT_FOUND, {"error": "GET /model or POST /people"})
        try:
            length = int(self.headers["Content-Length"])
            threshold = float(parse_qs(url.query).get("score", ["0"])[0])
        except (TypeError, ValueError):
            return self._answer(HTTPStatus.BAD_REQUEST, {"error": "give Content-Length, and score as a number"})
        if not 0 < length <= MAX_BYTES:
            # what is not read would be taken for the next request
            self.close_connection = True
            return self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": f"send 1 to {MAX_BYTES} bytes"})
        try:
            inputs = self.server.pose.prepare(EncodedImage("the image", self.rfile.read(length)))
            with self.server.predicting:
                (people,) = self.server.pose.infer([inputs])
        except ValueError as error:  # it can't be read, or the model's input is fixed to another size
            return self._answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"error": str(error)})
        return self._answer(HTTPStatus.OK, to_json(people[people.scores >= threshold], self.server.pose))

    def _answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def describe(pose: Pose) -> dict[str, object]:
    """What the numbers of an answer mean."""
    schema, metadata = pose.schema, pose.metadata
    return {
        "method": metadata.method,
        "licence": metadata.licence,
        "class_names": list(pose.class_names),
        "keypoint_names": list(schema.names),
        "skeleton": [list(limb) for limb in schema.skeleton],
    }


def to_json(people: People, pose: Pose) -> dict[str, object]:
    """The people of an image, in continuous pixels: (0, 0) is the corner of the upper left pixel."""
    names = dict(enumerate(pose.class_names))
    height, width = people.image_size
    found = zip(people.scores, people.pred_classes, people.pred_boxes, people.pred_keypoints)
    return {
        "width": width,
        "height": height,
        "people": [
            {
                "score": float(score),
                "class": names.get(int(index), int(index)),
                "box": box.tolist(),
                "keypoints": keypoints.tolist(),
            }
            for score, index, box, keypoints in found
        ],
    }


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="a file of `dynpose export`: .onnx, or .xml of OpenVINO")
    parser.add_argument("--host", default="127.0.0.1", help="default %(default)s")
    parser.add_argument("--port", type=int, default=8000, help="default %(default)s")
    parser.add_argument("--threads", type=int, help="of the network; default: the cores that the process may use")
    args = parser.parse_args()
    with PoseServer((args.host, args.port), Pose(args.file, threads=args.threads)) as server:
        print(f"http://{args.host}:{server.server_port}/people")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    main()
