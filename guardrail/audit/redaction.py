"""Takes what identifies a person out of a patient's words before they are kept.

Patterns of our own: addresses of mail and web, telephone numbers, long numbers, dates, postcodes, and names where they are
introduced ("my name is ..."). They catch what has a form; a name dropped in passing stays. Where that is not acceptable,
keep no text (`audit_text: absent`) or keep it encrypted.
"""

import re
from typing import Final

_NAME = r"[A-Z][\w'-]+(?:\s+[A-Z][\w'-]+){0,2}"
_PATTERNS: Final = (
    ("[mail]", re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")),
    ("[link]", re.compile(r"(?:https?://|www\.)\S+")),
    ("[date]", re.compile(r"\b(?:\d{1,2}[/.-]\d{1,2}[/.-](?:19|20)?\d{2}|(?:19|20)\d{2}-\d{2}-\d{2})\b")),
    ("[phone]", re.compile(r"(?<![\w.])\+?\d(?:[\s().-]{0,2}\d){8,14}(?!\w)")),
    ("[number]", re.compile(r"\b(?=\w*\d\w*\d\w*\d\w*\d)[A-Z]{0,3}\d[\dA-Z-]{5,}\b")),
    ("[postcode]", re.compile(r"\b[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2}\b")),
    ("[name]", re.compile(rf"(?i:\b(?:my name is|i am called|i'm called|this is|name's|signed,?|regards,?|sincerely,?)\s+){_NAME}")),
    ("[name]", re.compile(rf"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof)\.?\s+{_NAME}")),
    ("[address]", re.compile(r"\b\d{1,4}[a-zA-Z]?\s+(?:[A-Z][\w']+\s+){1,3}(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Close|Drive|Dr|Way)\b")),
)


def redact(text: str) -> str:
    """The text with everything of a known form replaced by its kind in brackets."""
    for kind, pattern in _PATTERNS:
        text = pattern.sub(kind, text)
    return text
