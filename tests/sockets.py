"""What a client sees of its connection."""

import socket


def is_ended(one: socket.socket, *, within: float = 20.0) -> bool:
    """Whether the server ends the connection in these seconds; what it sent first is read."""
    one.settimeout(within)
    try:
        while one.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True
