"""Where a server listens."""

from __future__ import annotations

import socket


def check(host: str, port: int) -> None:
    """That a server can listen there; to be asked before a model is loaded for it.

    Raises:
        OSError: it cannot: the port is taken, or the address is none of this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: a port whose last connections are only just closed is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}, port {port} ({error.strerror}); choose another with --port "
            "or --host"
        ) from error
