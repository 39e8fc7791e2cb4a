"""The same said in other words: another person, other notation of numbers, other spelling, twice, over two turns. English only.

Plain functions from a text and a source of chance to the changed text, or None where the change is not simple enough to be sure that
the meaning stays.
"""

import re
from collections.abc import Callable
from random import Random

# "They" takes the verbs that "I" takes, but for these: so the rest of the sentence can stay as it is.
_THIRD = (
    (r"\bI['’]?m\b|\bI am\b|\bim\b", "they're"),
    (r"\bI was\b", "they were"),
    (r"\bwas I\b", "were they"),
    (r"\bam I\b", "are they"),
    (r"\bI['’](?=(?:ve|ll|d)\b)", "they'"),
    (r"\bive\b", "they've"),
    (r"\bI\b|(?<=[\w,;] )\bi\b|^i\b", "they"),
    (r"\bmyself\b", "themself"),
    (r"\bmine\b", "theirs"),
    (r"\bmy\b", "their"),
    (r"\bme\b", "them"),
)
_FIRST = re.compile(r"\b(?:I|I['’]?m|im|ive|I['’]ve)\b", re.IGNORECASE)
# Where somebody else or the two of them are in the story already, it would no longer be clear who "they" are.
_OTHERS = re.compile(
    r"\b(?:he|she|him|his|her|hers|they|them|their|we|us|our|you|your|baby|son|daughter|wife|husband|partner|mum|mom|dad|mother|father|"
    r"sister|brother|friend|child|kid|gran|grandma|grandad|nan|boyfriend|girlfriend|doctor|gp|told|says?|said|asked)\b",
    re.IGNORECASE,
)
_ABOUT = (
    "This is about my neighbour, they are here with me. ",
    "My neighbour asked me to write this for them: ",
    "It's for my neighbour who is sitting next to me. ",
)

_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {word: number for number, word in enumerate(_NUMBERS)} | {word: 10 * i for i, word in enumerate(_TENS) if word}
_DIGITS = re.compile(r"(?<![\w.,:/#%$£€+-])\d{1,2}(?![\w.,:/%-]*\d)(?=[\s,.;!?]|$)")
_SPELLED = re.compile(rf"\b(?:({'|'.join(_TENS[2:])})(?:[- ]({'|'.join(_NUMBERS[1:10])}))?|({'|'.join(_NUMBERS[2:])}))\b", re.IGNORECASE)

_BRITISH = {
    "color": "colour", "diarrhea": "diarrhoea", "hemorrhage": "haemorrhage", "hemorrhaging": "haemorrhaging", "esophagus": "oesophagus",
    "edema": "oedema", "anemia": "anaemia", "anemic": "anaemic", "pediatrician": "paediatrician", "gynecologist": "gynaecologist",
    "estrogen": "oestrogen", "fetus": "foetus", "leukemia": "leukaemia", "hemophilia": "haemophilia", "feces": "faeces",
    "celiac": "coeliac", "paralyzed": "paralysed", "hospitalized": "hospitalised", "gray": "grey", "mom": "mum", "mommy": "mummy",
    "tumor": "tumour", "labored": "laboured", "labor": "labour", "odor": "odour", "neighbor": "neighbour",
    "acetaminophen": "paracetamol", "epinephrine": "adrenaline", "ER": "A&E", "realized": "realised", "apologize": "apologise",
    "favorite": "favourite", "center": "centre", "liter": "litre", "liters": "litres", "fiber": "fibre", "diaper": "nappy",
    "diapers": "nappies", "pills": "tablets", "sulfate": "sulphate", "hematoma": "haematoma", "ischemic": "ischaemic",
    "hypoglycemia": "hypoglycaemia", "hypoglycemic": "hypoglycaemic", "dizzyness": "dizziness", "counselor": "counsellor",
}  # fmt: skip
_AMERICAN = {british: american for american, british in _BRITISH.items()}
_BREAK = re.compile(r"(?<=[.!?;,\n])\s+")


def third_person(text: str, chance: Random) -> str | None:
    """ "I have" -> "my neighbour: they have", where nobody else is in the story."""
    if not _FIRST.search(text) or _OTHERS.search(text):
        return None
    for pattern, word in _THIRD:
        text = re.sub(pattern, word, text, flags=0 if r"\bI\b" in pattern else re.IGNORECASE)
    return chance.choice(_ABOUT) + text


def numbers_in_words(text: str, chance: Random) -> str | None:
    """ "3 hours" -> "three hours"; what stands for more than a count (times, fractions, decimals) stays."""
    return _changed(text, _DIGITS, lambda m: _spelled(int(m[0])))


def numbers_in_digits(text: str, chance: Random) -> str | None:
    """ "twenty minutes" -> "20 minutes". "One" stays: it is mostly no number."""

    def digits(found: re.Match[str]) -> str:
        tens, ones, other = found.groups()
        return str(_VALUES[other.lower()] if other else _VALUES[tens.lower()] + (_VALUES[ones.lower()] if ones else 0))

    return _changed(text, _SPELLED, digits)


def other_spelling(text: str, chance: Random) -> str | None:
    """British for American words, and the other way round."""
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, (*_BRITISH, *_AMERICAN)))})(?!\w)")
    return _changed(text, pattern, lambda m: _BRITISH.get(m[0]) or _AMERICAN[m[0]])


def said_twice(text: str, chance: Random) -> str | None:
    return f"{text} {text}"


def pasted_often(text: str, chance: Random) -> str | None:
    """The same five times, a line each, as impatient people send it."""
    return "\n".join([text] * 5)


def two_turns(text: str, chance: Random) -> tuple[str, str] | None:
    """Cut where a clause ends, nearest to the middle, and sent as two messages."""
    cuts = [m.start() for m in _BREAK.finditer(text)]
    if not cuts:
        return None
    cut = min(cuts, key=lambda place: abs(place - len(text) / 2))
    return text[:cut].rstrip(" ,;\n"), text[cut:].lstrip()


def _spelled(number: int) -> str:
    if number < 20:
        return _NUMBERS[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens] + (f"-{_NUMBERS[ones]}" if ones else "")


def _changed(text: str, pattern: re.Pattern[str], replacement: Callable[[re.Match[str]], str]) -> str | None:
    changed = pattern.sub(replacement, text)
    return changed if changed != text else None
