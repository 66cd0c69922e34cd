"""One HTTP request with a deadline for all of it.

The standard library's client, because another thread can close its socket: urllib3, requests and httpx bound the wait
for each read, which a server that sends a byte a second passes for ever. No redirects (they would carry the key along),
no connection kept: a model takes seconds, a handshake does not.
"""

import http.client
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from videodit_data.captioning.keys import find_key, hide_keys


class Broken(Exception):
    """No complete reply arrived. `reason` is the same for all failures of one kind."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Address:
    """The address of a chat endpoint."""

    secure: bool
    host: str
    port: int
    target: str  # path and query

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}{self.target}"


def chat_address(url: str) -> Address:
    """Parse a server's URL, with or without /v1 or /v1/chat/completions. ValueError when it is none, or holds a key.

    It would stand in the list of processes, and in messages; a query such as ?api-version=1 is sent along.
    """
    try:
        parts = urlsplit(url)
        secure, port, host = parts.scheme == "https", parts.port, (parts.hostname or "").encode("idna").decode()
    except ValueError as error:
        raise ValueError(f"'{hide_keys(url)}' is no address of a server, like http://localhost:8000.") from error
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise ValueError(f"'{hide_keys(url)}' is no address of a server, like http://localhost:8000.")
    if (found := find_key(parts)) is not None:
        raise ValueError(
            f"The endpoint's address holds {found}: put it in an environment variable and name that instead "
            "(--key-env, or --expand-key-env of sample)."
        )
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions" if path.rpartition("/")[2].startswith("v") else "/v1/chat/completions"
    return Address(secure, host, port or (443 if secure else 80), path + (f"?{parts.query}" if parts.query else ""))


@dataclass(frozen=True)
class Reply:
    """A complete HTTP reply; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Client:
    """An HTTP client that posts to one address from any number of threads.

    Attributes:
        connect_seconds: until there is a connection. deadline_seconds: from then on until the last byte of the reply.
        most_bytes: of a reply.
    """

    def __init__(
        self,
        address: Address,
        *,
        connect_seconds: float | int = 10.0,
        deadline_seconds: float | int = 120.0,
        most_bytes: int = 2**20,
    ):
        self.address, self._most = address, most_bytes
        self._connect, self._deadline = connect_seconds, deadline_seconds
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Post a request; returns the complete reply, whatever its status. Broken when it is late or too large."""
        kind = http.client.HTTPSConnection if self.address.secure else http.client.HTTPConnection
        connection = kind(self.address.host, self.address.port, timeout=self._connect)
        try:
            try:
                connection.connect()
            except (OSError, ValueError) as error:
                raise Broken("unreachable", f"{self.address} cannot be reached ({_describe(error)}).") from error
            late = threading.Event()
            try:
                with self._until_deadline(connection.sock, late):
                    connection.request("POST", self.address.target, body, {**headers, "Connection": "close"})
                    response = connection.getresponse()
                    data = response.read(self._most + 1)
                    # A read with a size raises no error when fewer bytes arrive than were declared.
                    if response.length and len(data) <= self._most:
                        raise http.client.IncompleteRead(data, response.length)
            except (OSError, ValueError, http.client.HTTPException) as error:
                if not late.is_set():
                    reason = _describe(error)
                    raise Broken("connection lost", f"{self.address} ended the connection ({reason}).") from error
            if late.is_set():
                raise Broken("deadline passed", f"{self.address} took longer than {self._deadline:g} seconds.")
        finally:
            connection.close()
        if len(data) > self._most:
            raise Broken("reply too large", f"The reply of {self.address} has more than {self._most} bytes.")
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, data)

    @contextmanager
    def _until_deadline(self, sock: socket.socket, late: threading.Event) -> Iterator[None]:
        """Close the connection at its deadline, which wakes the threads that wait for it."""

        def close_at_deadline() -> None:
            late.set()
            _shut_down(sock)

        sock.settimeout(None)
        timer = threading.Timer(self._deadline, close_at_deadline)
        timer.daemon = True
        with self._lock:
            self._open.add(sock)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                self._open.discard(sock)

    def abort(self) -> None:
        """Abort all requests in flight; they raise `Broken`."""
        with self._lock:
            for sock in self._open:
                _shut_down(sock)


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # the connection below TLS, without its closing handshake


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    reason = "".join(c if c.isprintable() else " " for c in str(error)[:200])  # it may contain bytes of the server
    return " ".join(reason.split()) or type(error).__name__


def retry_after(value: str | None, now: float) -> float | None:
    """Return the wait in seconds of a Retry-After header, from `now` (since the epoch); None where it has none.

    RFC 9110, section 10.2.3: seconds, or a date.
    """
    value = (value or "").strip()
    if value.isdecimal():
        return float(value[:12])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
