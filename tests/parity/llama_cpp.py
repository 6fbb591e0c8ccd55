"""llama.cpp as the judge of what is exported: its server, in a process of its own.

    python llama_cpp.py MODEL [LORA]

Writes its address when it listens; ends when its input does. Caches hold 32-bit floats and attention
is the plain one, so that what differs is the order of sums alone.
"""

from __future__ import annotations

import sys

import xllamacpp


def main() -> None:
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_ctx = 1024
    params.n_parallel = 1
    params.warmup = False
    params.use_jinja = True
    params.verbosity = 0
    plain = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.flash_attn_type = plain
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
    params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    if len(sys.argv) > 2:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path = sys.argv[2]
        adapter.scale = 1.0
        params.lora_adapters = [adapter]
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
