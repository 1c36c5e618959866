"""A local HTTP server of weights, with the faults of real ones."""

import re
import threading
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class WeightsServer(ThreadingHTTPServer):
    """Serves ``files`` (path -> bytes) on the loopback address.

    Attributes:
        requests (list[tuple[str, str | None]]): path with its query, and Range header, of each GET.
        headers (dict[str, dict[str, str]]): further headers for a path.
        cut (int | None): close the connection after so many bytes of a file.
        ranges (bool): answer requests for a part of a file.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.headers, self.requests, self.cut, self.ranges = {}, {}, [], None, True

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass  # clients that hang up


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        self._answer(body=True)

    def _answer(self, body):
        path = self.path.partition("?")[0]
        if path not in self.server.files:
            self.send_error(404)
            return
        content = self.server.files[path]
        tag = f'"{sha256(content).hexdigest()}"'
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        is_part = wanted and self.server.ranges and self.headers.get("If-Range", tag) == tag
        start = int(wanted[1]) if is_part else 0
        self.send_response(206 if is_part else 200)
        if is_part:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", tag)
        for name, value in {"Content-Type": "application/octet-stream", **self.server.headers.get(path, {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content[start:][: self.server.cut])

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    """A running WeightsServer."""
    with WeightsServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
