"""`afina api`, with a thread that prints where all threads stand when it is asked to.

    python -m benchmarks.api_stacks PORT api --data …

Whoever sends a datagram to PORT asks. benchmarks/api.py starts its server so.
"""

from __future__ import annotations

import socket
import sys
import threading
import traceback

from afina.cli.main import main


def show_stacks(door: socket.socket) -> None:
    """Prints all stacks for each datagram, for as long as the process lives."""
    while door.recv(16):
        for number, frame in sys._current_frames().items():
            if number != threading.get_ident():
                where = "".join(traceback.format_stack(frame)[-8:])
                print(f"Thread {number}\n{where}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", int(sys.argv.pop(1))))
    threading.Thread(target=show_stacks, args=[listener], daemon=True).start()
    main()
