"""The tour: from a spreadsheet to a tuned model that answers, in one sitting, on this machine.

`make demo` runs it; every chapter shows the command that you would type. It needs the starter model
in the data directory (`afina models pull smollm2-135m-instruct --data .afina`) and nothing from
the network.
"""

from __future__ import annotations

import csv
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from openai import OpenAI

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(Path(__file__).parent))

from duet import ask, duet  # noqa: E402
from judge import mean_log_likelihood, share_with_markers  # noqa: E402
from stage import BOLD, PLAIN, Stage, TourFailed  # noqa: E402

BASE = "smollm2-135m-instruct"
FAR_SHARE, FAR_NATS = 0.3, 0.8
"""How far above its base the tuned model must be, in each judgement, for the tour to succeed."""
SHOWN = 4
"""Questions that are answered side by side before your eyes; the others are asked all at once."""


def tour(stage: Stage) -> bool:
    """All chapters; whether the tuned model has learned the manner."""
    where = stage.data / "tour"
    where.mkdir(parents=True, exist_ok=True)
    chats, clean = (str((where / name).relative_to(ROOT)) for name in ("bard.jsonl", "clean.jsonl"))
    with stage.chapter("Convert", "A spreadsheet as Excel saves it becomes chats, one a line."):
        source = "examples/bard/questions.csv"
        columns = ("--user", "Question", "--assistant", "Answer")
        stage.run("data", "convert", source, *columns, "--to", chats)
    with stage.chapter("Check", "One row has no answer. It is named, dropped and counted."):
        stage.run("data", "check", chats, "--clean", clean)
    with stage.chapter("Estimate", "Tokens, time and money, before anything is spent."):
        stage.run("data", "estimate", clean, "--model", BASE)
    with stage.chapter("Start", "The whole platform: api, worker and engine."):
        url = stage.start_platform(free_port())
    with stage.chapter("Upload", "The file goes to the server, which never changes it."):
        file_id = stage.ask("files", "upload", clean)
    with stage.chapter("Tune", "A job is created and followed to its end; the loss falls."):
        asked = ("--model", BASE, "--file", file_id, "--suffix", "bard", "--seed", "7")
        job_id = stage.ask("jobs", "create", *asked)
        stage.run("jobs", "watch", job_id)
    client = OpenAI(
        base_url=f"{url}/v1", api_key=(stage.data / "api-key").read_text().strip(), max_retries=0
    )
    tuned = client.fine_tuning.jobs.retrieve(job_id).fine_tuned_model
    if tuned is None:
        raise TourFailed(f"The job {job_id} has no tuned model.")
    with stage.chapter("Ask", "Questions that it never saw, through the official openai client."):
        print(f'client = OpenAI(base_url="{url}/v1", api_key=…)\nmodel  = "{tuned}"\n')
        answers = ask_all(client, (BASE, tuned))
    with stage.chapter("Judge", "Did it learn the manner? Two judges that are not the loss."):
        stage.run("models", "show", tuned)
        learned = judge(stage, client, (BASE, tuned), answers)
    with stage.chapter("Account", "Every token, trained or answered, is in one ledger."):
        stage.run("usage")
    with stage.chapter("Stop", "Ctrl-C to `afina up` drains and stops every process."):
        stage.stop_platform()
    return learned


def ask_all(client: OpenAI, names: tuple[str, str]) -> tuple[list[str], list[str]]:
    """Each model's answers to the held-out questions, in their order."""
    questions = [question for question, _ in held_out()]
    pairs = [duet(client, names, question) for question in questions[:SHOWN]]
    rest = questions[SHOWN:]
    asked = [(name, question) for name in names for question in rest]
    started = time.monotonic()
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(lambda one: ask(client, *one, lambda _: None), asked))
    print(
        f"The other {len(rest)} questions were asked of both at once, {len(asked)} streams in one "
        f"batch: {time.monotonic() - started:.1f} s."
    )
    base = [pair[0] for pair in pairs] + found[: len(rest)]
    tuned = [pair[1] for pair in pairs] + found[len(rest) :]
    return base, tuned


def judge(
    stage: Stage, client: OpenAI, names: tuple[str, str], answers: tuple[list[str], list[str]]
) -> bool:
    """Prints both judges' verdicts; whether the tuned model is far above its base in both."""
    from afina.serving.client import BlockingEngineClient
    from afina.settings import Settings

    engine = BlockingEngineClient(Settings(data=stage.data).engine_socket)
    base = (BASE, stage.data / "models" / BASE)
    facts = client.get(f"/afina/models/{names[1]}", cast_to=dict[str, object])
    adapters = (None, str(facts["manifest"]))
    shares = [share_with_markers(given) for given in answers]
    likely = [mean_log_likelihood(engine, base, adapter, held_out()) for adapter in adapters]
    print(f"\n{'':44}{'base':>8}{'tuned':>8}")
    print(f"{'answers in early modern English':44}{shares[0]:>8.0%}{shares[1]:>8.0%}")
    print(f"{'log-likelihood of the bard, nats a token':44}{likely[0]:>8.2f}{likely[1]:>8.2f}")
    return shares[1] >= shares[0] + FAR_SHARE and likely[1] >= likely[0] + FAR_NATS


def held_out() -> list[tuple[str, str]]:
    """The questions and reference answers that training never saw."""
    path = ROOT / "examples" / "bard" / "held_out.csv"
    with path.open(encoding="cp1252", newline="") as file:
        return [(row["Question"], row["Answer"]) for row in csv.DictReader(file)]


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def say_goodbye(stage: Stage) -> None:
    """The times, and where to go next."""
    print(f"\n{BOLD}Wall time{PLAIN}")
    for title, seconds in stage.times:
        print(f"  {title:10} {seconds:6.1f} s")
    print(f"  {'in all':10} {sum(seconds for _, seconds in stage.times):6.1f} s")
    data = stage.data.relative_to(ROOT)
    print(f"""
{BOLD}Where to go next{PLAIN}
  source .venv/bin/activate; export AFINA_DATA={data}
  afina up                        start the platform again
  afina models list               the model that you made is still there
  afina chat MODEL                talk to it
  afina models export MODEL --format peft --to FOLDER
  afina data convert YOURS.csv …  your own examples
  afina --help                    everything else; docs/map.md shows the house from inside
""")


def main() -> int:
    """0 if every chapter went well and the manner was learned."""
    stage = Stage(ROOT, ROOT / ".afina")
    # Whoever ends the tour ends the platform with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        learned = tour(stage)
    except TourFailed as error:
        print(f"\nThe tour stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nThe tour was stopped.", file=sys.stderr)
        return 130
    finally:
        stage.stop_platform()
    say_goodbye(stage)
    if not learned:
        print("The tuned model did not learn the manner well enough.", file=sys.stderr)
    return 0 if learned else 1


if __name__ == "__main__":
    sys.exit(main())
