"""`afina chat MODEL`: talk to a model, streamed; at a terminal or piped from standard input.

The whole conversation goes to the server with every turn; nothing of it is kept on disk.
"""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afina.cli.options import DataOption, JsonOption, ServerOption, open_client
from afina.cli.terminal import tell
from afina.errors import AfinaError, Unauthenticated, Unavailable

if TYPE_CHECKING:
    from afina.cli.client import Client

_HELP = "Ctrl-D or /exit ends, /reset begins anew, /help says this again."


def chat(
    model: Annotated[str, typer.Argument(help="A base or tuned model's name.")],
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="0 always takes the likeliest word.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Keep the likeliest words only.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed, the same answer.")] = None,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Talk to a model. Piped input is one question a line; with --json, one answer a line."""
    asked = {
        "temperature": temperature,
        "top_p": top_p,
        "max_completion_tokens": max_tokens,
        "seed": seed,
    }
    body = {"model": model, **{name: value for name, value in asked.items() if value is not None}}
    with open_client(data, server) as client:
        talk = Conversation(client, body, system)
        if sys.stdin.isatty() and not json:
            from afina.cli.client import segment

            client.get(f"/v1/models/{segment(model)}")  # say at once that there is no such model
            tell(f"{model}. {_HELP}")
            _converse(talk, _typed())
        else:
            _converse(talk, _piped(), as_json=json, strict=True)


class Conversation:
    """The turns so far, and how to get the next answer."""

    def __init__(self, client: Client, body: dict[str, Any], system: str | None) -> None:
        self._client = client
        self._body = body
        self._start = [] if system is None else [{"role": "system", "content": system}]
        self.messages: list[dict[str, str]] = list(self._start)

    def reset(self) -> None:
        """Forget all turns but the system message."""
        self.messages = list(self._start)

    def answer(self, question: str) -> Iterator[str]:
        """The pieces of the answer as they come. A turn that breaks off is forgotten."""
        before = list(self.messages)
        self.messages.append({"role": "user", "content": question})
        pieces: list[str] = []
        try:
            body = self._body | {"messages": self.messages, "stream": True}
            for chunk in self._client.events("/v1/chat/completions", body):
                for choice in chunk["choices"]:
                    piece = choice["delta"].get("content") or ""
                    pieces.append(piece)
                    yield piece
        except BaseException:
            self.messages = before
            raise
        self.messages.append({"role": "assistant", "content": "".join(pieces)})


def _converse(
    talk: Conversation, questions: Iterator[str], as_json: bool = False, strict: bool = False
) -> None:
    for question in questions:
        match question.strip():
            case "":
                continue
            case "/exit" | "/quit":
                return
            case "/reset":
                talk.reset()
                tell("Begun anew.")
                continue
            case "/help":
                tell(_HELP)
                continue
            case text if text.startswith("/"):
                tell(f"There is no command {text.split()[0]}. {_HELP}")
                continue
        try:
            _say(talk, question.strip(), as_json)
        except (Unavailable, Unauthenticated):
            raise
        except AfinaError as error:
            if strict:
                raise
            tell(error.one_line())
        except KeyboardInterrupt:
            if strict:
                raise
            tell("\n(broken off)")


def _say(talk: Conversation, question: str, as_json: bool) -> None:
    if as_json:
        answer = "".join(talk.answer(question))
        print(jsonlib.dumps({"question": question, "answer": answer}, ensure_ascii=False))
        sys.stdout.flush()
        return
    for piece in talk.answer(question):
        print(piece, end="", flush=True)
    print(flush=True)


def _typed() -> Iterator[str]:
    with suppress(ImportError):
        import readline  # noqa: F401 - gives input() its editing and history
    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()


def _piped() -> Iterator[str]:
    yield from sys.stdin
