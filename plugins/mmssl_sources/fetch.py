"""Files at http and https addresses, fetched when they are used, within limits."""

from __future__ import annotations

import http.client
import io
import ipaddress
import math
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from multimodal_ssl import InputError, LazyItem
from multimodal_ssl.errors import nearest

_REDIRECTS = 5
_CHUNK = 1 << 16
_PORTS = {"http": 80, "https": 443}
_SAFE = "!$%&'()*+,/:;=?@~"  # what a path and a query may hold as it is
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+", re.IGNORECASE)  # names, and addresses of IPv6
_REMEDY = "see the option urls"


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be fetched.

    Attributes:
        timeout: seconds for a file, redirects included.
        max_bytes: size of a file.
        hosts: names, those below them included; None: any.
        private: addresses of this machine and its network may be asked, too.
    """

    timeout: float = 10
    max_bytes: int = 20_000_000
    hosts: tuple[str, ...] | None = None
    private: bool = False


def parse_rules(given: Mapping[str, Any]) -> Rules:
    """Read the option: {timeout, max_bytes, hosts, private}."""
    for option, value in given.items():
        if option not in (known := ("timeout", "max_bytes", "hosts", "private")):
            raise InputError(f"urls has no option {option!r}: {nearest(option, known)}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if option == "timeout" and not (number and 0 < value < math.inf):
            raise InputError(f"urls.timeout must be a number of seconds above 0 (given: {value!r})")
        if option == "max_bytes" and not (number and isinstance(value, int) and value > 0):
            raise InputError(f"urls.max_bytes must be a whole number above 0 (given: {value!r})")
        if option == "hosts" and not (isinstance(value, list) and value and all(map(_is_host, value))):
            raise InputError(f"urls.hosts must be a list of names of hosts, such as [example.org] (given: {value!r})")
        if option == "private" and not isinstance(value, bool):
            raise InputError(f"urls.private must be true or false (given: {value!r})")
    hosts = given.get("hosts")
    lower = None if hosts is None else tuple(host.lower() for host in hosts)
    return Rules(**{**given, "hosts": lower})


@dataclass(frozen=True, slots=True)
class Download(LazyItem):
    """A file at an address: its bytes."""

    url: str
    rules: Rules = Rules()

    def read(self) -> bytes:
        """Fetch the file; raise ValueError or OSError if that can't or may not be done."""
        clock = _Clock(self.rules.timeout)
        url = self.url
        try:
            for _ in range(1 + _REDIRECTS):
                found = _ask(url, self.rules, clock)
                if isinstance(found, bytes):
                    return found
                url = urljoin(url, found)
            raise ValueError(f"more than {_REDIRECTS} redirects")
        except (ValueError, OSError, http.client.HTTPException) as error:
            through = "" if url == self.url else f" (redirected to {url[:200]})"
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"can't fetch {self.url[:200]}{through}: {said}") from error


class _Clock:
    """The time that is left for all of a file."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"it takes longer than {self._seconds:g} s (urls.timeout)")
        return left


class _Reader(io.RawIOBase):
    """What a socket receives: a server that sends a byte now and then can't reset the clock."""

    def __init__(self, sock: socket.socket, clock: _Clock) -> None:
        self._sock = sock
        self._clock = clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._clock.left())
        try:
            return self._sock.recv_into(buffer)
        except TimeoutError:
            self._clock.left()  # says whose time it was
            raise


class _Line:
    """A socket as http.client needs it, on the clock."""

    def __init__(self, sock: socket.socket, clock: _Clock) -> None:
        self._sock = sock
        self._clock = clock

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._clock.left())
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._clock))

    def close(self) -> None:
        """Leave it open: http.client closes it before the body is read, and `_ask` does afterwards."""


def _ask(url: str, rules: Rules, clock: _Clock) -> bytes | str:
    """Return the bytes at an address, or the address that it redirects to."""
    parts = urlsplit(url)
    host, port = _check(parts, rules)
    sock = _connect(host, port, rules, clock)
    try:
        if parts.scheme == "https":
            sock.settimeout(clock.left())
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
        connection = http.client.HTTPConnection(host, port)  # it asks no proxy
        connection.sock = _Line(sock, clock)
        path = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
        connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
        name = f"[{host}]" if ":" in host else host
        connection.putheader("Host", name if port == _PORTS[parts.scheme] else f"{name}:{port}")
        connection.putheader("Accept-Encoding", "identity")
        connection.putheader("User-Agent", "multimodal_ssl")
        connection.putheader("Connection", "close")
        connection.endheaders()
        with connection.getresponse() as response:
            if response.status in (301, 302, 303, 307, 308) and (location := response.getheader("Location")):
                return location
            return _receive(response, rules.max_bytes)
    finally:
        sock.close()


def _receive(response: http.client.HTTPResponse, limit: int) -> bytes:
    if response.status != http.client.OK:
        raise ValueError(f"the server answers {response.status} {response.reason[:80]}".rstrip())
    if (encoding := response.getheader("Content-Encoding", "identity").lower()) != "identity":
        raise ValueError(f"the server sends it encoded as {encoding[:80]!r}, which wasn't asked for")
    if (response.length or 0) > limit:
        raise ValueError(f"it has {response.length} bytes, more than {limit} (urls.max_bytes)")
    body = bytearray()
    while chunk := response.read(_CHUNK):
        body += chunk
        if len(body) > limit:
            raise ValueError(f"it has more than {limit} bytes (urls.max_bytes)")
    if response.length:
        raise ValueError(f"it ends after {len(body)} bytes, {response.length} before the length that the server told")
    return bytes(body)


def _check(parts: SplitResult, rules: Rules) -> tuple[str, int]:
    """Return host and port of an address that may be asked; raise ValueError if it may not."""
    if parts.scheme not in _PORTS:
        raise ValueError(f"only http and https are fetched, not {parts.scheme}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address with a user's name or password is not fetched")
    host = (parts.hostname or "").rstrip(".")
    if not host.isascii():
        host = host.encode("idna").decode()
    if not _HOST.fullmatch(host):
        raise ValueError(f"{host[:80]!r} is no host")
    if rules.hosts is not None and not any(host == one or host.endswith(f".{one}") for one in rules.hosts):
        raise ValueError(f"{host} is none of the hosts that are allowed ({_REMEDY})")
    return host, parts.port or _PORTS[parts.scheme]


def _connect(host: str, port: int, rules: Rules, clock: _Clock) -> socket.socket:
    """Return a socket to an address of the host: one of those that were checked, not of a second look-up."""
    found = _resolve(host, port, clock)
    for *_, address in found:
        if not rules.private and not is_public(str(address[0])):
            raise ValueError(f"{host} is {address[0]}, an address that is not public ({_REMEDY})")
    wrong: OSError | None = None
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(clock.left())
            sock.connect(address)
        except OSError as error:
            sock.close()
            clock.left()  # raises if it was the time
            wrong = error
        else:
            return sock
    raise OSError(f"{host} doesn't answer") from wrong


def _resolve(host: str, port: int, clock: _Clock) -> list[Any]:
    # In a thread: the resolver knows no time limit.
    found: list[Any] = []
    wrong: list[OSError] = []

    def resolve() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            wrong.append(error)

    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(clock.left())
    clock.left()
    if wrong:
        raise OSError(f"there is no host {host} ({wrong[0]})") from wrong[0]
    return found


def is_public(text: str) -> bool:
    """Return whether an address belongs to the public internet, and so do those of IPv4 that it stands for."""
    address = ipaddress.ip_address(text)
    inner: list[ipaddress.IPv4Address | None] = []
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.ipv4_mapped:
            return is_public(str(address.ipv4_mapped))
        if address.is_site_local:
            return False
    refused = address.is_multicast or address.is_reserved or address.is_link_local or address.is_loopback
    if address.version == 6 and address in _NAT64:
        refused = False  # reserved for this
    return address.is_global and not refused and all(one is None or is_public(str(one)) for one in inner)


def _is_host(value: Any) -> bool:
    return isinstance(value, str) and bool(_HOST.fullmatch(value))
