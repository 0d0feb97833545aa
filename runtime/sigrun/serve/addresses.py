"""Which internet addresses are public: all others may be doors into the network that the server stands in."""

from __future__ import annotations

import ipaddress
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Named here, so that it does not hang on what each version of Python holds for global.
_NOT_PUBLIC_4: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # between providers and customers
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local: cloud metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",
    )
)
_PUBLIC_6: Final = ipaddress.IPv6Network("2000::/3")  # all that is assigned for the internet
_NOT_PUBLIC_6: Final = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # Teredo, ORCHID, benchmarks
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address inside
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


def parse_address(text: str) -> Address | None:
    """An address in its standard notation, without a zone; none for anything else."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet.

    A mapped IPv4 address (``::ffff:1.2.3.4``) is judged by the one inside. Addresses that lead through a tunnel or a
    translator (6to4, Teredo, NAT64) are never public here: where they end is not theirs to say.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address.scope_id is not None:
        return False
    if address in _MAPPED:
        inner = address.ipv4_mapped
        return inner is not None and is_public(inner)
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to ``host``."""
    address = parse_address(host)
    return address.is_loopback if address is not None else host.lower() == "localhost"
