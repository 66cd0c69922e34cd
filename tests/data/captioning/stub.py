"""A chat endpoint on this machine that gives valid replies, or configured faults."""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from videodit_data.captioning.lengths import LENGTHS

Reaction = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_POST(self) -> None:
        stub = self.server.stub
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.body = body
        with stub.lock:
            number = len(stub.requests)
            stub.requests.append((self.path, dict(self.headers), body))
        stub.react(number)(self)

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    stub: "Stub"

    def handle_error(self, *args: object) -> None:
        """Ignore clients that close the connection."""


class Stub:
    """A stub server's requests, and its reactions: `react(number)` gives the reaction to the request of that number."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.lock, self.over = threading.Lock(), threading.Event()
        self.react: Callable[[int], Reaction] = lambda number: valid_reply
        self.url = ""

    def script(self, reactions: Sequence[Reaction]) -> None:
        """React in this way to the first requests, then with valid replies."""
        self.react = lambda number: reactions[number] if number < len(reactions) else valid_reply

    def always(self, reaction: Reaction) -> None:
        self.react = lambda number: reaction


@contextmanager
def serving() -> Iterator[Stub]:
    stub = Stub()
    server = Server(("127.0.0.1", 0), Handler)
    server.stub, stub.url = stub, f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def text_of(name: str, seed: str = "") -> str:
    """Return a valid caption of the length, with other words for another seed."""
    count = sum(LENGTHS[name].words) // 2
    return f"A {hashlib.sha256((name + seed).encode()).hexdigest()[:8]} cube" + " rolls" * (count - 3)


def asked_lengths(body: dict[str, Any]) -> list[str]:
    """Return the names of the lengths that a request requires, from its rules."""
    return re.findall(r'^"(\w+)": \d+ to', body["messages"][0]["content"], re.MULTILINE)


def completion(text: str | None, **choice: Any) -> bytes:
    message = {"role": "assistant", "content": text}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"} | choice]}).encode()


def valid_reply(handler: Handler) -> None:
    """Send captions of the requested lengths, the same for the same frames and prompt."""
    user = json.dumps(handler.body["messages"][1])
    texts = {name: text_of(name, user) for name in asked_lengths(handler.body)}
    handler.reply(200, completion(json.dumps(texts)))


def says(text: str | None, **choice: Any) -> Reaction:
    return lambda handler: handler.reply(200, completion(text, **choice))


def sends(body: bytes, status: int = 200, **headers: str) -> Reaction:
    response_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.reply(status, body, response_headers)


def cuts(handler: Handler) -> None:
    """End the connection in the middle of the body."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": ')
    handler.close_connection = True


def hangs_up(handler: Handler) -> None:
    handler.close_connection = True


def garbles(handler: Handler) -> None:
    """Send bytes that are not HTTP and contain a terminal's escape codes."""
    handler.wfile.write(b"\x1b[31mHELLO\r\n\r\n")
    handler.close_connection = True


def stalls(handler: Handler) -> None:
    """Send no answer."""
    handler.server.stub.over.wait()
    handler.close_connection = True


def drips(where: str, every: float = 0.02) -> Reaction:
    """Send single bytes without an end, in the head or in the body (with a declared length, or in chunks)."""

    def react(handler: Handler) -> None:
        if where == "head":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        else:
            handler.send_response(200)
            length_header = {"body": ("Content-Length", "100000"), "chunks": ("Transfer-Encoding", "chunked")}[where]
            handler.send_header(*length_header)
            handler.end_headers()
        while not handler.server.stub.over.wait(every):
            handler.wfile.write(b"1\r\n \r\n" if where == "chunks" else b" ")
            handler.wfile.flush()

    return react
