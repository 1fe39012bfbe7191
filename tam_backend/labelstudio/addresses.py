"""Which URLs and network addresses this server connects to: the guard against being sent where it must not go.

A name is resolved once and every address it has is checked; the connection is then made to a checked address (see
``transport``), so a name that changes its address in between gains nothing.
"""

from __future__ import annotations

import base64
import ipaddress
import logging
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urljoin, urlsplit

from requests.utils import requote_uri

from tam_backend.errors import MediaError

log = logging.getLogger(__name__)

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS = {"http": 80, "https": 443}
_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?", re.ASCII)
#: Control characters, and the backslash, which browsers take for a slash and others do not.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f\\]")


def _networks(*names: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(name) for name in names]


def _within(address: IpAddress, networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    return any(address in network for network in networks)


#: IPv4 that is not for the open internet (IANA special-purpose registry, RFC 6890), and Azure's platform address.
_CLOSED_V4 = _networks(
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
)  # fmt: skip
#: IPv6 for the open internet, less what is special in it: Teredo and others, documentation, 6to4 (any IPv4 inside).
_OPEN_V6 = _networks("2000::/3")
_CLOSED_V6 = _networks("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
#: On IPv6-only networks the whole of IPv4 is behind this prefix (NAT64, RFC 6052).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

#: Where no Label Studio ever is: link-local with its metadata services, those of other clouds, multicast, reserved.
_NO_LABEL_STUDIO = _networks(
    "169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "224.0.0.0/4", "240.0.0.0/4",
    "fe80::/10", "ff00::/8", "fd00:ec2::254/128", "fd20:ce::254/128",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Url:
    """An http(s) URL, read once: what is checked is what is connected to. host: lower-case ASCII, IPv6 without
    brackets. target: path and query, ASCII."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def host_and_port(self) -> str:
        """As in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """For messages: without the query, where signatures are; what Label Studio's own addresses mean by theirs."""
        path, _, query = self.target.partition("?")
        arguments = parse_qs(query)
        if "fileuri" in arguments:
            return _printable(cloud_uri(arguments["fileuri"][0]))
        folder = f"?d={arguments['d'][0]}" if list(arguments) == ["d"] else ""
        return _printable(f"{self.scheme}://{self.host_and_port}{unquote(path)}{folder}")

    def join(self, location: str) -> Url:
        """The URL that a redirect leads to. Raises MediaError."""
        try:
            return parse_url(urljoin(str(self), location))
        except ValueError as e:
            raise MediaError(f"it is redirected to {location!r:.200}, which is not a web address: {e}") from e

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host_and_port}{self.target}"


def parse_url(text: str) -> Url:
    """Read a URL strictly. Raises MediaError for anything but http(s), for user names and for odd hosts."""
    shown = without_secrets(text)
    if _CONTROLS.search(text):
        raise MediaError(f"{shown!r} has control characters or backslashes, which no web address has")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as e:
        raise MediaError(f"{shown!r} is not a web address: {e}") from e
    if parts.scheme not in _PORTS:
        raise MediaError(f"cannot read {shown}: only http and https addresses can be fetched")
    if "@" in parts.netloc:
        raise MediaError("an address with a user name or password in it is not fetched: take them out")
    host = _plain_host(host)
    if not host or port == 0:
        raise MediaError(f"{shown!r} names no host that can be connected to")
    try:
        target = requote_uri((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
    except ValueError as e:  # half a character
        raise MediaError(f"{shown!r} is not a web address: {e}") from e
    return Url(parts.scheme, host, port or _PORTS[parts.scheme], target)


def without_secrets(text: str) -> str:
    """An address for messages, readable or not: without what may be a password or a signature in it."""
    return _printable(re.sub("//[^/]*@", "//", text.partition("?")[0]))[:120]


def origin_of(text: str) -> tuple[str, str, int] | None:
    """(scheme, host, port) of an http(s) URL, None for anything else."""
    try:
        return parse_url(text).origin
    except MediaError:
        return None


def cloud_uri(encoded: str) -> str:
    """What ``fileuri`` says in Label Studio's addresses for cloud storage."""
    try:
        return base64.urlsafe_b64decode(encoded.encode()).decode()
    except ValueError:
        return unquote(encoded)


class MediaRules:
    """Hosts that media may come from, apart from Label Studio.

    hosts: names or name:port that may have any address, private ones too. public: whether all hosts on the open
    internet are allowed besides.
    """

    def __init__(self, hosts: Iterable[str], public: bool) -> None:
        self._hosts = frozenset(h.lower() for h in hosts)
        self._public = public

    def check(self, url: Url) -> None:
        """Raise MediaError where the name alone says that the URL is not allowed."""
        if not self._public and not self._listed(url.host, url.port):
            raise MediaError(
                f"{url.shown} is not on Label Studio, and other hosts are not allowed here: add {url.host_and_port} to "
                "TAM_MEDIA_HOSTS, or set TAM_MEDIA_PUBLIC=true"
            )

    def resolve(self, host: str, port: int) -> list[IpAddress]:
        """The addresses of a host. Raises MediaError if there are none, or if one is not allowed."""
        addresses = _addresses(host, port)
        if not self._listed(host, port):
            for address in addresses:
                if not is_public(address):
                    # The address is for the log only: errors are read by people who may not know this network.
                    log.warning("refused to connect to %s, which is %s", host, address)
                    raise MediaError(
                        f"{host} is not on the open internet: if videos may be fetched from there, add "
                        f"{_with_port(host, port)} to TAM_MEDIA_HOSTS"
                    )
        return addresses

    def _listed(self, host: str, port: int) -> bool:
        return not self._hosts.isdisjoint({host, f"[{host}]", _with_port(host, port)})


def resolve_label_studio(host: str, port: int) -> list[IpAddress]:
    """The addresses of Label Studio's own host, which is often on a private network. Raises MediaError."""
    addresses = _addresses(host, port)
    for address in addresses:
        if _within(_plain(address), _NO_LABEL_STUDIO):
            raise MediaError(f"{host} has the address {address}, where no Label Studio is; check its address")
    return addresses


def is_public(address: IpAddress) -> bool:
    """Whether an address is on the open internet, as whatever it really leads to."""
    address = _plain(address)
    if isinstance(address, ipaddress.IPv4Address):
        return not _within(address, _CLOSED_V4)
    return _within(address, _OPEN_V6) and not _within(address, _CLOSED_V6)


def _plain(address: IpAddress) -> IpAddress:
    """The IPv4 address that an IPv6 one stands for, where it does."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _addresses(host: str, port: int) -> list[IpAddress]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as e:
        raise MediaError(f"the host {host} is not known (its name has no address)") from e
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    return list(dict.fromkeys(addresses))


def _plain_host(host: str) -> str:
    if ":" in host:
        try:
            return ipaddress.IPv6Address(host).compressed if "%" not in host else ""
        except ValueError:
            return ""
    try:
        host = host.encode("idna").decode().lower() if not host.isascii() else host
    except UnicodeError:
        return ""
    return host if _HOST_NAME.fullmatch(host) and len(host) < 254 else ""


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:300]


def _with_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
