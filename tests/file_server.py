"""A real HTTP server on loopback that serves one file, and misbehaves as a test wants."""

import contextlib
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORTION = 1 << 14


class Handler(BaseHTTPRequestHandler):
    """One request; `self.server` is the FileServer's, with the file and the fault."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        files = self.server.files
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        self.ranged = bool(found) and files.ranges
        self.start, self.stop = 0, files.size
        if self.ranged:
            self.start, self.stop = int(found[1]), min(int(found[2]) + 1, files.size)
            validator = self.headers.get("If-Range")
            if validator and validator not in (files.etag, files.modified):
                self.ranged, self.start, self.stop = False, 0, files.size
        self.number = len(files.requests)
        files.requests.append((self.path, self.start, self.stop))
        files.headers.append(dict(self.headers))
        with contextlib.suppress(ConnectionError):
            if not (files.fault and files.fault(self)):
                self.reply()
                self.body()

    def reply(self, status: int | None = None, **headers: str | None) -> None:
        """The head of a good answer; `headers` (with _ for -) replace or, None, remove some."""
        files = self.server.files
        known = {
            "Content_Length": str(self.stop - self.start),
            "Content_Type": "application/octet-stream",
            "ETag": files.etag,
            "Last_Modified": files.modified,
        }
        if self.ranged:
            known["Content_Range"] = f"bytes {self.start}-{self.stop - 1}/{files.size}"
        self.send_response(status or (206 if self.ranged else 200))
        for name, value in {**known, **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def body(self, stop: int | None = None, pause: float = 0.0, portion: int = PORTION) -> bool:
        """The bytes from `start` to `stop`; True, as a fault that has answered returns."""
        files = self.server.files
        position, stop = self.start, self.stop if stop is None else stop
        while position < stop:
            data = files.read(position, min(portion, stop - position))
            self.wfile.write(data)
            with files.lock:
                files.sent += len(data)
            position += len(data)
            if pause or files.pause:
                time.sleep(pause or files.pause)
        return True

    def whole(self, content: bytes, status: int = 200, **headers: str) -> bool:
        """A complete answer of its own; True, as `body`."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)
        return True

    def reset(self) -> bool:
        """Cut the connection with a TCP reset."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.server.shutdown_request = lambda request: request.close()  # no orderly end before it
        return True

    def log_message(self, *_: object) -> None:
        pass


class FileServer:
    """Serves `path` at `url` while it is entered."""

    def __init__(
        self,
        path: Path,
        fault: Callable[[Handler], bool] | None = None,
        certificate: Path | None = None,
    ) -> None:
        self.path, self.fault, self.certificate = path, fault, certificate
        self.etag, self.modified = '"one"', "Wed, 01 Jan 2020 00:00:00 GMT"
        self.ranges, self.pause = True, 0.0
        self.requests: list[tuple[str, int, int]] = []
        self.headers: list[dict[str, str]] = []
        self.sent, self.lock = 0, threading.Lock()

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def __enter__(self) -> "FileServer":
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # a client that hangs up is no news
        self.http.files = self
        if self.certificate:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(self.certificate)
            self.http.socket = tls.wrap_socket(self.http.socket, server_side=True)
        scheme = "https" if self.certificate else "http"
        self.url = f"{scheme}://127.0.0.1:{self.http.server_address[1]}/movies.hdf5"
        poll = {"poll_interval": 0.01}
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs=poll, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()
