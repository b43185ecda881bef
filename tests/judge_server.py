"""A judge over real HTTP: prefers or grades by a rule, with faults on demand."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def shorter(first: str, second: str) -> str:
    """The shorter answer is better."""
    return "TIE" if len(first) == len(second) else "A" if len(first) < len(second) else "B"


class JudgeServer(ThreadingHTTPServer):
    """Answers `/v1/chat/completions` with A, B or TIE, or with a grade.

    Attributes:
        rule: Two answers to a reply; of a request for a grade, its answer and `Grade`.
        faults: Status codes to answer with first.
        questions: What was asked, in order.
    """

    daemon_threads = True

    def __init__(self, rule: Callable[[str, str], str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rule = rule
        self.faults: list[int] = []
        self.questions: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        content = json.loads(self.rfile.read(length))
        text = content["messages"][-1]["content"]
        if self.server.faults:
            self._send(self.server.faults.pop(0), {"error": {"message": "not now"}})
            return
        self.server.questions.append(text)
        found = re.search(
            r"Answer A:\n(.*)\n\nAnswer B:\n(.*)\n\nA, B or TIE\?", text, re.DOTALL
        ) or re.search(r"Answer:\n(.*)\n\n(Grade) from 0 to 10\?", text, re.DOTALL)
        assert found is not None
        reply = self.server.rule(found[1], found[2])
        message = {"role": "assistant", "content": reply}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._send(
            200,
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": content["model"],
                "choices": [choice],
            },
        )

    def _send(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Quietly."""


@contextmanager
def serving(rule: Callable[[str, str], str] = shorter) -> Iterator[JudgeServer]:
    """The server, running."""
    server = JudgeServer(rule)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
