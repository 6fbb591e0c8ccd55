"""Base and tuned model answer the same question at the same time, streamed, side by side.

The official `openai` client asks; only its `base_url` and key say that afina answers. At a terminal
both answers grow in two columns; elsewhere they are printed one below the other.
"""

from __future__ import annotations

import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from openai import OpenAI
from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

MAX_TOKENS = 96


def ask(client: OpenAI, model: str, question: str, heard: Callable[[str], None]) -> str:
    """One streamed answer; `heard` is given each piece as it comes."""
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_completion_tokens=MAX_TOKENS,
        stream=True,
    )
    pieces = []
    for chunk in stream:
        piece = chunk.choices[0].delta.content if chunk.choices else None
        if piece:
            pieces.append(piece)
            heard(piece)
    return "".join(pieces)


def duet(client: OpenAI, names: tuple[str, str], question: str) -> tuple[str, str]:
    """Both models' answers to a question, shown as they come."""
    heard = ["", ""]
    lock = threading.Lock()

    def listener(side: int) -> Callable[[str], None]:
        def take(piece: str) -> None:
            with lock:
                heard[side] += piece

        return take

    with ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(ask, client, name, question, listener(side))
            for side, name in enumerate(names)
        ]
        if sys.stdout.isatty():
            with Live(_columns(question, heard), refresh_per_second=12) as live:
                while not all(future.done() for future in futures):
                    threading.Event().wait(0.08)
                    live.update(_columns(question, heard))
                live.update(_columns(question, heard))
        base, tuned = (future.result() for future in futures)
    if not sys.stdout.isatty():
        print(f"> {question}")
        for label, answer in (("base", base), ("tuned", tuned)):
            told = textwrap.fill(
                " ".join(answer.split()), 96, initial_indent="  ", subsequent_indent="         "
            )
            print(f"  {label:5} {told.strip()}")
        print(flush=True)
    return base, tuned


def _columns(question: str, heard: list[str]) -> Panel:
    width = max(30, min(Console().width, 120) // 2 - 4)
    sides = [
        Panel(Text(text), title=label, width=width, style=style)
        for label, text, style in (("base", heard[0], ""), ("tuned", heard[1], "cyan"))
    ]
    return Panel(Columns(sides), title=question, title_align="left", border_style="dim")
