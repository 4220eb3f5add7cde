"""What systemd is told through $NOTIFY_SOCKET (sd_notify(3)); nothing where there is no systemd.

One datagram a message, sent here and not by systemd-python: that one waits for ever when nobody reads, and what watches
over hangs must not hang itself.
"""

from __future__ import annotations

import os
import socket
import time

_PATIENCE_S = 1.0


def notify(*lines: str) -> bool:
    """Send assignments such as `STATUS=…` in one message. False when nobody listens, or reads. An address that begins
    with `@` is abstract: it is no file."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(_PATIENCE_S)
        try:
            sender.sendto("\n".join(lines).encode(), address.replace("@", "\0", 1))
        except OSError:
            return False
    return True


def extend_start(seconds: float) -> bool:
    """Ask for so much more time before a start, a stop or a pause of the watchdog counts as failed."""
    return notify(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")


def ready() -> bool:
    """The start, or the reload that `reloading` began, is over."""
    return notify("READY=1")


def reloading() -> bool:
    """A reload begins; `ready` ends it. `Type=notify-reload` takes the word only with the time it was said."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping() -> bool:
    """The end begins."""
    return notify("STOPPING=1")


def status(sentence: str) -> bool:
    """How things are, in words, for `systemctl status`."""
    return notify(f"STATUS={' '.join(sentence.split())}")


def feed_watchdog() -> bool:
    """Everything goes on."""
    return notify("WATCHDOG=1")


def pull_watchdog(sentence: str) -> bool:
    """Something does not go on: have us ended and started again at once. systemd 243 or newer; an older one does it
    when the watchdog has gone unfed for long enough."""
    return notify(f"STATUS={' '.join(sentence.split())}", "WATCHDOG=trigger")


def supervised() -> bool:
    """Whether systemd runs us as a service, and so may start us again."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def watchdog_s() -> float | None:
    """How often at least systemd wants `feed_watchdog` of this process (WatchdogSec), None when it does not."""
    meant_for = os.environ.get("WATCHDOG_PID")
    if meant_for is not None and meant_for != str(os.getpid()):
        return None
    try:
        microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return microseconds / 1e6 if microseconds > 0 else None
