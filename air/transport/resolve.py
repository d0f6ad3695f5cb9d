"""From names to addresses: ``/dns``, ``/dns4``, ``/dns6`` and ``/dnsaddr``. (shell)"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio
import anyio.to_thread

from air.base.address import Multiaddr
from air.base.errors import Unreachable, Violation

__all__ = ["Resolver", "ResolverConfig", "look_up_hosts", "look_up_texts"]


@dataclass(frozen=True, slots=True)
class ResolverConfig:
    timeout_seconds: float = 5.0
    """For one address with everything below it."""
    depth_max: int = 4
    """Names that lead to names (go-libp2p: 4)."""
    addresses_max: int = 100
    """Addresses one name may lead to (go-libp2p: 100)."""
    texts_max: int = 100
    """TXT records read of one name."""


HostLookup = Callable[[str, socket.AddressFamily], Awaitable[list[str]]]
"""Name and family -> IP addresses in text; raises OSError."""
TextLookup = Callable[[str], Awaitable[list[str]]]
"""Name -> contents of its TXT records; raises OSError."""


async def look_up_hosts(name: str, family: socket.AddressFamily) -> list[str]:
    """Ask the operating system, which also knows ``/etc/hosts``."""
    found = await anyio.getaddrinfo(name, None, family=family, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def look_up_texts(name: str) -> list[str]:
    """Ask the name servers of this machine."""
    return await anyio.to_thread.run_sync(_texts, name, abandon_on_cancel=True)


def _texts(name: str) -> list[str]:
    import dns.exception
    import dns.resolver

    try:
        answer = dns.resolver.resolve(name, "TXT", lifetime=5.0)
        return [b"".join(record.strings).decode("utf-8", "replace") for record in answer]
    except (dns.exception.DNSException, ValueError) as error:
        raise OSError(f"no TXT records of {name}: {error}") from None


class Resolver:
    """Turns an address that begins with a name into addresses that can be dialled."""

    def __init__(
        self,
        config: ResolverConfig | None = None,
        *,
        hosts: HostLookup = look_up_hosts,
        texts: TextLookup = look_up_texts,
    ) -> None:
        self._config = ResolverConfig() if config is None else config
        self._hosts, self._texts = hosts, texts

    async def resolve(self, address: Multiaddr) -> list[Multiaddr]:
        """All addresses meant, without repetitions; the address itself when it begins with no name.

        The name of a ``/wss`` address is kept as ``/tls/sni/NAME/ws``: the certificate is checked against it.
        Raises Unreachable when nothing is found in time.
        """
        if not address.parts[0].name.startswith("dns"):
            return [address]
        found: dict[Multiaddr, None] = {}
        failures: list[tuple[str, str]] = []
        with anyio.move_on_after(self._config.timeout_seconds) as scope:
            await self._resolve(address, self._config.depth_max, found, failures)
        if not found:
            if scope.cancelled_caught:
                failures.append((str(address), "dial.dns: no answer in time"))
            failures = failures or [(str(address), "dial.dns: the name leads nowhere")]
            raise Unreachable(f"{address} could not be resolved", failures)
        return list(found)

    async def _resolve(
        self,
        address: Multiaddr,
        depth: int,
        found: dict[Multiaddr, None],
        failures: list[tuple[str, str]],
    ) -> None:
        kind, name = address.parts[0]
        if len(found) >= self._config.addresses_max:
            return
        if not kind.startswith("dns"):
            found.setdefault(address)
            return
        if not depth:
            failures.append((str(address), "dial.dns: names that lead to names without end"))
            return
        try:
            if kind == "dnsaddr":
                for text in (await self._texts(f"_dnsaddr.{name}"))[: self._config.texts_max]:
                    target = _target(text, address)
                    if target is not None:
                        await self._resolve(target, depth - 1, found, failures)
                return
            families = [family for family, word in _FAMILIES if kind in ("dns", word)]
            wanted: OSError | None = None
            for family in families:
                try:
                    for ip in await self._hosts(name, family):
                        if len(found) < self._config.addresses_max:
                            found.setdefault(_with_ip(address, ip, name))
                except OSError as error:
                    wanted = error
            if wanted is not None and not found:
                raise wanted
        except (OSError, UnicodeError, Violation) as error:
            failures.append((str(address), f"dial.dns: {error}"))


_FAMILIES = ((socket.AF_INET, "dns4"), (socket.AF_INET6, "dns6"))


def _target(text: str, address: Multiaddr) -> Multiaddr | None:
    """The address in a TXT record; None when it is none, or does not fit what was asked for."""
    word, equals, value = text.partition("=")
    if word != "dnsaddr" or not equals:
        return None
    try:
        target = Multiaddr(value)
    except Violation:
        return None
    # What follows the name must stand at the end of the record: usually the name of a peer.
    rest = address.parts[1:]
    return target if not rest or target.parts[-len(rest) :] == rest else None


def _with_ip(address: Multiaddr, ip: str, name: str) -> Multiaddr:
    kind = "ip6" if ":" in ip else "ip4"
    rest = "".join(
        f"/{part.name}/{part.value}" if part.value else f"/{part.name}" for part in address.parts[1:]
    )
    names = address.names
    if "wss" in names:
        rest = rest.replace("/wss", f"/tls/sni/{name}/ws", 1)
    elif "tls" in names and "sni" not in names:
        rest = rest.replace("/tls", f"/tls/sni/{name}", 1)
    return Multiaddr(f"/{kind}/{ip.partition('%')[0]}{rest}")
