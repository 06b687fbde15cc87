"""Which addresses the worker opens on somebody else's word: public ones only, whatever name or form leads there."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PublicSockets", "check_public_host", "is_public"]

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # all that is assigned of IPv6; `is_global` knows exceptions alone


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the public Internet; also the IPv4 address inside an IPv6 one must be.

    >>> [is_public(each) for each in ("1.1.1.1", "169.254.169.254", "::ffff:10.0.0.1", "100.64.0.1")]
    [True, False, False, False]
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip not in _GLOBAL_UNICAST:  # among others ::7f00:1, which some systems take for 127.0.0.1
            return False
    return ip.is_global and not ip.is_multicast


class PublicSockets:
    """Makes sockets for aiohttp's ``TCPConnector(socket_factory=…)``, to public addresses only.

    It is asked with the very address that is connected to next, so neither a form of writing an address nor a name
    that resolves differently the second time (DNS rebinding) gets past it.

    Args:
        allow: Which addresses may be connected to.

    Attributes:
        refused: The addresses that were refused.
    """

    def __init__(self, allow: Callable[[str], bool] = is_public) -> None:
        self._allow = allow
        self.refused: list[str] = []

    def __call__(self, address: tuple[Any, Any, Any, Any, tuple[Any, ...]]) -> socket.socket:
        """Return a socket for one entry of ``getaddrinfo``'s."""
        family, kind, protocol, _, place = address
        if not self._allow(str(place[0])):
            self.refused.append(str(place[0]))
            raise PermissionError(f"{place[0]} is no public address")
        return socket.socket(family=family, type=kind, proto=protocol)


async def check_public_host(host: str) -> None:
    """Refuse a host that resolves to an address that is not public; for clients whose sockets are not ours to make.

    Raises:
        InputError: It does, or does not resolve at all.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise InputError(f"{host!r} cannot be resolved to an address.") from exc
    if not all(is_public(str(place[0])) for *_, place in found):
        raise InputError(f"{host!r} is no public address, and the worker opens no others for a request.")
