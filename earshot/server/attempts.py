"""Wrong tokens slow their sender down: after a few, an address waits before the next is looked at.

While it waits no token is compared, so that trying on tells nothing. Many may share an address: a
right token forgives nobody, as it may be another's than who guesses. What is remembered is bounded:
the addresses that were wrong last.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from threading import Lock

FREE_ATTEMPTS = 5
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
# After so long without a wrong token an address is forgotten.
FORGOTTEN_S = 900.0
MAX_ADDRESSES = 1024
# A household's or a machine's share of IPv6: single addresses are free there.
IPV6_NETWORK_BITS = 64


class Attempts:
    """How many wrong tokens came from which address, and until when it waits."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Seconds until a token from an address is looked at again; 0 for at once."""
        with self._lock:
            count, last_s = self._wrong.get(network_of(address), (0, 0.0))
        if count < FREE_ATTEMPTS:
            return 0.0
        wait_s = min(FIRST_WAIT_S * 2.0 ** min(count - FREE_ATTEMPTS, 30), LONGEST_WAIT_S)
        return max(0.0, last_s + wait_s - time.monotonic())

    def note(self, address: str) -> None:
        """Count a wrong token."""
        network, now_s = network_of(address), time.monotonic()
        with self._lock:
            count, last_s = self._wrong.pop(network, (0, now_s))
            count = 0 if now_s - last_s > FORGOTTEN_S else count
            self._wrong[network] = count + 1, now_s
            while len(self._wrong) > MAX_ADDRESSES:
                self._wrong.popitem(last=False)


def network_of(address: str) -> str:
    """What is counted together: an IPv4 address, the /64 of an IPv6 one."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if known.version == 4:
        return str(known)
    return str(ipaddress.ip_network((int(known), IPV6_NETWORK_BITS), strict=False))


def told(wait_s: float) -> str:
    """What is said to who must wait."""
    return f"too many wrong tokens; try again in {max(1, round(wait_s + 0.5))} s"
