"""Reply guards for tests: small, strict, and independent of how text is cut up."""

from guardrail.engine.reply import Edit, ReplyGuard, ReplyReport, Review

FORBIDDEN = "FORBIDDEN"
EDITED = "colour"
EDITED_TO = "color"


class WordGuard(ReplyGuard):
    """Cuts before FORBIDDEN, edits "colour", and holds back whatever could still become one of them.

    Counts what it has released, so that a test can tell that nothing else was shown.
    """

    def __init__(self, channel: str = "content", preface: str = "", ending: str = "", replacement: str = "[replaced]") -> None:
        self._text = ""
        self._channel = channel
        self._preface = preface
        self._ending = ending
        self._replacement = replacement
        self._searched = 0
        self._was_cut = False
        self.report = ReplyReport()

    def preface(self) -> str:
        return self._preface

    def feed(self, text: str) -> Review:
        self._text += text
        held = max(
            (n for word in (FORBIDDEN, EDITED) for n in range(1, len(word)) if self._text.endswith(word[:n])),
            default=0,
        )
        return self._review(len(self._text) - held)

    def finish(self) -> Review:
        return self._review(len(self._text))

    def _review(self, upto: int) -> Review:
        cut = self._text.find(FORBIDDEN)
        if cut >= 0:
            self._was_cut = True
            self.report.action = "cut"
            upto = min(upto, cut)
        edits = []
        while (at := self._text.find(EDITED, self._searched)) >= 0 and at + len(EDITED) <= upto:
            edits.append(Edit(at, at + len(EDITED), EDITED_TO))
            self._searched = at + len(EDITED)
        self._searched = max(self._searched, upto)
        return Review(upto, tuple(edits), cut >= 0)

    def ending(self) -> str:
        return self._replacement if self._was_cut else self._ending


def expected(text: str, preface: str = "", ending: str = "", replacement: str = "[replaced]") -> str:
    """What a patient should be shown of a text under `WordGuard`."""
    cut = text.find(FORBIDDEN)
    if cut >= 0:
        return preface + text[:cut].replace(EDITED, EDITED_TO) + replacement
    return preface + text.replace(EDITED, EDITED_TO) + ending
