"""Who may purge by the method PURGE."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from blocks.core.errors import ConfigError


class Purgers:
    """Networks whose clients may purge. Raises ``ConfigError`` for a name that is no address or network."""

    def __init__(self, networks: Iterable[str]) -> None:
        try:
            self._networks = [ipaddress.ip_network(name, strict=False) for name in networks]
        except ValueError as error:
            raise ConfigError(f"allow_purge: {error}; write addresses or networks like 10.0.0.0/8") from None

    def may(self, client: str) -> bool:
        """Whether ``client``, an address as text, is in one of them; what is no address (a Unix socket) is in none."""
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False
        return any(address in network for network in self._networks)
