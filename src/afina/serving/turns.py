"""Whose turn it is: in turns among namespaces, then among the models of one namespace.

A user with a hundred requests and one with a single request are served alike, and so are the models
of one user; requests for the same model of the same user keep their order. Plain Python.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from afina.serving.sequences import Sequence

_Queue = OrderedDict[str | None, deque[Sequence]]


class Turns:
    """Sequences that wait for something, fairly ordered."""

    def __init__(self) -> None:
        self._spaces: OrderedDict[str, _Queue] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._spaces)

    def __iter__(self) -> Iterator[Sequence]:
        """All that wait, in no particular order."""
        for models in self._spaces.values():
            for queue in models.values():
                yield from queue

    def add(self, sequence: Sequence, *, front: bool = False) -> None:
        """Lets `sequence` wait; in front of all others of its model if asked."""
        prompt = sequence.prompt
        models = self._spaces.setdefault(prompt.namespace, OrderedDict())
        queue = models.setdefault(prompt.adapter, deque())
        if front:
            queue.appendleft(sequence)
        else:
            queue.append(sequence)

    def next(self) -> Sequence | None:
        """Whose turn it is; it stays where it is."""
        for models in self._spaces.values():
            for queue in models.values():
                return queue[0]
        return None

    def served(self, sequence: Sequence) -> None:
        """`sequence` had its turn and waits for another, behind all others."""
        self.remove(sequence)
        self.add(sequence)

    def remove(self, sequence: Sequence) -> None:
        """`sequence` no longer waits: the others of its model and namespace had their turn."""
        prompt = sequence.prompt
        models = self._spaces[prompt.namespace]
        queue = models[prompt.adapter]
        queue.remove(sequence)
        if queue:
            models.move_to_end(prompt.adapter)
        else:
            del models[prompt.adapter]
        if models:
            self._spaces.move_to_end(prompt.namespace)
        else:
            del self._spaces[prompt.namespace]
