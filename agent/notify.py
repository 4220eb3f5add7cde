"""What systemd is told through $NOTIFY_SOCKET (sd_notify(3)); nothing where there is no systemd."""

from __future__ import annotations

import os
import socket


def notify(*lines: str) -> bool:
    """Send assignments such as `STATUS=…` in one message. False when nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto("\n".join(lines).encode(), address.replace("@", "\0", 1))
        except OSError:
            return False
    return True


def extend_start(seconds: float) -> bool:
    """Ask for so much more time before a start, a stop or a pause of the watchdog counts as failed."""
    return notify(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")
