"""ZeroMQ sockets on an asyncio loop: a Hub (ROUTER) that many Spokes (DEALER) connect to.

Rules of this file:
1. ROUTER_MANDATORY, finite send timeouts, no blocking call on the loop: a peer that is gone or full makes
   ``send`` return False, never a silent drop. Credits keep every queue far below its high-water mark.
2. ipc endpoints only, in a folder of mode 0700, sockets 0600.
3. Frames are decoded here; a bad one is dropped and counted, it never reaches a handler.
4. A socket belongs to the thread of its loop (zmq_socket(3)): who touches it from another one is told so at once.
"""

import asyncio
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import zmq

from engine.wire.messages import BadFrame, Message, decode, encode

HIGH_WATER_MARK = 10_000
SEND_TIMEOUT_MS = 1_000
IPC_PATH_MAX = 100  # bytes; the kernel's sun_path has 108


class _Socket(ABC):
    """A ZeroMQ socket whose readiness is an asyncio reader, drained until it is empty."""

    def __init__(self, kind: int, *, message_bytes_max: int) -> None:
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(kind)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.SNDTIMEO, SEND_TIMEOUT_MS)
        self._socket.set(zmq.SNDHWM, HIGH_WATER_MARK)
        self._socket.set(zmq.RCVHWM, HIGH_WATER_MARK)
        self._socket.set(zmq.MAXMSGSIZE, message_bytes_max)
        self._bytes_max = message_bytes_max
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.get_ident()
        self._fd = -1
        self._check_due = False
        self.frames_dropped = 0
        self.frames_sent = 0
        self.frames_received = 0

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self._fd = self._socket.fileno()
        loop.add_reader(self._fd, self._readable)
        loop.call_soon(self._readable)

    def _readable(self) -> None:
        # The descriptor is edge-triggered: it must be read until EAGAIN, or it stays silent.
        self._check_due = False
        receive = self._socket.recv_multipart
        while not self._socket.closed:
            try:
                frames = receive(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.frames_received += 1
            self._arrived(frames)

    @abstractmethod
    def _arrived(self, frames: list[bytes]) -> None:
        """A message has come, in frames as this kind of socket has them."""

    def _after_send(self) -> None:
        assert threading.get_ident() == self._thread, "a socket is written to by the thread that reads it"
        # A send may consume the edge of a message that came meanwhile: look once more, soon.
        self.frames_sent += 1
        if (
            not self._check_due
            and self._loop is not None
            and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN
        ):
            self._check_due = True
            self._loop.call_soon(self._readable)

    def close(self, linger_ms: int = 0) -> None:
        """Stop reading and close; waits up to ``linger_ms`` for frames that are still on their way out."""
        if self._socket.closed:
            return
        assert threading.get_ident() == self._thread, "a socket is closed by the thread that reads it"
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
        self._socket.close(linger=linger_ms)
        self._context.term()


class Hub(_Socket):
    """The bound end. ``on_message(peer, message)`` is called on the loop for every good frame.

    Raises OSError where the socket cannot be opened.
    """

    def __init__(self, path: Path, *, message_bytes_max: int) -> None:
        if len(os.fsencode(path)) > IPC_PATH_MAX:
            raise OSError(f"the socket path {path} is longer than {IPC_PATH_MAX} bytes")
        super().__init__(zmq.ROUTER, message_bytes_max=message_bytes_max)
        self._socket.set(zmq.ROUTER_MANDATORY, 1)
        try:
            self._socket.bind(f"ipc://{path}")
            path.chmod(0o600)
        except (OSError, zmq.ZMQError) as error:
            self.close()
            raise OSError(error.errno, f"the socket {path} could not be opened: {error.strerror}") from None
        self._on_message: Callable[[bytes, Message], None] | None = None

    def listen(self, loop: asyncio.AbstractEventLoop, on_message: Callable[[bytes, Message], None]) -> None:
        """Begin to call ``on_message``."""
        self._on_message = on_message
        self._listen(loop)

    def _arrived(self, frames: list[bytes]) -> None:
        assert self._on_message is not None
        if len(frames) != 2:
            self.frames_dropped += 1
            return
        try:
            message = decode(frames[1], bytes_max=self._bytes_max)
        except BadFrame:
            self.frames_dropped += 1
            return
        self._on_message(frames[0], message)

    def send(self, peer: bytes, message: Message) -> bool:
        """Queue a message for a peer. False when the peer is gone or its queue is full; nothing was sent."""
        try:
            self._socket.send_multipart((peer, encode(message)), zmq.NOBLOCK, copy=True)
        except (zmq.Again, zmq.ZMQError):
            return False
        self._after_send()
        return True


class Spoke(_Socket):
    """The connecting end. ``on_message(message)`` is called on the loop for every good frame."""

    def __init__(self, path: Path, *, message_bytes_max: int) -> None:
        super().__init__(zmq.DEALER, message_bytes_max=message_bytes_max)
        # A hub that restarts at the same path is found again quickly.
        self._socket.set(zmq.RECONNECT_IVL, 20)
        self._socket.set(zmq.RECONNECT_IVL_MAX, 200)
        self._socket.connect(f"ipc://{path}")
        self._on_message: Callable[[Message], None] | None = None

    def listen(self, loop: asyncio.AbstractEventLoop, on_message: Callable[[Message], None]) -> None:
        """Begin to call ``on_message``."""
        self._on_message = on_message
        self._listen(loop)

    def _arrived(self, frames: list[bytes]) -> None:
        assert self._on_message is not None
        if len(frames) != 1:
            self.frames_dropped += 1
            return
        try:
            message = decode(frames[0], bytes_max=self._bytes_max)
        except BadFrame:
            self.frames_dropped += 1
            return
        self._on_message(message)

    def send(self, message: Message) -> bool:
        """Queue a message. False when the queue to the hub is full; nothing was sent."""
        try:
            self._socket.send(encode(message), zmq.NOBLOCK, copy=True)
        except (zmq.Again, zmq.ZMQError):
            return False
        self._after_send()
        return True
