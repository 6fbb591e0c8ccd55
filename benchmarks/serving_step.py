"""Where one decoding step's time goes: rows, adapters, a profile by operation.

    python -m benchmarks.serving_step [--rows 32] [--adapters 16] [--bits 4] [--profile]
        [--threads 1 --processor-time] [--perf FILE]

The engine's own scheduler, network and sampler in this process, without sockets or text: random
prompts of 45 tokens, then forty steps of greedy decoding, in bf16 or with weights in few bits. On a
machine that others use too, the processor time of one thread says more than the clock does. With
`--perf` Linux's perf samples the steps, for `perf report -i FILE --no-children -g none`.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from afina.domain.clock import SYSTEM_CLOCK
from afina.model.base import load_base
from afina.serving.adapters import AdapterBank
from afina.serving.blocks import BlockAllocator
from afina.serving.cache import KvCache
from afina.serving.runner import Runner
from afina.serving.sampling import Choosing, choose
from afina.serving.scheduler import Limits, Scheduler
from afina.serving.sequences import Prompt, Sequence
from afina.serving.small_weights import Bits

STARTER = Path(__file__).parent.parent / ".afina" / "models" / "smollm2-135m-instruct"
BLOCKS, RANK, STEPS = 4096, 16, 40


class Stepping:
    """Rows that decode for ever."""

    def __init__(self, folder: Path, rows: int, adapters: int, bits: Bits | None = None) -> None:
        base = load_base(folder, "bf16")
        self.runner = Runner(base, KvCache(base.layers, BLOCKS, 16), AdapterBank(64), None, bits)
        self.scheduler = Scheduler(BlockAllocator(BLOCKS, 16), Limits(rows, rows, 64))
        names = [self._adapter(number) for number in range(adapters)]
        rng = random.Random(0)
        for row in range(rows):
            ids = [rng.randrange(3, base.vocab_size) for _ in range(45)]
            prompt = Prompt(f"r{row}", ids, names[row % adapters] if adapters else None)
            prompt.sequences = [Sequence(prompt, 0, 400)]
            self.scheduler.submit(prompt)

    def _adapter(self, number: int) -> str:
        source = torch.Generator().manual_seed(number)
        pairs = {}
        for product in self.runner.layers.products.values():
            for name, (fan_in, fan_out) in product.layers.items():
                if name != "lm_head":
                    a = torch.randn(RANK, fan_in, generator=source) / fan_in**0.5
                    b = torch.randn(fan_out, RANK, generator=source) * 0.02
                    pairs[name] = (a.bfloat16(), b.bfloat16())
        adapter = self.runner.read_adapter(f"adapter-{number}", RANK, pairs)
        self.runner.bank.add(adapter, SYSTEM_CLOCK.monotonic())
        return adapter.sha256

    def step(self, clock: Callable[[], float] = time.perf_counter) -> float:
        """One step; its seconds by `clock`."""
        begun = clock()
        plan = self.scheduler.plan()
        out = self.runner.run(plan)
        for chunk in plan.chunks:
            self.scheduler.computed(chunk)
        ways = [Choosing(0, 0, len(s.tokens), 0.0) for s in out.sequences]
        for sequence, token in zip(out.sequences, choose(out.logits, ways), strict=True):
            self.scheduler.sampled(sequence, token)
        return clock() - begun

    @property
    def all_decode(self) -> bool:
        running = self.scheduler.running
        return bool(running) and all(s.is_decoding for s in running)


@contextmanager
def sampled(file: Path | None) -> Iterator[None]:
    """Has perf sample this process inside the block, if there is a file for it."""
    if file is None:
        yield
        return
    words = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "2000", "-g", "-p", str(os.getpid())]
    with subprocess.Popen([*words, "-o", str(file)]) as perf:
        while not file.exists():
            time.sleep(0.1)
        yield
        perf.send_signal(signal.SIGINT)


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=STARTER)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--adapters", type=int, default=0)
    parser.add_argument("--bits", type=int, choices=[8, 4], help="of the weights; else bf16")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--perf", type=Path, help="where perf writes its samples")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--processor-time", action="store_true", help="not the clock's")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    clock = time.process_time if given.processor_time else time.perf_counter
    stepping = Stepping(given.model, given.rows, given.adapters, given.bits)
    prefill = 0.0
    while not stepping.all_decode:
        prefill += stepping.step(clock)
    for _ in range(10):
        stepping.step()
    with sampled(given.perf):
        steps = sorted(stepping.step(clock) for _ in range(STEPS))
    middle = statistics.median(steps)
    print(
        f"{given.rows} rows, {given.adapters} adapters: prompts {1000 * prefill:.0f} ms; a step "
        f"{1000 * middle:.1f} ms ({1000 * steps[0]:.1f} to {1000 * steps[-1]:.1f}), "
        f"{given.rows / middle:.0f} tokens/s"
    )
    if given.profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            for _ in range(5):
                stepping.step()
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=20))


if __name__ == "__main__":
    main()
