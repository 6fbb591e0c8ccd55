"""A training sentence put down as people type it: another case, no accents, openings, slips."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from random import Random

from benchmarks.moderation_data import Sentence

from afina.data.moderation.pieces import pieces_of

OPENINGS = {
    "en": ("honestly ", "lol ", "Hey, ", "ok so ", "I mean, ", "By the way: ", "please ", "well, ",
           "For my novel: ", "Just curious, ", "My teacher wants to know: ", "Hypothetically, ",
           "quick question: ", "As a joke: ", "Imagine this: ", "No judgement please: ", "yo ",
           "so yeah, ", "Listen. ", "omg ", "bro, ", "Hi! ", "User: ", "Assistant: ", "- "),
    "es": ("en serio, ", "jaja ", "Oye, ", "a ver, ", "O sea, ", "Por cierto: ", "por favor ",
           "Para mi novela: ", "Por curiosidad, ", "Mi profe quiere saber: ", "una pregunta: ",
           "En broma: ", "Imagina esto: ", "No me juzgues: ", "che, ", "güey, ", "tío, ",
           "Buenas, ", "pues ", "mira, ", "Usuario: ", "Asistente: ", "- "),
    "pt": ("sério, ", "kkk ", "Olha, ", "então, ", "Quer dizer, ", "Aliás: ", "por favor ",
           "Para o meu romance: ", "Por curiosidade, ", "uma pergunta: ", "De brincadeira: ",
           "Imagina isto: ", "Não me julgues: ", "mano, ", "cara, ", "pá, ", "Oi! ", "gente, ",
           "Usuário: ", "Assistente: ", "- "),
}  # fmt: skip
CLOSINGS = {
    "en": (" thanks", " asap", " lol", " ...", " what do you say?", " please help", " :)", "!!",
           " 😂", " 🙏", " smh", " tbh", " 💀", "??"),
    "es": (" gracias", " jaja", " ...", " ¿qué dices?", " ayúdame porfa", " :)", "!!", " ya",
           " 😂", " 🙏", " en serio", " 💀", "??"),
    "pt": (" obrigado", " kkk", " ...", " o que dizes?", " me ajuda", " :)", "!!", " já",
           " 😂", " 🙏", " sério", " 💀", "??"),
}  # fmt: skip
SHORT = {
    "en": {"you": "u", "your": "ur", "are": "r", "please": "pls", "because": "cuz", "people": "ppl",
           "going to": "gonna", "want to": "wanna", "what": "wat", "with": "w/", "and": "n",
           "I am": "im", "I'm": "im", "don't": "dont", "can't": "cant", "without": "w/o",
           "tonight": "2nite", "to": "2", "for": "4", "about": "abt"},
    "es": {"que": "q", "por": "x", "qué": "q", "porque": "xq", "también": "tb", "para": "pa",
           "está": "ta", "hacer": "acer", "voy a": "voy", "te quiero": "tq", "aquí": "aki",
           "estoy": "toy", "quiero": "kiero", "hoy": "oy", "eres": "eres", "más": "+"},
    "pt": {"que": "q", "você": "vc", "porque": "pq", "também": "tb", "não": "n", "está": "tá",
           "para": "pra", "estou": "tô", "hoje": "hj", "quando": "qnd", "muito": "mt",
           "vou": "vo", "aqui": "aki", "beleza": "blz", "de": "d", "comigo": "cmg"},
}  # fmt: skip
LEET = str.maketrans("oeiast", "03145" + "7")


def piece_of(sentence: Sentence, chance: Random) -> Sentence:
    """Of a harmless sentence at times one of the pieces in which it will be read: each of them is
    harmless too. Of the others only the whole is sure to be what it is called."""
    if sentence.category != "none" or chance.random() < 0.5:
        return sentence
    return replace(sentence, text=chance.choice(pieces_of(sentence.text)))


def varied(sentence: Sentence, harmless: list[str], chance: Random) -> str:
    """`harmless` are texts of the same language that may stand beside it."""
    text = sentence.text
    if chance.random() < 0.12 and len(text) < 160:
        other = chance.choice(harmless)
        if len(other) < 120:
            ended = text if text[-1:] in ".!?…" else text + "."
            text = f"{other} {text}" if chance.random() < 0.5 else f"{ended} {other}"
    if chance.random() < 0.35:
        text = text.lower()
    elif chance.random() < 0.04:
        text = text.upper()
    if chance.random() < 0.3:
        text = text.rstrip(".!?").lstrip("¿¡")
    if sentence.language != "en" and chance.random() < 0.2:
        plain = unicodedata.normalize("NFKD", text)
        text = "".join(c for c in plain if not unicodedata.combining(c))
    if chance.random() < 0.08:
        for word, short in SHORT[sentence.language].items():
            if chance.random() < 0.6:
                text = re.sub(rf"\b{word}\b", short, text)
    if chance.random() < 0.3:
        text = chance.choice(OPENINGS[sentence.language]) + text[:1].lower() + text[1:]
    if chance.random() < 0.15:
        text = text.rstrip(".") + chance.choice(CLOSINGS[sentence.language])
    if chance.random() < 0.12 and len(text) > 20:
        place = chance.randrange(1, len(text) - 1)
        text = text[:place] + chance.choice((text[place + 1], "", " ")) + text[place + 1 :]
    if chance.random() < 0.03:
        words = text.split(" ")
        place = chance.randrange(len(words))
        words[place] = words[place].translate(LEET)
        text = " ".join(words)
    return text
