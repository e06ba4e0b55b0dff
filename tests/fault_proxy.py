"""An HTTP proxy in front of a real S3 server that misbehaves on purpose, the same way for the same seed.

Whether the n-th request for a key gets a fault, and which, is drawn from (seed, key, n): it does not depend on how
requests of different keys interleave. A key gets at most MOST_IN_A_ROW faults in a row, unless `endless` matches it.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

MOST_IN_A_ROW = 5
KINDS = ("500", "503", "429", "reset", "reset_after", "truncated", "slow", "stalled")
S3_ERRORS = {
    "500": ("Internal Server Error", "InternalError"),
    "503": ("Service Unavailable", "SlowDown"),
    "429": ("Too Many Requests", "SlowDown"),
    "403": ("Forbidden", "AccessDenied"),
}


class FaultProxy:
    """`url` is where it listens. `share` of the requests get a fault of one of `kinds`.

    500, 503, 429, 403   an S3 error instead of an answer
    reset                the connection is reset before the request reaches the server
    reset_after          the server does what was asked; the answer is lost in a reset
    truncated            half of the body, then the connection is closed
    slow                 the body drips for `slow_s`
    stalled              the answer never comes (the connection is held for `stall_s`)

    endless: (regular expression over "METHOD /path", kind): every matching request gets that fault. after: that many
    matching requests pass first.
    """

    def __init__(
        self, upstream: str, seed: int = 0, share: float = 0.0, kinds: tuple[str, ...] = KINDS, slow_s: float = 1.0
    ) -> None:
        parts = urlsplit(upstream)
        self._upstream = parts.hostname or "127.0.0.1", parts.port or 80
        self.seed, self.share, self.kinds, self.slow_s, self.stall_s = seed, share, kinds, slow_s, 120.0
        self.endless: tuple[str, str] | None = None
        self.after = 0
        self.requests = 0
        self.faults: Counter[str] = Counter()
        self.tries: Counter[str] = Counter()
        self._in_a_row: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @contextmanager
    def running(self) -> Iterator[FaultProxy]:
        """Serve in a thread of this process."""
        ready = threading.Event()
        thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        thread.start()
        assert ready.wait(20)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(20)

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda _loop, _context: None)  # cut connections are what this is for
        server = self._loop.run_until_complete(asyncio.start_server(self._client, "127.0.0.1", self._port))
        self._port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        server.close()
        clients = asyncio.all_tasks(self._loop)
        for client in clients:
            client.cancel()
        self._loop.run_until_complete(asyncio.gather(*clients, return_exceptions=True))
        self._loop.close()

    def _draw(self, method: str, path: str) -> str | None:
        """The fault of this request, or None."""
        self.requests += 1
        self.tries[path] += 1
        if self.endless and re.search(self.endless[0], f"{method} {path}"):
            self.after -= 1
            return self.endless[1] if self.after < 0 else None
        digest = hashlib.sha256(f"{self.seed} {path} {self.tries[path]}".encode()).digest()
        chance = random.Random(digest)
        if chance.random() >= self.share or self._in_a_row[path] >= MOST_IN_A_ROW:
            self._in_a_row[path] = 0
            return None
        self._in_a_row[path] += 1
        return chance.choice(self.kinds)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _read_message(reader, lambda _start: True, writer)) is not None:
                start, head, body = request
                method, target, _ = start.split(" ", 2)
                fault = self._draw(method, target.partition("?")[0])
                if fault:
                    self.faults[fault] += 1
                if not await self._answer(writer, method, (start, head, body), fault):
                    return
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, method: str, request: tuple[str, bytes, bytes], fault: str | None
    ) -> bool:
        """Send an answer; whether the connection may go on."""
        if fault in S3_ERRORS:
            words, code = S3_ERRORS[fault]
            text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}: on purpose</Message></Error>'
            body = b"" if method == "HEAD" else text.encode()
            head = f"HTTP/1.1 {fault} {words}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            return True
        if fault == "reset":
            return _reset(writer)
        if fault == "stalled":
            await asyncio.sleep(self.stall_s)
            return False
        start, head, body = await self._forward(method, request)
        if fault == "reset_after":
            return _reset(writer)
        writer.write(f"{start}\r\n".encode() + head + b"\r\n")
        if fault == "truncated" and body:
            writer.write(body[: len(body) // 2])
            await writer.drain()
            return False
        if fault == "slow" and body:
            for piece in range(10):
                writer.write(body[len(body) * piece // 10 : len(body) * (piece + 1) // 10])
                await writer.drain()
                await asyncio.sleep(self.slow_s / 10)
        else:
            writer.write(body)
        await writer.drain()
        return True

    async def _forward(self, method: str, request: tuple[str, bytes, bytes]) -> tuple[str, bytes, bytes]:
        reader, writer = await asyncio.open_connection(*self._upstream, limit=1 << 20)
        try:
            start, head, body = request
            writer.write(f"{start}\r\n".encode() + head + b"Connection: close\r\n\r\n" + body)
            await writer.drain()
            answer = await _read_message(reader, lambda _start: method != "HEAD")
            assert answer is not None, "the S3 server closed the connection"
            return answer
        finally:
            writer.close()


async def _read_message(
    reader: asyncio.StreamReader, with_body: Callable[[str], bool], writer: asyncio.StreamWriter | None = None
) -> tuple[str, bytes, bytes] | None:
    """One HTTP/1.1 request or answer: start line, header lines (chunked made plain), body."""
    start = (await reader.readline()).decode("latin-1").strip()
    if not start:
        return None
    lines: list[bytes] = []
    length, chunked = 0, False
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        name = name.lower()
        length = int(value) if name == "content-length" else length
        if name == "expect" and writer:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        chunked = chunked or (name == "transfer-encoding" and "chunked" in value.lower())
        if name not in ("connection", "transfer-encoding", "expect"):
            lines.append(line)
    if not with_body(start):
        return start, b"".join(lines), b""
    if not chunked:
        return start, b"".join(lines), await reader.readexactly(length)
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return start, b"".join([*lines, f"Content-Length: {len(body)}\r\n".encode()]), body


def _reset(writer: asyncio.StreamWriter) -> bool:
    """Close with a TCP reset; False: the connection is gone."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False
