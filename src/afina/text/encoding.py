"""Text that a template wrote, as ids, and where in the ids given places of the text are.

The whole text is encoded at once, as the model's makers do. A place, such as the one where an
assistant begins to speak, must also be a border between tokens: what stands before it must be the
very ids that serving sends as the prompt. Nearly always it is. Where the tokenizer would join
characters across the place (an answer that begins with a line break, say), or where marks stand
in the text, the text is encoded in pieces instead.

Pieces between control tokens give the same ids as the whole: `tokenizers` takes added tokens out
of a text first, and neither its pre-tokenizer nor its merges look beyond a piece. Whitespace that
an added token takes along is part of the match, and `encode_piece` sees to tokenizers that write
the beginning of a text differently. tests/unit/text/test_encoding.py holds this for several kinds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afina.errors import InvalidRequest
from afina.text.tokenizer import ChatTokenizer

_SHORT_CHARACTERS = 64


@dataclass(frozen=True)
class TemplateText:
    """What a template wrote: `cuts` are places in it, ascending; `mark` as in afina.text.marks."""

    text: str
    cuts: tuple[int, ...]
    mark: str | None = None


@dataclass(frozen=True)
class Encoded:
    """Ids, and the number of ids before each cut."""

    ids: NDArray[np.int32]
    positions: tuple[int, ...]


class TextEncoder:
    """Encodes what templates write with one tokenizer."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        ids = np.fromiter(tokenizer.control_ids, dtype=np.int64)
        size = max(tokenizer.vocab_size, int(ids.max()) + 1 if len(ids) else 0)
        self._is_control = np.zeros(size, dtype=np.bool_)
        self._is_control[ids] = True
        self._short = functools.lru_cache(maxsize=1024)(
            lambda text, first: tuple(self._encode_piece(text, first))
        )

    def encode(self, source: TemplateText) -> Encoded:
        """One text."""
        return self.encode_many([source])[0]

    def encode_many(self, sources: Sequence[TemplateText]) -> list[Encoded]:
        """Many texts; those without marks on all threads at once."""
        plain = [source.text for source in sources if source.mark is None]
        whole = iter(self._tokenizer.encode_templates(plain))
        done = []
        for source in sources:
            fast = self._place(source, next(whole)) if source.mark is None else None
            done.append(fast if fast is not None else self._in_pieces(source))
        return done

    def _place(self, source: TemplateText, ids: NDArray[np.int32]) -> Encoded | None:
        """Where the cuts are among the ids of the whole text, or None where one is no border."""
        text = source.text
        spans = [match.span() for match in self._tokenizer.control_pattern.finditer(text)]
        control_at = self._is_control[ids].nonzero()[0].tolist()
        if len(control_at) != len(spans):
            return None
        positions, number, start, position = [], 0, 0, 0
        for cut in source.cuts:
            while number < len(spans) and spans[number][0] < cut:
                start, position = spans[number][1], control_at[number] + 1
                number += 1
            place = position
            if start < cut:
                before = self._before(text[start:cut], first=start == 0)
                place += len(before)
                if tuple(ids[position:place].tolist()) != before:
                    return None
            positions.append(place)
        return Encoded(ids, tuple(positions))

    def _before(self, text: str, first: bool) -> tuple[int, ...]:
        """Ids of the text between the last control token and a cut; mostly a role's name."""
        if not text:
            return ()
        if len(text) <= _SHORT_CHARACTERS:
            return self._short(text, first)
        return tuple(self._encode_piece(text, first))

    def _encode_piece(self, text: str, first: bool) -> list[int]:
        return self._tokenizer.encode(text) if first else self._tokenizer.encode_piece(text)

    def _in_pieces(self, source: TemplateText) -> Encoded:
        """Piece by piece: control tokens, and the texts between them, cut where they must be."""
        ids: list[int] = []
        positions: list[int] = []
        waiting = list(source.cuts)
        done = 0
        for match in self._tokenizer.control_pattern.finditer(source.text):
            self._piece(source, (done, match.start()), waiting, (ids, positions))
            token = self._tokenizer.token_id(match.group().strip())
            ids.append(self._control_id(match.group()) if token is None else token)
            done = match.end()
            while waiting and match.start() < waiting[0] <= done:
                waiting.pop(0)
                positions.append(len(ids))
        self._piece(source, (done, len(source.text)), waiting, (ids, positions))
        return Encoded(np.array(ids, dtype=np.int32), tuple(positions))

    def _control_id(self, text: str) -> int:
        return next(p.id for p in self._tokenizer.control if p.text in text)

    def _piece(
        self,
        source: TemplateText,
        place: tuple[int, int],
        waiting: list[int],
        done: tuple[list[int], list[int]],
    ) -> None:
        """One text between control tokens; `waiting` cuts inside it are made, and borders kept."""
        start, end = place
        ids, positions = done
        encode: Callable[[str, bool], list[int]] = functools.partial(self._checked, source.mark)
        while waiting and waiting[0] <= end:
            cut = waiting.pop(0)
            head = encode(source.text[start:cut], start == 0)
            rest = encode(source.text[start:end], start == 0)
            if rest[: len(head)] != head:
                ids.extend(head)
                start = cut
                positions.append(len(ids))
                continue
            positions.append(len(ids) + len(head))
        ids.extend(encode(source.text[start:end], start == 0))

    def _checked(self, mark: str | None, text: str, first: bool) -> list[int]:
        """Ids of plain text. A tokenizer that makes a control token of it is caught here."""
        if mark is not None:
            text = text.replace(mark, "")
        if not text:
            return []
        ids = self._tokenizer.encode(text) if first else self._tokenizer.encode_piece(text)
        if not self._tokenizer.control_ids.isdisjoint(ids):
            raise InvalidRequest(
                "A message holds text that this model's tokenizer reads as a control token.",
                param="messages",
                remedy="Take the control token out of the text.",
            )
        return ids
