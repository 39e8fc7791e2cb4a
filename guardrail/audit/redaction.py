"""Takes what identifies a person out of a patient's words before they are kept.

Patterns of our own, as patients write: addresses of mail and web, telephone numbers, dates, numbers of records, insurance and
documents, postcodes, streets, and names where they are introduced ("my name is ...", "my son Tom"). They catch what has a form or is
announced; a name dropped in passing stays. How much they catch is measured on `tests/audit/redaction_cases.txt` and stands in
docs/operations.md. Where that is not acceptable, keep no text (`audit_text: absent`) or keep it encrypted.
"""

import re
from typing import Final, NamedTuple


class Span(NamedTuple):
    """A stretch of a text that identifies a person; `kind` is what is written in its place."""

    start: int
    end: int
    kind: str


_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?"
    r"|dec(?:ember)?)"
)
_ORDINAL = r"\d{1,2}(?:st|nd|rd|th)?"
_DAY_MONTH = rf"(?:(?:the\s+)?{_ORDINAL}\s+(?:of\s+)?{_MONTH}|{_MONTH}\s+{_ORDINAL}|\d{{1,2}}-{_MONTH}-(?:19|20)?\d{{2}})\b\.?"
_BORN = r"\b(?:dob|d\.o\.b\.?|date of birth|born(?:\s+on)?|birth\s?day(?:\s+is)?|birthdate)\W{1,3}(?:is\s+)?"
# A name as it is written with capitals, and as patients write it after words that announce nothing else.
_NAME = r"(?:[A-Z]\.\s*)*[A-Z][\w'’-]*[a-z](?:\s+[A-Z][\w'’-]+){0,2}"
_NO_NAME = (
    r"(?!(?:not|n[o']t|an?|the|important|none|private|just|so|very|really|it|this|that|what|on|in|if|when|for|because|urgent\w*|worried|unknown"
    r"|allergic|fell|who|diabetic|pregnant|google|pepper|back|asap|now|please|later|when|crazy|stupid|names?|me|there|all|everyone|everybody|team|guys|folks|doc|doctor|nurse|sir|madam|you|my|your|someone|anyone"
    r"|somebody|anybody|both|once|again)\b)"
)
_NO_SURNAME = r"(?!(?:and|but|i|im|with|my|he|she|is|was|has|who|from|lol|here|aged?|please|dob|calling)\b)"
_ANY_NAME = rf"{_NO_NAME}[a-z][\w'’-]+(?:\s+{_NO_SURNAME}[a-z][\w'’-]+)?"
_AGE = r"\s*,\s*\d{1,3}\b(?!\s*(?:week|month|day|hour|min))"
_CALL = r"\b(?:call|text|ring|phone|cell|mobile|tel|number)"
_RELATION = (
    r"son|daughter|wife|husband|partner|boyfriend|girlfriend|fianc[ée]e?|brother|sister|mum|mom|mother|dad|father|baby|child|friend|aunt"
    r"|uncle|nephew|niece|(?:flat|room|house)mate|grand(?:mother|father|ma|pa|son|daughter)|nan|neighbou?r|boss|carer|nurse|doctor|gp|midwife|therapist"
)
_STREET = r"street|road|avenue|lane|crescent|terrace|boulevard|gardens|st|rd|ave|ln|blvd"
_OPEN_STREET = (
    r"Street|Road|Avenue|Lane|Crescent|Terrace|Boulevard|Gardens|St|Rd|Ave|Ln|Blvd|Close|Drive|Dr|Way|Court|Ct|Place|Pl|Square|Sq|Row"
    r"|Hill|Grove|Mews|Parkway|Pkwy"
)
_NO_STREET = r"(?!(?:on|the|a|in|from|of|down|up|to|at|off|by|my|across|along|times?|days?|hours?|weeks?|miles?|steps?|pills?|mg|ml)\b)"
_AROUND = r"(?:(?:flat|apt|apartment|unit|suite)\s*\w{1,4},?\s+)?"
_GREETING = r"(?:hi|hello|hey|hiya|dear|(?:good )?(?:morning|afternoon|evening))"
_WAY = r"(?:rue|via|viale|piazza|calle|avenida|plaza|paseo|rua|travessa|stra(?:ss|ß)e|chemin|place)"
_DWELL = (
    r"\b(?:(?:liv(?:e|es|ing)|stay(?:s|ing)?) (?:at|in|on)|address(?: is)?|home is|house is|(?:come|get|send \w+) to|i'?m at|i am at"
    r"|s?he is at)\W{1,2}"
)
_SPOKEN_OF = r"ask for|asking for|speak to|talk to|spoke to|tell|contact|writing for|carer (?:of|for)|behalf of|care of"
_BEHIND = r"(?:\s+(?:NW|NE|SW|SE)\b)?(?:,?\s+(?:apt|apartment|flat|unit|suite|#)\.?\s*\w{1,4})?(?:,\s+[A-Z][a-z]+)?"
_UNIT = r"(?!\s*(?:iu|units?|mg|mcg|ug|µg|ml|l|g|kg|grams?|steps|cells|k?cal|copies|x|%|/|per)\b)"
# Words of a document or account, then at most a few that say nothing, then what has a digit in it.
_DOCUMENT = (
    r"mrn|medical record|chart|hospital|patient (?:id|number|no)|case|nhs|ssn|social(?: security)?|insurance|member(?:ship)?|policy|group"
    r"|medicare|medicaid|health card|passport|licen[cs]e|card|account|serial|reference|claim|subscriber"
)
_FILLER = (
    r"(?:\W{1,3}(?:number|numbers|no|nr|id|is|are|of|my|card|plan|policy|record|security|the|last|four|ending|in|ends?|ref)\b\.?){0,4}"
    r"\W{1,3}"
)
_ID = r"[a-z]{0,5}-?\d[\w/-]*(?:[ -](?=[\w-]*\d)(?!\d{1,2}\s+(?:mg|ml))[\w-]+){0,5}"

# What must be there for a pattern of a kind to match.
_WITH_DIGIT: Final = frozenset({"date", "number", "phone", "postcode", "address"})
_HINTS: Final = {"mail": ("@", " at ", "(at", "[at"), "link": ("www.", "http"), "handle": ("@",)}

# The group `it` is what goes, where there is one. No stretch may be tried in many ways: hostile texts are read here too.
# Behind a pattern stand words of which one must be there for it to match: most texts hold none, and are done with quickly.
_PATTERNS: Final = tuple(
    (kind, re.compile(pattern), words or _HINTS.get(kind, ()))
    for kind, pattern, *words in (
        ("mail", r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
        ("mail", r"(?i:(?<![\w.+-])[\w.+-]+\s*[(\[]at[)\]]\s*[\w-]+(?:\s*(?:\.|[(\[]dot[)\]])\s*\w+)+)"),
        ("mail", r"(?i:(?<![\w.+-])[\w.+-]+(?: (?:dot|underscore|dash) [\w-]+){0,3} at [\w-]+(?: dot \w+)+)"),
        ("link", r"(?:https?://|www\.)\S+"),
        ("handle", r"(?<!\S)@\w[\w.]{2,}"),
        ("date", rf"(?i:{_BORN}(?P<it>{_DAY_MONTH}(?:,?\s+(?:\d{{4}}|'?\d{{2}}))?\b))"),
        ("date", rf"(?i:\b(?P<it>{_DAY_MONTH},?\s+(?:19|20)\d{{2}})\b)"),
        ("date", r"\b\d{1,2}([/.-])\d{1,2}\1(?:19|20)?\d{2}\b"),
        ("date", r"\b(?:19|20)\d{2}([/.-])\d{1,2}\1\d{1,2}\b"),
        ("number", rf"(?i:\b(?:{_DOCUMENT})\b{_FILLER}(?P<it>{_ID}))"),
        ("number", r"\b[A-Z]{2}\d{2}(?: ?[A-Z\d]{4}){2,7}(?: ?[A-Z\d]{1,3})?\b"),
        ("number", r"\b\d{3}-\d{2}-\d{4}\b"),
        ("phone", r"(?<![\w.])\+?\(?\d(?:[\s().-]{0,2}\d){8,14}(?!\w)"),
        ("phone", rf"(?i:{_CALL}(?:'s)?(?:\s+(?:me|number|is|on|at|no))*\W{{1,3}}(?P<it>\d{{3}}[ .-]?\d{{4}})(?!\w))"),
        ("number", rf"\b(?=[A-Z-]*\d)(?=(?:[A-Z-]*\d){{5}})(?!\d{{1,3}}-\d{{1,3}}\b)[A-Z]{{0,3}}\d[\dA-Z-]{{6,}}\b{_UNIT}"),
        ("postcode", r"\b[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2}\b"),
        ("postcode", r"(?i:\bpost\s?code\W{1,3}(?:is\s+)?(?P<it>[a-z]{1,2}\d[a-z\d]?\s?\d[a-z]{2})\b)"),
        ("postcode", r"(?i:\b(?:zip(?:\s?code)?)\W{1,3}(?:is\s+)?(?P<it>\d{5}(?:-\d{4})?)\b)"),
        ("postcode", r"\b[A-Z]\d[A-Z] \d[A-Z]\d\b"),
        ("postcode", r"(?i:\b(?:eircode|postal code|post\s?code)\W{1,3}(?:is\s+)?(?P<it>[a-z\d]{3,4} ?[a-z\d]{3,4})\b)"),
        ("postcode", r",\s+[A-Z]{2}\s+(?P<it>\d{5}(?:-\d{4})?)\b"),
        ("address", r"(?i:\bp\.?o\.? box\W{1,3}(?P<it>\d+))"),
        ("address", rf"(?i:\b{_AROUND})\b\d{{1,5}}[a-zA-Z]?,?\s+(?:[A-Z][\w'’.]*\s+){{1,3}}(?:{_OPEN_STREET})\b\.?(?i:{_BEHIND})"),
        ("address", rf"\b\d{{1,4}}\s+The\s+(?:{_OPEN_STREET})\b"),
        ("address", rf"(?i:\b{_AROUND}\b\d{{1,5}}[a-z]?\s+(?:{_NO_STREET}[a-z][\w'’]+\s+){{1,2}}(?:{_STREET})\b\.?){_BEHIND}"),
        (
            "address",
            rf"(?i:{_DWELL})(?P<it>(?i:(?:no\.?|number) )?\d{{1,5}}[a-zA-Z]?,?(?: [NSEW]\b\.?)?\s+(?:[A-Z\d][\w'’.-]*\s*){{1,4}}{_BEHIND})",
        ),
        ("address", rf"(?i:\b\d{{1,5}}[a-z]?,?\s+{_WAY}\s+)[\w'’-]+(?:\s+[A-Z][\w'’-]+){{0,3}}{_BEHIND}"),
        ("address", rf"(?i:\bliv(?:e|es|ing) (?:in|on)\s+)(?P<it>(?i:{_NO_STREET})(?:[\w'’]+\s+){{1,2}}(?i:{_STREET})\b)", "liv"),
        (
            "address",
            r"(?:(?i:the )?\b[A-Z][\w'’.]+\s+(?:[A-Z][\w'’.]+\s+){0,2}(?i:(?:care|nursing|residential|retirement) home)\b)",
            " home",
        ),
        ("name", rf"(?i:^\W*(?:{_GREETING}[,\s]+)?)(?P<it>(?i:{_NO_NAME}){_NAME}),?(?i:\s+(?:here|speaking|again)\b)"),
        ("name", rf"^(?P<it>(?i:{_NO_NAME}){_NAME})(?={_AGE})"),
        ("name", rf"(?i:^\W*{_GREETING}[,\s]+)(?P<it>(?i:{_NO_NAME}){_NAME})(?=\s*[,.!-])"),
        ("name", rf"(?i:\bit'?s\s+(?P<it>{_NO_NAME}[a-z]{{3,}})(?=\s+(?:again|here|speaking)\b))", "again", "here", "speaking"),
        ("name", rf"(?i:\b(?:name|patient)\b[\s:]{{1,3}})(?P<it>(?i:{_NO_NAME}){_NAME})", "name", "patient"),
        ("name", rf"(?i:\b(?:is|was) called\s+)(?P<it>(?i:{_NO_NAME}){_NAME})", "called"),
        (
            "name",
            rf"(?i:\b(?:{_SPOKEN_OF})\s+)(?P<it>(?i:{_NO_NAME}){_NAME})",
            "ask",
            "spe",
            "spoke",
            "talk",
            "tell",
            "contact",
            "writing",
            "carer",
            "behalf",
            "care of",
        ),
        ("name", rf"(?i:\b(?:i'?m|i am)\s+)(?P<it>(?i:{_NO_NAME}){_NAME})(?=,?\s+(?:and\s+)?(?:[Ii]\b|[Ii]['’]))"),
        ("name", rf"(?i:\b(?:{_RELATION})\s*\()(?P<it>(?i:{_NO_NAME}){_NAME})(?=\))", "("),
        ("name", rf"(?i:\bnames?(?:'?s|\s+is|\s*[:=])\s*(?P<it>{_ANY_NAME}))"),
        ("name", rf"(?i:\b(?:patient |sur|first |last |fore|full |family )name\s+(?P<it>{_ANY_NAME}))"),
        ("name", rf"(?i:\b(?:call me|they call me|i am called|i'?m called|(?:he|she) is called)\s+(?P<it>{_ANY_NAME}))"),
        ("name", rf"(?i:\b(?:i'?m|i am|this is)\s+)(?P<it>{_NAME})(?=\s+(?:here|calling|from|speaking)\b|{_AGE})"),
        ("name", rf"(?i:\b(?:i'?m|this is)\s+(?P<it>[a-z]{{3,}}))(?={_AGE})"),
        ("name", rf"(?i:\b(?:{_RELATION})(?:,| is)?\s+)(?P<it>(?i:{_NO_NAME}){_NAME})"),
        ("name", rf"\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Sister|Nurse)\.?\s+(?i:{_NO_NAME})(?P<it>{_NAME})"),
        ("name", rf"(?i:\b(?:thanks|thank you|regards|wishes|sincerely|signed|love|cheers)\b[,\s]+)(?P<it>{_NAME})\s*[.!]?\s*$"),
        ("name", rf"^(?P<it>{_NAME})\s+here\b"),
        ("name", r"(?i:\bsent from )(?P<it>[A-Z][\w-]+['’]s)\b"),
    )
)
_HAS_DIGIT: Final = re.compile(r"\d")


def find(text: str) -> list[Span]:
    """What identifies a person, in order, without overlaps; where patterns overlap, what begins first and is longest counts."""
    has_digit = _HAS_DIGIT.search(text) is not None
    low = text.lower()
    found = [
        Span(*match.span("it" if "it" in pattern.groupindex else 0), kind)
        for kind, pattern, words in _PATTERNS
        if (has_digit or kind not in _WITH_DIGIT or "\\d" not in pattern.pattern) and (not words or any(word in low for word in words))
        for match in pattern.finditer(text)
    ]
    spans: list[Span] = []
    for span in sorted(found, key=lambda s: (s.start, -s.end)):
        if not spans or span.start >= spans[-1].end:
            spans.append(span)
    return spans


def redact(text: str) -> str:
    """The text with everything of a known form replaced by its kind in brackets."""
    parts, at = list[str](), 0
    for span in find(text):
        parts += [text[at : span.start], f"[{span.kind}]"]
        at = span.end
    return "".join([*parts, text[at:]])
