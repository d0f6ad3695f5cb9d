"""The addresses of this machine that others could dial. (shell)"""

from __future__ import annotations

import socket

__all__ = ["own_addresses"]

_ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Documentation networks (RFC 5737, RFC 3849): nothing is sent there, only the route is asked for."""


def own_addresses(family: socket.AddressFamily) -> list[str]:
    """Loopback, and the address that packets to elsewhere leave from; without those that do not exist."""
    found = ["127.0.0.1" if family is socket.AF_INET else "::1"]
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            # Connecting a datagram socket sends nothing.
            sock.connect((_ELSEWHERE[family], 9))
            found.append(str(sock.getsockname()[0]))
    except OSError:
        pass
    return list(dict.fromkeys(found))
