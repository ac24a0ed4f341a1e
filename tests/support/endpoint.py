"""An OpenAI-compatible endpoint on loopback, with the faults that a real one can have."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def completion(**told: object) -> bytes:
    """What an endpoint answers that keeps to the schema, but for what the test changes."""
    content = {"intent": "question", "confidence": 0.8, "because": "It asks for a price."} | told
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": json.dumps(content)}}]}).encode()


class Asked:
    """What the endpoint answers, and what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.questions: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.answer: Callable[[], bytes] = completion
        self.hang = False
        self.drip = False
        self.released = threading.Event()

    @property
    def texts(self) -> list[str]:
        """What the person wrote, as it was sent."""
        return [question["messages"][1]["content"] for question in self.questions]


class _Server(ThreadingHTTPServer):
    asked: Asked
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        asked = server.asked
        asked.keys.append(self.headers.get("Authorization"))
        asked.questions.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if asked.hang:
            asked.released.wait(60)
            return
        self.send_response(asked.status)
        for name, value in asked.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if asked.drip:
            while not asked.released.wait(0.05):
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return
            return
        try:
            self.wfile.write(asked.answer())
        except OSError:  # the asker has heard enough
            return

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def endpoint() -> Iterator[Asked]:
    """An endpoint at a free port of loopback."""
    asked = Asked()
    server = _Server(("127.0.0.1", 0), _Handler)
    server.asked = asked
    asked.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        asked.released.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
