"""A flame graph of decoding steps, as one SVG without scripts.

    python -m benchmarks.flame --out docs/images/step.svg [--py-spy PATH] [--rows 32]
        [--adapters 16] [--threads 1] [--steps 150]

py-spy (a package of its own, in an environment of its own) samples this process while it makes
steps (`benchmarks.serving_step`), Python's frames and the kernels' alike. A box is as wide as the
samples in which its function was at work or waited for another one above it. What is narrower than
a thousandth is left out; hovering over a box names it and says its share.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import torch
from benchmarks.serving_step import STARTER, Stepping

RATE = 250
ROOT = "Stepping.step"
WIDTH, LINE, LEAST = 1200.0, 17, 0.001
_WHERE = re.compile(r" \((?:.*/)?([^/:)]+)(?::\d+)?\)$")
_OPAQUE = re.compile(r"^0x[0-9a-f]+$")


@dataclass
class Box:
    """A function below one stack of callers."""

    name: str
    samples: int = 0
    above: dict[str, Box] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        return 1 + max((box.depth for box in self.above.values()), default=0)


def read(lines: Iterable[str]) -> Counter[tuple[str, ...]]:
    """Stacks from the step on, and their samples, of py-spy's raw form."""
    found: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        frames = [named(frame) for frame in stack.split(";")]
        places = [i for i, (name, _) in enumerate(frames) if name == ROOT]
        if places:
            kept = [name for name, _ in frames[places[0] :] if not _OPAQUE.match(name)]
            found[tuple(kept)] += int(count)
    return found


def named(frame: str) -> tuple[str, str]:
    """A frame's function and the file that it is in."""
    where = _WHERE.search(frame)
    return (frame, "") if where is None else (frame[: where.start()], where[1])


def grow(stacks: Counter[tuple[str, ...]]) -> Box:
    """The boxes of all stacks."""
    root = Box(ROOT)
    for stack, count in stacks.items():
        box = root
        box.samples += count
        for name in stack[1:]:
            box = box.above.setdefault(name, Box(name))
            box.samples += count
    return root


def draw(root: Box, title: str) -> str:
    """The SVG."""
    shown = prune(root, root.samples * LEAST)
    height = (shown.depth + 2) * LINE
    boxes: list[str] = []

    def put(box: Box, left: float, level: int) -> None:
        width = WIDTH * box.samples / root.samples
        top = height - (level + 1) * LINE
        share = f"{box.name}: {100 * box.samples / root.samples:.1f} %"
        letters = int(width / 6.6)
        text = box.name if len(box.name) <= letters else box.name[: max(0, letters - 1)] + "…"
        said = f'<text x="{left + 3:.1f}" y="{top + 12}">{escape(text)}</text>'
        boxes.append(
            f'<g><title>{escape(share)}</title><rect x="{left:.1f}" y="{top}" '
            f'width="{max(width - 0.5, 0.3):.1f}" height="{LINE - 1}" fill="{colour(box.name)}"/>'
            f"{said if letters > 3 else ''}</g>"
        )
        for other in sorted(box.above.values(), key=lambda one: one.name):
            put(other, left, level + 1)
            left += WIDTH * other.samples / root.samples

    put(shown, 0.0, 0)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height}" '
        'font-family="monospace" font-size="11" fill="#222">\n'
        f'<rect width="100%" height="100%" fill="#fff"/><text x="3" y="13">{escape(title)}</text>\n'
        + "\n".join(boxes)
        + "\n</svg>\n"
    )


def prune(box: Box, least: float) -> Box:
    """The same without what is too narrow to be seen."""
    above = {n: prune(b, least) for n, b in box.above.items() if b.samples >= least}
    return Box(box.name, box.samples, above)


def colour(name: str) -> str:
    """A warm colour, the same for a name each time."""
    seed = sum(ord(letter) * (place + 1) for place, letter in enumerate(name))
    return f"hsl({10 + seed % 45},{70 + seed % 20}%,{65 + seed % 15}%)"


def sample(py_spy: str, act: Callable[[], object]) -> list[str]:
    """py-spy's lines over this process while `act` runs."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stacks"
        words = [py_spy, "record", "--native", "-r", str(RATE), "-f", "raw", "-d", "3600"]
        process = subprocess.Popen(
            [*words, "-p", str(os.getpid()), "-o", str(file)], stdout=subprocess.DEVNULL
        )
        time.sleep(1.0)
        act()
        process.send_signal(signal.SIGINT)
        process.wait(60)
        return file.read_text().splitlines()


def main() -> None:
    """Reads the command line, samples, draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--py-spy", default="py-spy")
    parser.add_argument("--model", type=Path, default=STARTER)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--adapters", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=150)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    stepping = Stepping(given.model, given.rows, given.adapters)
    while not stepping.all_decode:
        stepping.step()
    lines = sample(given.py_spy, lambda: [stepping.step() for _ in range(given.steps)])
    stacks = read(lines)
    title = (
        f"{given.steps} decoding steps of {given.rows} rows, {given.adapters} adapters of rank 16, "
        f"{given.threads} threads; {stacks.total()} samples"
    )
    given.out.write_text(draw(grow(stacks), title))
    print(f"{given.out}: {given.out.stat().st_size // 1000} kB, {stacks.total()} samples")


if __name__ == "__main__":
    main()
