"""Imports point one way: the engine knows nobody, the packs teach it, the proxy asks it, the app puts all together."""

import ast
from collections.abc import Iterator
from pathlib import Path

import guardrail

ROOT = Path(guardrail.__file__).parent

# Part -> the parts it may import, besides itself and the errors. `app` is everything that stands at the top.
ALLOWED = {
    "errors": set(),
    "engine": set(),
    "packs": {"engine"},
    "audit": {"engine"},
    "alerts": {"audit", "engine"},
    "proxy": {"engine", "audit"},
    "stress": {"engine", "packs"},
    "dashboard": {"audit", "engine"},
}


def part_of(module: str) -> str:
    """`guardrail.engine.guard` -> engine; a module at the top is the app."""
    name = module.split(".")[1] if "." in module else "app"
    return name if name in ALLOWED else "app"


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full"
            module = node.module or ""
            # `from guardrail import config` names a module, `from guardrail.config import Settings` a thing in one.
            yield from ((node.lineno, f"{module}.{alias.name}" if module == "guardrail" else module) for alias in node.names)


def test_imports_point_one_way() -> None:
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        module = ".".join(("guardrail", *path.relative_to(ROOT).with_suffix("").parts))
        part = part_of(module)
        if part == "app":
            continue
        for line, name in imports(path):
            if name.split(".")[0] == "guardrail":
                target = part_of(name)
                if target not in {part, "errors"} | ALLOWED[part]:
                    wrong.append(f"{path.relative_to(ROOT.parent)}:{line}: {part} must not import {name}")

    assert wrong == []


def test_the_engine_is_pure() -> None:
    """No files, network, clock, randomness or logging."""
    impure = {
        "os",
        "io",
        "pathlib",
        "socket",
        "asyncio",
        "time",
        "datetime",
        "random",
        "secrets",
        "logging",
        "structlog",
        "subprocess",
        "threading",
    }
    wrong = [
        f"{path.relative_to(ROOT.parent)}:{line}: {name}"
        for path in sorted((ROOT / "engine").rglob("*.py"))
        for line, name in imports(path)
        if name.split(".")[0] in impure
    ]

    assert wrong == []
