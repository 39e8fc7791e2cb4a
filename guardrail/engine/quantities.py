"""Numbers with meaning: temperature, blood pressure, age, counts ... in digits, words and shorthand.

A number gets its kind from what stands around it: a unit right behind ("38.9 C", "7 weeks old"), a label near by ("sats
86", "bp 210/125"), its shape ("210/125", "34+2", "103.2") or its place in the sentence ("I'm 34, ..."). Where units are
left out the size of the value decides (39 is Celsius, 103 is Fahrenheit; a sugar of 29 is mmol/l, one of 300 is mg/dl).
A value outside what its kind can be is not taken. The words are data: `rules/languages/*/units.yaml` and `numbers.yaml`.

Whether a reading is the patient's and of now is decided by `context`, as for any mention. Ages are in months, also those
of adults, so that rules compare one kind: 65 years are 780.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct

from guardrail.engine.model import Quantity
from guardrail.engine.normalize import STOPS, Tokens, fold, tokenize

UNITS: Final[Mapping[str, str]] = {
    "temperature_c": "°C",
    "systolic": "mmHg",
    "diastolic": "mmHg",
    "spo2": "%",
    "pulse": "/min",
    "breathing_rate": "/min",
    "glucose_mmol": "mmol/l",
    "ketones": "mmol/l",
    "age_months": "months",
    "weeks_pregnant": "weeks",
    "duration_minutes": "minutes",
    "onset_minutes": "minutes",
    "weight_kg": "kg",
    "dose_mg": "mg",
    "count": "pieces",
    "inr": "",
    "potassium": "mmol/l",
    "lithium": "mmol/l",
}
"""Every kind of quantity with its base unit. `duration_minutes` is how long, `onset_minutes` how long ago."""

GLUCOSE_HIGH = 34.0  # a meter shows HI above 33.3 mmol/l (600 mg/dl)
GLUCOSE_LOW = 1.0  # and LO below 1.1
MG_DL_PER_MMOL = 18.0
WEEKS_PER_MONTH = 4.348
DAYS_PER_MONTH = 30.44

_MINUTES: Mapping[str, float] = {
    "unit_second": 1 / 60,
    "unit_minute": 1,
    "unit_hour": 60,
    "unit_day": 1440,
    "unit_week": 10080,
    "unit_month": 43830,
    "unit_year": 525960,
}
_MONTHS: Mapping[str, float] = {"unit_year": 12, "unit_month": 1, "unit_week": 1 / WEEKS_PER_MONTH, "unit_day": 1 / DAYS_PER_MONTH}
_KILOGRAMS: Mapping[str, float] = {"unit_kg": 1, "unit_pound": 0.4536, "unit_stone": 6.35}
_MILLIGRAMS: Mapping[str, float] = {"unit_mg": 1, "unit_gram": 1000, "unit_microgram": 0.001}
# What a labelled number may be; beyond it is something else (the nearest label that fits wins).
_RANGES: Mapping[str, tuple[str, float, float]] = {
    "label_oxygen": ("spo2", 30, 100),
    "label_pulse": ("pulse", 20, 300),
    "label_heart": ("pulse", 90, 260),
    "label_breaths": ("breathing_rate", 4, 99),
    "label_ketones": ("ketones", 0, 20),
    "label_inr": ("inr", 0.5, 25),
    "label_potassium": ("potassium", 1, 10),
    "label_lithium": ("lithium", 0.1, 6),
    "label_pressure": ("systolic", 60, 280),
}
_LABEL_BEFORE = 8  # tokens from a label to its number: "her sats at rest were only 86"
_LABEL_AFTER = 4
_FROM_BEHIND = frozenset({"label_temperature", "label_oxygen", "label_pulse"})
_OLDEST = 110
_TERM = 43  # weeks
_CLEARLY_PREGNANT = 20  # weeks that nobody says of a baby or of a cough
_DIGITS = re.compile(r"\d+(?:[.,]\d+)?")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+")
_PAIR = re.compile(r"(\d{2,3})/(\d{2,3})")
_SKIPPED = frozenset("-~")
_BOUNDARY = frozenset(".,;!?\n)(:-/&")


class Measured(Struct, frozen=True, gc=False):
    """A quantity at tokens `first` up to but not including `after`."""

    quantity: Quantity
    first: int
    after: int


class _Number(Struct, frozen=True, gc=False):
    first: int
    after: int
    value: float
    decimals: int = 0
    low: bool = False
    """Made of words that are numbers only before a unit: "an hour", "half an hour", "a few days"."""


class Quantities:
    """Finds quantities in the words of the languages given."""

    def __init__(self, numbers: Mapping[str, float] | None = None, units: Mapping[str, Sequence[str]] | None = None) -> None:
        self.numbers = dict(numbers or {})
        self.heads: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for slot, phrases in (units or {}).items():
            for phrase in phrases:
                words = tuple(tokenize(fold(phrase)).words)
                self.heads.setdefault(words[0], []).append((words[1:], slot))
        for entries in self.heads.values():
            entries.sort(key=lambda e: -len(e[0]))
        self.limits = {
            w: value for slot, value in (("high_reading", GLUCOSE_HIGH), ("low_reading", GLUCOSE_LOW)) for w in self._first_words(slot)
        }
        self.vague = {w for slot in ("half", "one", "few") for w in self._first_words(slot)}

    def _first_words(self, slot: str) -> Iterator[str]:
        for word, entries in self.heads.items():
            if any(s == slot for _, s in entries):
                yield word

    def find(self, tokens: Tokens) -> list[Measured]:
        """All quantities of one text, in order of place."""
        numbers, vague, limits = self.numbers, self.vague, self.limits
        if not any(w in numbers or w in vague or w in limits or "0" <= w[0] <= "9" for w in tokens.words):
            return []
        return _Text(tokens.words, self).read()


class _Text:
    """The reading of one text; made for each."""

    def __init__(self, words: Sequence[str], vocabulary: Quantities) -> None:
        self.words = words
        self.count = len(words)
        self.vocabulary = vocabulary
        self.slots_at: dict[int, list[tuple[str, int]]] = {}
        self.found: list[Measured] = []
        self._pregnant: bool | None = None

    def read(self) -> list[Measured]:
        i = 0
        while i < self.count:
            number = self._number(i)
            if number is None:
                i += 1
                if self.words[i - 1] in self.vocabulary.limits:
                    self._meter_limit(i - 1)
                continue
            before = len(self.found)
            self._measure(number)
            i = max(number.after, self.found[-1].after if len(self.found) > before else 0)
        return self.found

    # --- words around

    def slots(self, place: int) -> list[tuple[str, int]]:
        """The slots whose words start here, longest first, each with the token after it."""
        if place >= self.count or place < 0:
            return []
        known = self.slots_at.get(place)
        if known is None:
            known = []
            for rest, slot in self.vocabulary.heads.get(self.words[place], ()):
                after = place + 1 + len(rest)
                if after <= self.count and (not rest or tuple(self.words[place + 1 : after]) == rest):
                    known.append((slot, after))
            self.slots_at[place] = known
        return known

    def slot_after(self, place: int, *wanted: str) -> tuple[str, int] | None:
        """The longest of the wanted slots that starts here, or behind a hyphen."""
        while place < self.count and self.words[place] in _SKIPPED:
            place += 1
        for slot, after in self.slots(place):
            if slot in wanted:
                return slot, after
        return None

    def slot_before(self, place: int, wanted: str, reach: int = 1) -> bool:
        """Whether words of the slot end right before this token (or up to so many tokens earlier)."""
        for start in range(place - 1, max(place - 5 - reach, -1), -1):
            if self.words[start] in STOPS:
                return False
            for slot, after in self.slots(start):
                if slot == wanted and place - reach < after <= place:
                    return True
        return False

    def label_before(self, number: _Number) -> str | None:
        """The nearest label before the number that can have such a value."""
        for start in range(number.first - 1, max(number.first - _LABEL_BEFORE - 1, -1), -1):
            if self.words[start] in STOPS and self.words[start] != "\n":
                break
            for slot, after in self.slots(start):
                if slot.startswith("label_") and after <= number.first and self._fits(slot, number, number.first - after):
                    return slot
        return None

    def label_after(self, number: _Number) -> str | None:
        """A label close behind, other readings between them not counted: "88, 87, 89 on the oximeter"."""
        left = _LABEL_AFTER
        for start in range(number.after, self.count):
            word = self.words[start]
            if word in STOPS:
                break
            if word in _BOUNDARY or "0" <= word[0] <= "9":
                continue
            for slot, _ in self.slots(start):
                if slot in _FROM_BEHIND and self._fits(slot, number, 0):
                    return slot
            left -= 1
            if not left:
                break
        return None

    def label_of(self, number: _Number) -> str | None:
        return self.label_before(number) or self.label_after(number)

    def _fits(self, label: str, number: _Number, away: int) -> bool:
        value = number.value
        if label == "label_temperature":
            return 25 <= value <= 45 or 90 <= value <= 115
        if label == "label_glucose":
            return 0.3 <= value <= 900 and away <= 6
        if label == "label_heart":
            return 90 <= value <= 260 and away <= 3
        if label in _RANGES:
            _, low, high = _RANGES[label]
            return low <= value <= high
        return label == "label_other" and away <= 2

    # --- numbers

    def _number(self, i: int) -> _Number | None:
        word = self.words[i]
        if "0" <= word[0] <= "9":
            return self._digits(i, word)
        value = self.vocabulary.numbers.get(word)
        if value is not None:
            return self._spoken(i, value)
        if word in self.vocabulary.vague:
            for slot, after in self.slots(i):
                if slot in ("half", "one", "few") and self._time_unit(after):
                    return _Number(
                        i, after, {"half": 0.5, "one": 1.0, "few": 2.0 if "couple" in self.words[i:after] else 3.0}[slot], low=True
                    )
        return None

    def _digits(self, i: int, word: str) -> _Number | None:
        if _THOUSANDS.fullmatch(word):
            return _Number(i, i + 1, float(word.replace(",", "")))
        if not _DIGITS.fullmatch(word):
            # "210/125" is read as a pair; clock times and dates are no quantities.
            return _Number(i, i + 1, float(word.partition("/")[0])) if _PAIR.fullmatch(word) else None
        whole, _, part = word.replace(",", ".").partition(".")
        if not part and i + 2 < self.count and self.words[i + 1] == "point" and self.words[i + 2].isdigit():
            return _Number(i, i + 3, float(f"{whole}.{self.words[i + 2]}"), len(self.words[i + 2]))
        return _Number(i, i + 1, float(f"{whole}.{part or 0}"), len(part))

    def _spoken(self, i: int, value: float) -> _Number:
        """Number words side by side: "seventy nine", "one hundred and three point two"."""
        numbers, words, after = self.vocabulary.numbers, self.words, i + 1
        decimals = 0
        while after < self.count:
            word = words[after]
            if word in _SKIPPED or (word == "and" and value >= 100 and after + 1 < self.count and words[after + 1] in numbers):
                if after + 1 < self.count and words[after + 1] in numbers:
                    after += 1
                    continue
                break
            more = numbers.get(word)
            if word == "oh" and value < 10 and after + 1 < self.count and (unit := numbers.get(words[after + 1])) is not None and unit < 10:
                return _Number(i, after + 2, value * 100 + unit)
            if word == "point" and after + 1 < self.count and (tenth := numbers.get(words[after + 1])) is not None and tenth < 10:
                return _Number(i, after + 2, value + tenth / 10, 1)
            if more is None:
                break
            if more in (100, 1000) and value < more:
                value *= more
            elif (value >= 20 and value % 10 == 0 and 0 < more < 10) or (value >= 100 and value % 100 == 0 and more < 100):
                value += more
            else:
                break
            after += 1
        return _Number(i, after, value, decimals)

    # --- what a number is

    def _add(self, kind: str, value: float, first: int, after: int) -> None:
        self.found.append(Measured(Quantity(kind, round(value, 4), UNITS[kind]), first, after))

    def _measure(self, number: _Number) -> None:
        if number.low:
            self._time(number)
        elif not (self._pressure(number) or self._weeks_and_days(number) or self._with_unit(number)):
            _ = (
                self._labelled(number, self.label_before(number))
                or self._bare_age(number)
                or self._bare_temperature(number)
                or self._labelled(number, self.label_after(number))
                or self._taken(number)
            )

    def _meter_limit(self, i: int) -> None:
        """ "meter just reads HI": above or below what it can show."""
        if not self.slot_before(i, "reads"):
            return
        for start in range(i - 1, max(i - 2 * _LABEL_BEFORE, -1), -1):
            if any(slot == "label_glucose" for slot, _ in self.slots(start)):
                self._add("glucose_mmol", self.vocabulary.limits[self.words[i]], i, i + 1)
                return

    def _pressure(self, number: _Number) -> bool:
        """ "210/125", "210 / 125", "210 over 125"."""
        words, after = self.words, number.after
        pair = _PAIR.fullmatch(words[number.first])
        if pair:
            upper, lower = float(pair[1]), float(pair[2])
        else:
            divided = after + 1 < self.count and (words[after] == "/" or any(s == "over" for s, _ in self.slots(after)))
            second = self._number(after + 1) if divided else None
            if second is None or second.low:
                return False
            upper, lower, after = number.value, second.value, second.after
        if not (60 <= upper <= 300 and 30 <= lower <= 200 and upper > lower):
            return pair is not None
        self._add("systolic", upper, number.first, after)
        self._add("diastolic", lower, number.first, after)
        return True

    def _weeks_and_days(self, number: _Number) -> bool:
        """ "34+2", "34 / 40": weeks of pregnancy."""
        words, after = self.words, number.after
        if after + 1 >= self.count or words[after] not in "+/" or not words[after + 1].isdigit():
            return False
        rest = int(words[after + 1])
        if words[after] == "+" and 4 <= number.value <= _TERM and rest <= 6 and not number.decimals:
            self._add("weeks_pregnant", number.value + rest / 7, number.first, after + 2)
            return True
        return False

    def _with_unit(self, number: _Number) -> bool:
        place = number.after
        while place < self.count and self.words[place] in _SKIPPED:
            place += 1
        slots = self.slots(place)
        if (
            any(s == "label_pulse" for s, _ in slots)
            and place + 1 < self.count
            and self.words[place + 1][0].isdigit()
            and self.label_before(number)
        ):
            return False  # "resps 32 hr 130": no hours
        return any(slot.startswith("unit_") and self._in_unit(number, slot, after) for slot, after in slots)

    def _in_unit(self, number: _Number, unit: str, after: int) -> bool:
        value, first = number.value, number.first
        if unit in _MINUTES:
            return self._time(number)
        match unit:
            case "unit_celsius" if 25 <= value <= 45:
                self._add("temperature_c", value, first, after)
            case "unit_fahrenheit" if 90 <= value <= 115 and (
                number.decimals or self.label_of(number) == "label_temperature" or value <= 108
            ):
                self._add("temperature_c", _celsius(value), first, after)
            case "unit_degrees" if 36 <= value <= 45 or 95 <= value <= 115 or self.label_of(number) == "label_temperature":
                self._add("temperature_c", _celsius(value), first, after)
            case "unit_percent":
                if self.label_of(number) != "label_oxygen":
                    return True
                self._add("spo2", value, first, after)
            case "unit_bpm":
                self._add("pulse", value, first, after)
            case "unit_breaths" if value >= 4 or after - number.after > 1:  # "30 pushes and two breaths" is first aid
                self._add("breathing_rate", value, first, after)
            case "unit_per_minute":
                label = self.label_of(number)
                if label in ("label_pulse", "label_heart", "label_breaths"):
                    self._add(_RANGES[label][0], value, first, after)
                return True
            case "unit_mmol":
                label = self.label_of(number)
                kind = _RANGES[label][0] if label in ("label_ketones", "label_potassium", "label_lithium") else "glucose_mmol"
                self._add(kind, value, first, after)
            case "unit_mgdl":
                self._add("glucose_mmol", value / MG_DL_PER_MMOL, first, after)
            case "unit_mg" | "unit_gram" | "unit_microgram":
                self._dose(number, unit, after)
            case "unit_kg" | "unit_pound" | "unit_stone":
                if not self.slot_before(first, "label_change", reach=3):
                    self._add("weight_kg", value * _KILOGRAMS[unit], first, after)
            case "unit_piece":
                self._add("count", value, first, after)
            case "unit_litre":
                return True
            case _:
                return False
        return True

    def _dose(self, number: _Number, unit: str, after: int) -> None:
        """A dose; with a count before it ("8 x 500mg", "sixteen 500mg tablets") the whole amount too."""
        milligrams = number.value * _MILLIGRAMS[unit]
        last = self.found[-1] if self.found else None
        times = None
        if number.first >= 2 and self.words[number.first - 1] in ("x", "*", "times", "of"):
            times = self._counted(number.first - 2)
        elif number.first >= 1:
            times = self._counted(number.first - 1)
        self._add("dose_mg", milligrams, number.first, after)
        if times is not None and times.value <= 500:
            if last is None or last.quantity.kind != "count" or last.after != times.after:
                self._add("count", times.value, times.first, after)
            self._add("dose_mg", milligrams * times.value, times.first, after)
        pieces = self.slot_after(after, "unit_piece")
        if times is None and pieces and number.first >= 1 and (one := self._counted(number.first - 1)):
            self._add("count", one.value, one.first, pieces[1])

    def _counted(self, place: int) -> _Number | None:
        number = self._number(place)
        return (
            number
            if number is not None and not number.low and not number.decimals and number.after <= place + 1 and number.value >= 1
            else None
        )

    def _labelled(self, number: _Number, label: str | None) -> bool:
        value = self._decade(number)
        match label:
            case None:
                return False
            case "label_other":
                return True
            case "label_breaths" if number.decimals:
                return False  # "T 37.4, RR 14"
            case "label_temperature":
                self._add("temperature_c", _celsius(value), number.first, number.after)
            case "label_glucose":
                # Between the scales: nobody is awake at 34 mmol/l for long, 34 mg/dl is a common hypo.
                in_mmol = value <= GLUCOSE_HIGH - 0.5 or number.decimals > 0
                self._add("glucose_mmol", value if in_mmol else value / MG_DL_PER_MMOL, number.first, number.after)
            case _:
                self._add(_RANGES[label][0], value, number.first, number.after)
        return True

    def _decade(self, number: _Number) -> float:
        """ "low eighties" is 82."""
        if self.words[number.first].endswith("ties"):
            before = self.words[number.first - 1] if number.first else ""
            return number.value + {"low": -3, "lower": -3, "high": 3, "upper": 3}.get(before, 0)
        return number.value

    # --- ages and spans of time

    def _time_unit(self, place: int) -> bool:
        return any(slot in _MINUTES for slot, _ in self.slots(place))

    def _time(self, number: _Number) -> bool:
        unit = self.slot_after(number.after, *_MINUTES)
        if unit is None:
            return False
        slot, after = unit
        value, first, minutes = number.value, number.first, number.value * _MINUTES[unit[0]]
        if self.slot_before(first, "rate_before"):
            return True
        if slot in _MONTHS and (old := self._is_age(number, slot, after)):
            self._add("age_months", value * _MONTHS[slot], first, old)
            return True
        if slot in ("unit_week", "unit_month") and (end := self._is_pregnancy(number, slot, after)):
            self._add("weeks_pregnant", value * (WEEKS_PER_MONTH if slot == "unit_month" else 1), first, end)
            return True
        if ago := self.slot_after(after, "ago"):
            self._add("onset_minutes", minutes, first, ago[1])
            return True
        since = self.slot_before(first, "since")
        if number.low and self.words[first] in ("a", "an") and slot != "unit_hour" and not since and not self.slot_before(first, "lasting"):
            return True  # "three times a day", "once a week"
        self._add("duration_minutes", minutes, first, after)
        if since:
            self._add("onset_minutes", minutes, first, after)
        return True

    def _is_age(self, number: _Number, unit: str, after: int) -> int | None:
        """Where an age ends: "7 weeks old", "6wo", "aged 3 months", "he's 7 weeks"."""
        first, words = number.first, self.words
        if number.low and unit != "unit_year" and not self.slot_after(after, "old"):
            return None
        if old := self.slot_after(after, "old"):
            return old[1]
        if any(s == "compact_age" for s, _ in self.slots(number.after)):
            return after
        if self.slot_after(after, "ago", "gone_by", "after_birth"):
            return None
        if self.slot_before(first, "label_age"):
            return after
        if self.slot_before(first, "lasting") or self.slot_before(first, "since"):
            return None
        if unit == "unit_year":
            return after if self.slot_before(first, "is_aged") and number.value <= _OLDEST else None
        if unit == "unit_day" and number.value > 40:
            return None
        if words[number.after] == "mo" and number.value <= 36:
            return after
        if not self.slot_before(first, "is_old_baby", reach=2) or self.slot_before(first, "rate_before", reach=3):
            return None
        young = self.slot_before(first, "he", reach=2)
        return after if young or unit != "unit_week" or number.value < _CLEARLY_PREGNANT else None

    def _is_pregnancy(self, number: _Number, unit: str, after: int) -> int | None:
        """Where weeks of pregnancy end: "28 weeks pregnant", "I'm 34 weeks", "at 30 weeks", "36 weeks, ..."."""
        first, value = number.first, number.value
        if gone := self.slot_after(after, "gone_by"):
            return gone[1] if value <= _TERM else None
        if unit == "unit_month" or not 3 <= value <= _TERM or number.low:
            return None
        if self.slot_after(after, "ago", "after_birth", "old") or self.slot_before(first, "since"):
            return None
        before = self.words[first - 1] if first else ""
        if before == "at" or self.slot_before(first, "is_aged"):
            return after
        if self.slot_before(first, "lasting") or self.slot_before(first, "he", reach=2):
            return None
        following = self.words[after] if after < self.count else "."
        if following in ("of", "later", "since", "in", "after", "from", "on", "to", "until", "till", "before", "worth", "now"):
            return None
        return after if value >= _CLEARLY_PREGNANT or self._speaks_of_pregnancy() else None

    def _speaks_of_pregnancy(self) -> bool:
        if self._pregnant is None:
            self._pregnant = any(slot == "label_pregnant" for i in range(self.count) for slot, _ in self.slots(i))
        return self._pregnant

    def _bare_age(self, number: _Number) -> bool:
        """ "I'm 34, ...", "34f", "F 57", "(58)", "mum, 71, ...", "in his eighties"."""
        value, first, after, words = number.value, number.first, number.after, self.words
        if number.decimals or not 1 <= value <= _OLDEST:
            return False
        before = words[first - 1] if first else ""
        following = words[after] if after < self.count else "."
        end = 0
        if words[first].endswith("ties"):
            end = after if before in ("his", "her", "my", "their", "mid", "late", "early") else 0
        elif self.slot_before(first, "label_age") or (before == "age" and value):
            end = after
        elif following in ("f", "m", "male", "female") and (value >= 13 or following in ("male", "female")):
            end = after + 1
        elif before in ("f", "m", "male", "female") and value >= 13 and (first < 2 or words[first - 2] not in ("a", "the", "of")):
            end = after
        elif self.slot_before(first, "is_aged"):
            end = after if following in _BOUNDARY or following in _AFTER_AGE else 0
        elif (
            (self.slot_before(first, "person") and following in _BOUNDARY)
            or (before == "(" and following in (")", ",", "/") and value >= 1)
            or (before == "," and value >= 16 and (following == "," or after >= self.count) and words[first - 2].isalpha())
            or (first == 0 and value >= 16 and following == ",")
        ):
            end = after
        if not end:
            return False
        self._add("age_months", value * 12, first, end)
        return True

    def _bare_temperature(self, number: _Number) -> bool:
        """ "38.9", "103.2": one decimal and no other use is a body temperature."""
        value = number.value
        if number.decimals != 1 or not (34 <= value <= 42.9 or 95 <= value <= 108):
            return False
        before = self.words[number.first - 1] if number.first else ""
        if before in ("£", "$", "€", "#", "x") or self.label_of(number) == "label_other":
            return False
        self._add("temperature_c", _celsius(value), number.first, number.after)
        return True

    def _taken(self, number: _Number) -> bool:
        """ "took 30 of her ...", "swallowed 2 button batteries": a count, without saying of what."""
        if number.decimals or number.value < 1 or not self.slot_before(number.first, "label_take", reach=2):
            return False
        self._add("count", number.value, number.first, number.after)
        return True


_AFTER_AGE = frozenset(
    [
        "and",
        "with",
        "male",
        "female",
        "m",
        "f",
        "but",
        "on",
        "have",
        "has",
        "had",
        "year",
        "yo",
        "pregnant",
        "woman",
        "man",
        "now",
        "who",
        "from",
        "been",
        "live",
        "lives",
        "smoker",
        "diabetic",
        "type",
        "fit",
        "i",
        "my",
        "he",
        "she",
    ]
)


def _celsius(value: float) -> float:
    return value if value <= 45 else (value - 32) / 1.8
