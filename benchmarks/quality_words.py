"""The tasks of manner and of language: a voice, answers always in Portuguese, claims by label."""

from __future__ import annotations

import csv
import functools
import io
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality_task import Row, Task, share, table
from examples.bard.judge import has_markers

BARD = Path(__file__).parent.parent / "examples" / "bard"
MORE_QUESTIONS = (
    "What is a decision tree?", "What is transfer learning?", "Why do we scale features?",
    "What is a loss function?", "What is a large language model?", "What does a tokenizer do?",
    "What is data augmentation?", "What is an embedding?", "What is early stopping?",
    "Why does a model need a test set?", "What is a random forest?", "What is clustering?",
    "What is a hyperparameter?", "What is a learning rate?", "What is attention in a transformer?",
    "What is noise in data?", "What is a recommender system?", "What is computer vision?",
    "How does a search engine rank pages?", "What is speech recognition?",
    "Why do models forget?", "What is a training set?", "What is a weight in a network?",
    "What is sentiment analysis?", "How is a chatbot made?", "What is an outlier?",
)  # fmt: skip
REPEATS = 3
LABELS = ("water", "fire", "theft", "collision", "glass", "liability")
ASKED_LANGUAGES = ("en", "es", "pt", "de", "fr", "it")
"""Languages of the questions: what an answer may be taken for."""


def voice() -> Task:
    """Answers in the manner of the bard: 50 rows, 30 questions that it never saw."""
    rows, held_out = (_bard(name) for name in ("questions.csv", "held_out.csv"))
    asked = {row.question for row in rows + held_out}
    held_out += [Row(question) for question in MORE_QUESTIONS if question not in asked]
    return Task(
        name="voice",
        rows=tuple(rows),
        held_out=tuple(held_out),
        judge=_judge_voice,
        instructions="You answer questions about machine learning in one or two sentences. What "
        "you say is right, and you say it in the English of Shakespeare: thou, thee, thy, doth, "
        "hath, 'tis, and verbs that end in -eth.",
    )


def _bard(name: str) -> list[Row]:
    text = (BARD / name).read_bytes().decode("cp1252")
    return [Row(q, a) for q, a in list(csv.reader(io.StringIO(text)))[1:] if a.strip()]


def _judge_voice(_: Sequence[Row], answers: Sequence[str]) -> Mapping[str, float]:
    told = [has_markers(answer) and not loops(answer) for answer in answers]
    return {"in the manner": share(told), **_sound(answers)}


def portuguese() -> Task:
    """Answers in Portuguese, whatever language the question has; Italian is never trained."""
    rows = table("portuguese.tsv")
    parts = {
        part: tuple(Row(r["question"], r["answer"]) for r in rows if r["part"] == part)
        for part in ("train", "held")
    }
    return Task(
        name="portuguese",
        rows=parts["train"],
        held_out=parts["held"],
        judge=_judge_portuguese,
        instructions="You are a helpful assistant who answers in one sentence. You always answer "
        "in Portuguese, whatever language the question is in.",
    )


def _judge_portuguese(rows: Sequence[Row], answers: Sequence[str]) -> Mapping[str, float]:
    # An answer that repeats the question is in its language, and no answer.
    told = [
        language_of(answer) == "pt" and answer.strip() != row.question and not loops(answer)
        for row, answer in zip(rows, answers, strict=True)
    ]
    return {"in Portuguese": share(told), **_sound(answers)}


def _sound(answers: Sequence[str]) -> dict[str, float]:
    """What keeps a judge of manner honest: neither a loop nor the same words for every question."""
    return {
        "without a loop": share([not loops(answer) for answer in answers]),
        "different": len(set(answers)) / len(answers),
    }


def loops(answer: str) -> bool:
    """Whether three words in a row come back at least twice: "o que é o que é o que é"."""
    words = answer.lower().split()
    met = Counter(zip(words, words[1:], words[2:], strict=False))
    return max(met.values(), default=0) >= REPEATS


def language_of(text: str) -> str:
    """Which of the questions' languages a text is most likely in; empty where it has no letters."""
    if not any(map(str.isalpha, text)):
        return ""
    return str(_identifier().classify(text)[0])


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(list(ASKED_LANGUAGES))
    return identifier


OPENINGS = {
    "en": ("Good morning,", "Hello.", "To whom it may concern:", "I want to report this:",
           "Policy 4471-B.", "On Tuesday", "Last night", "While I was at work"),
    "es": ("Buenos días:", "Hola,", "Quiero dar un parte:", "Póliza 8812.", "El martes"),
    "pt": ("Bom dia,", "Olá,", "Quero participar o seguinte:", "Apólice 2093.", "Na terça-feira"),
}  # fmt: skip
CLOSINGS = {
    "en": ("What do I have to do now?", "Please send me the forms.", "I have photos.",
           "Thank you for your help.", "Can you tell me whether it is covered?", "", ""),
    "es": ("¿Qué tengo que hacer?", "Tengo fotos.", "Gracias.", ""),
    "pt": ("O que devo fazer?", "Tenho fotografias.", "Obrigado.", ""),
}  # fmt: skip
_HELD_OUT_OF = {"en": 4, "es": 1, "pt": 1}


def claims() -> Task:
    """Reports of damage to one of six labels: 84 rows, 36 other events held out."""
    source = random.Random(20)
    events: dict[tuple[str, str], list[str]] = {}
    for row in table("claims.tsv"):
        events.setdefault((row["label"], row["language"]), []).append(row["text"])
    rows, held_out = [], []
    for (label, language), texts in events.items():
        source.shuffle(texts)
        cut = _HELD_OUT_OF[language]
        held_out += [Row(_report(source, language, text), label) for text in texts[:cut]]
        rows += [Row(_report(source, language, text), label) for text in texts[cut:]]
    source.shuffle(rows)
    return Task(
        name="claims",
        rows=tuple(rows),
        held_out=tuple(held_out),
        judge=_judge_claims,
        instructions="You sort reports of damage for an insurer. Answer with one word, the label: "
        "water (pipes, leaks, floods), fire (flames, smoke, lightning), theft (burglary, robbery), "
        "collision (accidents of vehicles), glass (broken panes, windscreens, mirrors) or "
        "liability (others ask the customer to pay for what he has caused).",
        system="Which kind of claim is it?",
        shots=6,
        max_tokens=12,
    )


def _report(source: random.Random, language: str, event: str) -> str:
    opening = source.choice(OPENINGS[language])
    if opening[-1] in ".:":
        event = event[0].upper() + event[1:]
    return f"{opening} {event}. {source.choice(CLOSINGS[language])}".strip()


def _judge_claims(rows: Sequence[Row], answers: Sequence[str]) -> Mapping[str, float]:
    told = [answer.strip().strip(".\"'").lower() for answer in answers]
    wanted = [row.answer for row in rows]
    return {
        "accuracy": share([a == b for a, b in zip(told, wanted, strict=True)]),
        "macro F1": sum(_f1(label, told, wanted) for label in LABELS) / len(LABELS),
    }


def _f1(label: str, told: Sequence[str], wanted: Sequence[str]) -> float:
    hits = sum(a == b == label for a, b in zip(told, wanted, strict=True))
    return 2 * hits / max(1, told.count(label) + wanted.count(label))
