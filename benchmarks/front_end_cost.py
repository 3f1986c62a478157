"""What a request and a streamed token cost vLLM's API server: CPU seconds of its process, the engine's left out.

    vllm serve MODEL --served-model-name m --port 8000 ... &
    python -m benchmarks.front_end_cost 8000

The engine is a process of its own, so that any model will do, on any device. All requests of a batch are streamed at
once to a client that hardly looks at what it gets. CPU time is what other processes on the machine change least.
Needs psutil, which vLLM's environment has.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time

import psutil

PROMPT_TOKENS = 100
FEW_TOKENS, MANY_TOKENS = 4, 132
STREAMS = (32, 64, 128)
REPEATS = 3
IDLE_S = 3.0


def listening(port: int) -> psutil.Process:
    """The process that listens on a port of this machine."""
    for process in psutil.process_iter():
        try:
            connections = process.net_connections("tcp")
        except psutil.Error:
            continue
        if any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in connections):
            return process
    sys.exit(f"nothing listens on port {port}")


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process so far, without its children's."""
    times = process.cpu_times()
    return float(times.user + times.system)


def streamed(port: int, streams: int, output_tokens: int) -> int:
    """Send as many requests at once, read their answers to the end, and count the chunks that came."""
    body = json.dumps(
        {
            "model": "m",
            "prompt": [5] * PROMPT_TOKENS,
            "max_tokens": output_tokens,
            "ignore_eos": True,
            "stream": True,
        }
    ).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    chunks = 0
    with selectors.DefaultSelector() as selector:
        for _ in range(streams):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(head.encode() + body)
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                received = connection.recv(1 << 16)
                chunks += received.count(b'data: {"id"')
                if not received:
                    selector.unregister(connection)
                    connection.close()
    return chunks


def spent_s(server: psutil.Process, port: int, streams: int, output_tokens: int, idle: float) -> float:
    """CPU seconds of the server over a batch, less what it spends anyway; says where tokens did not come one by one."""
    cpu_before_s, began_s = cpu_s(server), time.monotonic()
    chunks = streamed(port, streams, output_tokens)
    if chunks < 0.99 * streams * output_tokens:
        print(f"  {chunks} chunks for {streams * output_tokens} tokens: the server sent several in one")
    return cpu_s(server) - cpu_before_s - idle * (time.monotonic() - began_s)


def main() -> None:
    """Print CPU seconds per request and per streamed token."""
    port = int(sys.argv[1])
    server = listening(port)
    streamed(port, 8, MANY_TOKENS)
    idle_before_s = cpu_s(server)
    time.sleep(IDLE_S)
    idle = (cpu_s(server) - idle_before_s) / IDLE_S
    for streams in STREAMS:
        for _ in range(REPEATS):
            few_s, many_s = (spent_s(server, port, streams, tokens, idle) for tokens in (FEW_TOKENS, MANY_TOKENS))
            token_s = (many_s - few_s) / (streams * (MANY_TOKENS - FEW_TOKENS))
            request_s = few_s / streams - FEW_TOKENS * token_s
            print(f"{streams:4d} streams: {request_s * 1e3:.2f} ms a request, {token_s * 1e6:.0f} us a streamed token")


if __name__ == "__main__":
    main()
