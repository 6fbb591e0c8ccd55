"""Other servers as peers of benchmarks/serving.py, each in a process of its own.

    python -m benchmarks.serving_peers MODEL.gguf SLOTS

runs llama.cpp's server (package `xllamacpp`), as it comes but for its slots: it writes its address
when it listens, and ends when its input does. The starter is given to it as afina exports it in 4
bits: Q4_1, with the head in Q8_0.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from afina.model.gguf_export import Label, Talk, Weights, write_model
from afina.text.renderer import Renderer
from afina.text.template import read_template

_CONTEXT_TOKENS = 256
"""A slot's room: prompts are about 45 tokens and answers 64."""


@contextlib.contextmanager
def llama_cpp(folder: Path, scratch: Path, slots: int) -> Iterator[str]:
    """llama.cpp's server for the model in `folder`, until the block ends; its address."""
    renderer = Renderer.load(folder)
    talk = Talk(read_template(folder).default, renderer.end_token, renderer.tokenizer.opening_ids)
    file = scratch / "peer-q4_1.gguf"
    write_model(folder, file, talk, Label(folder.name), Weights.Q4_1)
    command = [sys.executable, "-m", "benchmarks.serving_peers", str(file), str(slots)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        address = process.stdout.readline().strip() if process.stdout else ""
        if not address.startswith("http"):
            raise SystemExit("llama.cpp's server did not start; is xllamacpp installed?")
        try:
            yield address
        finally:
            if process.stdin is not None:
                process.stdin.close()


def main() -> None:
    """Serves until the input ends."""
    import xllamacpp

    cores = len(os.sched_getaffinity(0))
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_parallel = int(sys.argv[2])
    params.n_ctx = _CONTEXT_TOKENS * params.n_parallel
    params.use_jinja = True
    params.verbosity = 0
    params.cpuparams.n_threads = cores
    params.cpuparams_batch.n_threads = cores
    # a prompt that was asked before would be answered from memory
    params.cache_ram_mib = 0
    params.cache_prompt = False
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
