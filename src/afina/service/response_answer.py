"""The wire's shapes of responses: the document as it grows, and the events that tell its growth.

One builder makes both, so that the events of a stream add up to the document that is stored.
"""

from __future__ import annotations

from typing import Any

import msgspec

from afina.domain import ids
from afina.service.chat_answer import told_logprobs
from afina.service.told import CallArguments, CallBegun, ChoiceReader, Event, Said
from afina.serving.protocol import Delta, Final
from afina.text.calls import CallSyntax

_ENCODER = msgspec.json.Encoder()
ResponseEvent = dict[str, Any]


class ResponseBuilder:
    """One response as it is answered. `document` is what the wire shows of it."""

    def __init__(
        self,
        document: dict[str, Any],
        syntax: CallSyntax | None,
        source: ids.Ids,
        *,
        logprobs: bool,
    ) -> None:
        self.document = document
        self._reader = ChoiceReader(syntax)
        self._source = source
        self._logprobs = logprobs
        self._sequence = 0
        self._open: dict[str, Any] | None = None

    @property
    def _output(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.document["output"]
        return items

    def begin(self) -> list[ResponseEvent]:
        """The first events."""
        empty = {**self.document, "output": []}
        return [
            self._event("response.created", response=empty),
            self._event("response.in_progress", response=empty),
        ]

    def take(self, delta: Delta) -> list[ResponseEvent]:
        """What one more piece tells."""
        told = told_logprobs(delta.logprobs) if self._logprobs else []
        events: list[ResponseEvent] = []
        heard = self._reader.take(delta)
        if told and not any(isinstance(event, Said) for event in heard):
            said = self._open is not None and self._open["type"] == "message"
            heard = [Said(""), *heard] if said or not self._output else heard
        for event in heard:
            if isinstance(event, Said):
                events += self._say(event.text, told)
                told = []
            else:
                events += self._call(event)
        if delta.finish is not None:
            whole = delta.finish != "length"
            if not self._output:
                events += self._say("", [])
            events += self._close("completed" if whole else "incomplete")
            self.document["status"] = "completed" if whole else "incomplete"
            if not whole:
                self.document["incomplete_details"] = {"reason": "max_output_tokens"}
        return events

    def finish(self, final: Final, now: int) -> list[ResponseEvent]:
        """The last event."""
        self.document["usage"] = usage(final)
        if self.document["status"] == "completed":
            self.document["completed_at"] = now
        return [self._event(f"response.{self.document['status']}", response=self.document)]

    def _say(self, text: str, told: list[dict[str, Any]]) -> list[ResponseEvent]:
        events: list[ResponseEvent] = []
        if self._open is None or self._open["type"] != "message":
            events += self._close("completed")
            events += self._add(
                {
                    "id": self._source.new(ids.MESSAGE),
                    "type": "message",
                    "status": "in_progress",
                    "role": "assistant",
                    "content": [],
                }
            )
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            shown = {**part, "annotations": [], "logprobs": []}
            events.append(self._part("response.content_part.added", part=shown))
            self._output[-1]["content"].append(part)
        part = self._output[-1]["content"][0]
        part["text"] += text
        part["logprobs"] += told
        if text or told:
            events.append(self._part("response.output_text.delta", delta=text, logprobs=told))
        return events

    def _call(self, event: Event) -> list[ResponseEvent]:
        if isinstance(event, CallBegun):
            events = self._close("completed")
            call = {
                "id": self._source.new(ids.FUNCTION_CALL),
                "type": "function_call",
                "status": "in_progress",
                "call_id": self._source.new(ids.CALL),
                "name": event.name,
                "arguments": "",
            }
            return events + self._add(call)
        assert isinstance(event, CallArguments)
        self._output[-1]["arguments"] += event.text
        return [self._of_item("response.function_call_arguments.delta", delta=event.text)]

    def _add(self, item: dict[str, Any]) -> list[ResponseEvent]:
        self._output.append(item)
        self._open = item
        shown = {**item, "content": []} if item["type"] == "message" else dict(item)
        return [
            self._event(
                "response.output_item.added", output_index=len(self._output) - 1, item=shown
            )
        ]

    def _close(self, status: str) -> list[ResponseEvent]:
        item, self._open = self._open, None
        if item is None:
            return []
        item["status"] = status
        events = []
        if item["type"] == "message":
            part = item["content"][0]
            told = {"text": part["text"], "logprobs": part["logprobs"]}
            events.append(self._part("response.output_text.done", **told))
            events.append(self._part("response.content_part.done", part=part))
        else:
            told = {"arguments": item["arguments"], "name": item["name"]}
            events.append(self._of_item("response.function_call_arguments.done", **told))
        place = len(self._output) - 1
        done = self._event("response.output_item.done", output_index=place, item=item)
        return [*events, done]

    def _part(self, kind: str, **told: Any) -> ResponseEvent:
        return self._of_item(kind, content_index=0, **told)

    def _of_item(self, kind: str, **told: Any) -> ResponseEvent:
        place = len(self._output) - 1
        return self._event(kind, item_id=self._output[-1]["id"], output_index=place, **told)

    def _event(self, kind: str, **told: Any) -> ResponseEvent:
        self._sequence += 1
        return {"type": kind, "sequence_number": self._sequence - 1, **told}


def written(event: ResponseEvent, padding: ids.Ids | None) -> bytes:
    """An event as a server-sent one; deltas are padded where that was asked for."""
    if padding is not None and event["type"].endswith(".delta"):
        event = {**event, "obfuscation": padding.new("", 1 + padding.seed() % 16)}
    return b"event: %s\ndata: %s\n\n" % (event["type"].encode(), _ENCODER.encode(event))


def encoded(document: dict[str, Any]) -> bytes:
    """A document as JSON."""
    return _ENCODER.encode(document)


def usage(final: Final) -> dict[str, Any]:
    """The totals as the engine counted them."""
    return {
        "input_tokens": final.prompt_tokens,
        "input_tokens_details": {"cached_tokens": final.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": final.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": final.prompt_tokens + final.completion_tokens,
    }
