"""Run inside a network namespace of its own: only loopback is there, and a job and a chat work.

unshare -rn python tests/e2e/inside_no_network.py DATA
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
from pathlib import Path

from tests.live import LivePlatform, chats

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


def raise_loopback() -> None:
    """What `ip link set lo up` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def has_route_out() -> bool:
    """Whether a packet to another machine would have a way (192.0.2.1 is nobody's)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return False
    return True


def main(data: Path) -> None:
    raise_loopback()
    assert not has_route_out()
    with LivePlatform(data) as live:
        job = live.create_job(live.upload(chats(10)), "job", n_epochs=1, batch_size=2)
        done = live.wait_for_job(job)
        assert done["status"] == "succeeded", done["error"]
        for model in ("tiny", done["fine_tuned_model"]):
            reply = live.chat(model)
            assert reply.status == 200, reply.body
            assert reply.json["usage"]["completion_tokens"] > 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
