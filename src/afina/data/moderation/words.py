"""Word lists as a signal beside the network: what it learned counts most, but a spelling such as
`1d1ot` looks new to it and not to a list.

A hit is never a verdict. Lists are short on purpose: words whose mere presence says something,
in English, Spanish and Portuguese, without accents.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

WORDS: Final[Mapping[str, str]] = {
    "insult": "idiot imbecile moron stupid dumb dumbass loser pathetic worthless ugly pig cretin "
    "dimwit clown freak retard trash scum idiota imbecil estupido estupida tonto tonta burro burra "
    "inutil gilipollas pendejo capullo fracasado basura payaso cerdo asqueroso feo fea otario "
    "palerma lixo nojento nojenta fracassado palhaco babaca",
    "profanity": "fuck fucking shit bitch bastard asshole cunt mierda puta puto cabron joder "
    "cono merda caralho porra foda foder",
    "threat": "kill murder stab strangle shoot burn hang lynch slaughter exterminate gas drown "
    "matar matare mato apunalar disparar quemar estrangular degollar colgar exterminar linchar "
    "esfaquear balear queimar espancar degolar enforcar afogar",
    "weapon": "bomb explosive explosives grenade rifle gun napalm anthrax bomba explosivo "
    "explosivos granada pistola arma veneno poison sicario hitman matador atentado",
    "crime": "meth cocaine heroin fentanyl launder forge phishing ransomware malware hack smuggle "
    "shoplift metanfetamina cocaina heroina fentanilo fentanil falsificar estafar blanquear "
    "sobornar subornar clonar roubar robar golpe contrabando lavar",
    "self": "suicide suicidal noose overdose razor purge starve suicidio suicidarme ahorcarme "
    "cortarme matarme autolesion matar-me suicidar enforcar cortar-me automutilacao lamina "
    "cuchilla",
    "sexual": "sex sexual porn erotic naked nude nudes horny moan moaned breasts smut kinky sexo "
    "porno erotico erotica desnudo desnuda gemia pechos cachondo cachonda erotismo nu nua pelado "
    "pelada seios tesao safada pornografia",
    "minor": "minor underage child children schoolgirl pupil menor menores nino nina ninos "
    "colegiala escolar crianca criancas menina menino aluna",
    "gore": "guts entrails intestines gore skull brain severed decapitated mutilated flesh corpse "
    "tripas visceras intestinos sesos craneo mutilado cadaver cadaveres carne decapitacion miolos "
    "cranio mutilados decepada medula",
}
_LOOKALIKES: Final = str.maketrans("013457@$!", "oieastasi")
_WORD: Final = re.compile(r"[a-z0-9@$!'-]+")
_REPEATED: Final = re.compile(r"(.)\1{2,}")
_SETS: Final = {name: frozenset(words.split()) for name, words in WORDS.items()}


def signals(text: str) -> list[float]:
    """For each list: 0 without a hit, 0.7 with one, 1 with more."""
    plain = unicodedata.normalize("NFKD", text.lower())
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    found = {_spelt(word) for word in _WORD.findall(plain)}
    found |= set(plain.split())
    hits = [len(found & words) for words in _SETS.values()]
    return [0.0 if count == 0 else 0.7 if count == 1 else 1.0 for count in hits]


def _spelt(word: str) -> str:
    stripped = word.strip("'!-")
    if not any(c.isdigit() or c in "@$!" for c in stripped) or stripped.isdigit():
        return _REPEATED.sub(r"\1", stripped)
    return _REPEATED.sub(r"\1", stripped.translate(_LOOKALIKES))
