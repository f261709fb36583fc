"""A server that speaks OpenAI's API, in a thread of the test: it answers as a test's function says, and counts."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple

MODELS = {"object": "list", "data": [{"id": "stub", "object": "model", "created": 0, "owned_by": "tests"}]}


class Said(NamedTuple):
    """What the server sends back."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})


def chat(text: str | None, finish: str = "stop", **message: Any) -> Said:
    """A whole reply of /chat/completions."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    return Said({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})


def completion(text: str, finish: str = "stop", **choice: Any) -> Said:
    """A whole reply of /completions."""
    return Said({"choices": [{"index": 0, "text": text, "finish_reason": finish, **choice}]})


def error(status: int, message: str = "no") -> Said:
    """An error, to be tried again at once where it may be."""
    return Said({"error": {"message": message, "type": "x", "code": None}}, status, {"retry-after-ms": "1"})


class Stub:
    """The server: `seen` holds every request's body, `keys` the authorisations, `most` how many came at once."""

    def __init__(self, respond: Callable[[dict[str, Any]], Said]) -> None:
        self.respond = respond
        self.seen: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str] = []
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.url = ""


class Quiet(ThreadingHTTPServer):
    """A server that says nothing of those who hang up."""

    request_queue_size = 100

    def handle_error(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(respond: Callable[[dict[str, Any]], Said]) -> Iterator[Stub]:
    """Serve until the block ends."""
    stub = Stub(respond)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send(Said(MODELS))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with stub.lock:
                stub.seen.append(body)
                stub.paths.append(self.path)
                stub.keys.append(self.headers["authorization"])
                stub.now += 1
                stub.most = max(stub.most, stub.now)
            try:
                self.send(stub.respond(body))
            finally:
                with stub.lock:
                    stub.now -= 1

        def send(self, said: Said) -> None:
            content = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
            self.send_response(said.status)
            for name, value in {"content-type": "application/json", **said.headers}.items():
                self.send_header(name, value)
            if "content-length" not in said.headers:  # a test may promise more than it sends
                self.send_header("content-length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who asked is gone
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = Quiet(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
