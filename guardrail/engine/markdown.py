"""Where in Markdown the end of a reply stands: what is put behind it must not land in a code block.

Fences as CommonMark has them (https://spec.commonmark.org/0.31.2/#fenced-code-blocks), wherever they are indented, so that those in
list items count too. Lists, tables and quotes end by themselves at a blank line and a line that is not indented.
"""

import re

_FENCE = re.compile(r"[ \t]*(`{3,}(?=[^`\n]*(?:\n|$))|~{3,})")


class Fences:
    """Follows the code blocks of a text that is given piece by piece; a fence is never divided between two."""

    def __init__(self) -> None:
        self._open = ""
        """The fence of the open block with what it is indented by."""
        self._at_line_start = True
        self._rest = False
        """There is something else than one block of JSON."""
        self._begun = False

    def read(self, text: str) -> None:
        for line in text.splitlines(keepends=True):
            if self._at_line_start:
                self._read_line(line)
            elif not self._open and line.strip():
                self._rest = True
            self._at_line_start = line.endswith("\n")

    def _read_line(self, line: str) -> None:
        found = _FENCE.match(line)
        if self._open:
            fence = self._open.strip()
            if found and found[1].startswith(fence) and not line.strip().strip(fence[0]):
                self._open = ""
            elif not self._begun and line.strip():
                self._begun = True
                self._rest = self._rest or line.lstrip()[0] not in "{["
        elif found:
            self._rest = self._rest or self._begun
            self._open = found[0]
        elif line.strip():
            self._rest = True

    @property
    def closing(self) -> str:
        """What ends the block that is open, if one is."""
        return ("" if self._at_line_start else "\n") + self._open if self._open else ""

    @property
    def is_json(self) -> bool:
        """Whether there is nothing but one block of JSON, as models send it to programs."""
        return self._begun and not self._rest
