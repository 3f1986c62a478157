"""A stand-in for a served model, to try load generators on: ``python fake_openai.py PORT``.

It speaks as much of the OpenAI API as they need (models, completions and chat, streamed with usage) and answers with
``max_tokens`` tokens: the first after 20 ms and 0.05 ms for each word of the prompt, each further one after 5 ms.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_FIRST_S, _WORD_S, _TOKEN_S = 0.02, 0.05e-3, 5e-3


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._json({"object": "list", "data": [{"id": "tiny", "object": "model", "owned_by": "nobody"}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat = self.path.endswith("chat/completions")
        prompt = json.dumps(asked["messages"]) if chat else asked["prompt"]
        words = len(prompt.split()) if isinstance(prompt, str) else len(prompt)
        tokens = asked.get("max_completion_tokens") or asked.get("max_tokens") or 16
        usage = {"prompt_tokens": words, "completion_tokens": tokens, "total_tokens": words + tokens}
        time.sleep(_FIRST_S + _WORD_S * words)
        if not asked.get("stream"):
            time.sleep(_TOKEN_S * (tokens - 1))
            self._json(self._chunk(chat, " word" * tokens, "length", whole=True) | {"usage": usage})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for token in range(tokens):
            time.sleep(_TOKEN_S if token else 0.0)
            self._event(self._chunk(chat, " word", "length" if token == tokens - 1 else None))
        self._event(self._chunk(chat, "", None) | {"choices": [], "usage": usage})
        self._write(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, chat: bool, text: str, finish: str | None, *, whole: bool = False) -> dict[str, Any]:
        inner = "message" if whole else "delta"
        content = {inner: {"role": "assistant", "content": text}} if chat else {"text": text}
        kind = ("chat.completion" if whole else "chat.completion.chunk") if chat else "text_completion"
        choice = {"index": 0, "finish_reason": finish, "logprobs": None, **content}
        return {"id": "x", "object": kind, "created": 1, "model": "tiny", "choices": [choice]}

    def _event(self, value: dict[str, Any]) -> None:
        self._write(b"data: " + json.dumps(value).encode() + b"\n\n")

    def _write(self, text: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        self.wfile.flush()

    def _json(self, value: dict[str, Any]) -> None:
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
