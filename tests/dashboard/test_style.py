"""Colours that stand on each other can be read: WCAG AA asks for a contrast of 4.5 to 1."""

import re

import pytest

from guardrail.dashboard.render import HERE

CSS = (HERE / "static" / "style.css").read_text(encoding="utf-8")
PAIRS = [
    *((text, ground) for text in ("ink", "soft", "link") for ground in ("ground", "card")),
    *((name, f"{name}-ground") for name in ("emergency", "urgent", "routine", "fine")),
    *(("ink", ground) for ground in ("evidence", "finding", "cue", "urgent-ground")),
    ("link", "urgent-ground"),
    ("on-accent", "button"),
    ("soft", "finding"),
]


def colours(scheme: str) -> dict[str, str]:
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL))
    return light if scheme == "light" else dark


def luminance(colour: str) -> float:
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_contrast(scheme: str, text: str, ground: str) -> None:
    found = colours(scheme)
    lighter, darker = sorted((luminance(found[text]), luminance(found[ground])), reverse=True)

    assert (lighter + 0.05) / (darker + 0.05) >= 4.5
