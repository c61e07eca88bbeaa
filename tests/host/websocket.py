"""The half of a WebSocket that a listener needs (RFC 6455): connect, and read whole messages. No
further package."""

import base64
import os
import socket
import struct
from collections.abc import Iterator
from urllib.parse import urlsplit

CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def connect(url: str) -> socket.socket:
    """An open connection to ``url``, http://host:port/path."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    wire = socket.create_connection((parts.hostname, parts.port or 80), timeout=60)
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {parts.path}?{parts.query} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
    ]
    wire.sendall("\r\n".join([*lines, "", ""]).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):  # byte by byte: the first message may follow at once
        head += exactly(wire, 1)
    assert head.split(b"\r\n")[0].split()[1] == b"101", head
    wire.settimeout(None)
    return wire


def messages(wire: socket.socket) -> Iterator[str | bytes]:
    """What arrives, until one of the two hangs up."""
    kind, whole = 0, b""
    while True:
        try:
            last, code, data = frame(wire)
        except OSError:
            return
        if code == CLOSE:
            return
        if code == PING:
            send(wire, PONG, data)
        elif code in (CONTINUED, TEXT, BINARY):
            kind, whole = (code or kind), whole + data
            if last:
                yield whole.decode() if kind == TEXT else whole
                whole = b""


def frame(wire: socket.socket) -> tuple[bool, int, bytes]:
    """(last one of its message, opcode, payload)"""
    first, second = exactly(wire, 2)
    length = second & 127  # a server does not mask
    if length == 126:
        (length,) = struct.unpack(">H", exactly(wire, 2))
    elif length == 127:
        (length,) = struct.unpack(">Q", exactly(wire, 8))
    return bool(first & 128), first & 15, exactly(wire, length)


def send(wire: socket.socket, code: int, data: bytes) -> None:
    """``data`` of at most 125 bytes, masked with zeros, as a client must mask."""
    wire.sendall(bytes([128 | code, 128 | len(data), 0, 0, 0, 0]) + data)


def exactly(wire: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = wire.recv(count - len(data))
        if not piece:
            raise ConnectionError("the host hung up")
        data += piece
    return data
