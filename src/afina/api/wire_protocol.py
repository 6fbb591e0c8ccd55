"""HTTP as uvicorn speaks it, with one difference: bytes that are no HTTP are refused in the error
envelope too, so that a client never has to read two kinds of errors."""

from __future__ import annotations

import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from afina.api.errors import envelope
from afina.errors import InvalidRequest


class EnvelopedProtocol(HttpToolsProtocol):
    """Refuses what cannot be read as HTTP; the connection ends."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Called by uvicorn, whose `msg` says nothing of use to a client."""
        error = InvalidRequest(
            "This is no HTTP request that can be read.",
            remedy="A URL with control characters, or another protocol than HTTP, does this.",
        )
        body = json.dumps(envelope(error)).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nx-should-retry: false\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
