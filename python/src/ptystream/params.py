"""Parameters out of docstrings, as ptypy writes them.

A block begins with the line ``Defaults:``; each parameter has its name in brackets and lines
``key = value`` below it, of which the keys are type, default, help, doc, userlevel, lowlim, uplim,
choices. Lines that are indented more go on with the value before.
"""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any, Dict, Iterator, List, Optional

_KEYS = ("type", "default", "help", "doc", "userlevel", "lowlim", "uplim", "choices")
_NAME = re.compile(r"^\[([A-Za-z_][\w.]*)\]$")
_ENTRY = re.compile(r"^(\w+)\s*=\s?(.*)$")


class Param(dict):
    """A dictionary whose entries are attributes too; groups are `Param` themselves."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def copy(self, depth: int = 0) -> "Param":
        """Returns a copy; with `depth`, of groups too."""
        one = Param(self)
        if depth > 0:
            for key, value in one.items():
                if isinstance(value, Param):
                    one[key] = value.copy(depth - 1)
        return one

    def update(self, other: Any = (), in_place_depth: int = 99, **more: Any) -> None:  # type: ignore[override]
        """Takes over entries; groups are merged."""
        for key, value in {**dict(other or {}), **more}.items():
            mine = self.get(key)
            if in_place_depth > 0 and isinstance(mine, Param) and isinstance(value, dict):
                mine.update(value, in_place_depth - 1)
            else:
                self[key] = nested(value)

    def at(self, path: str, value: Any) -> None:
        """Sets the entry at a dotted path."""
        *groups, name = path.split(".")
        place = self
        for group in groups:
            below = place.get(group)
            if not isinstance(below, Param):
                below = place[group] = Param()
            place = below
        place[name] = value


def nested(value: Any) -> Any:
    """Makes `Param` of dictionaries, however deep."""
    if isinstance(value, dict):
        return Param({key: nested(v) for key, v in value.items()})
    return value


def _literal(text: str) -> Any:
    text = text.strip()
    if not text:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _entries(text: str) -> Iterator[Dict[str, Any]]:
    lines = inspect.cleandoc(text).splitlines()
    start = next((n for n, line in enumerate(lines) if line.strip() == "Defaults:"), None)
    if start is None:
        return
    entry: Optional[Dict[str, Any]] = None
    key = ""
    for line in lines[start + 1 :]:
        stripped = line.strip()
        name = _NAME.match(stripped)
        if name:
            if entry is not None:
                yield entry
            entry, key = {"name": name.group(1)}, ""
            continue
        if entry is None or not stripped:
            continue
        found = _ENTRY.match(stripped)
        if found and found.group(1) in _KEYS:
            key = found.group(1)
            entry[key] = found.group(2)
        elif key:
            entry[key] += " " + stripped
    if entry is not None:
        yield entry


def parse_defaults(docstring: Optional[str]) -> List[Dict[str, Any]]:
    """Returns the parameters of a docstring, in their order.

    Each is a dictionary with `name`, `types` (a list of names), `default`, `help`, `doc`, `userlevel`,
    `lowlim`, `uplim`, `choices`.
    """
    found = []
    for raw in _entries(docstring or ""):
        types = [t.strip() for t in raw.get("type", "").split(",") if t.strip()]
        default = _literal(raw.get("default", ""))
        # Without a quote a word is a text, and so is one where a text is wanted.
        if types == ["str"] and default is not None and not isinstance(default, str):
            default = raw["default"].strip()
        choices = _literal(raw.get("choices", ""))
        found.append(
            {
                "name": raw["name"],
                "types": types,
                "default": default,
                "help": " ".join(raw.get("help", "").split()),
                "doc": " ".join(raw.get("doc", "").split()),
                "userlevel": int(_literal(raw.get("userlevel", "")) or 0),
                "lowlim": _literal(raw.get("lowlim", "")),
                "uplim": _literal(raw.get("uplim", "")),
                "choices": list(choices) if isinstance(choices, (list, tuple)) else [],
            }
        )
    return found


def declared(cls: type) -> List[Dict[str, Any]]:
    """Returns the parameters of a class and of those that it is derived from, the nearest winning."""
    merged: Dict[str, Dict[str, Any]] = {}
    for base in reversed(cls.__mro__):
        for entry in parse_defaults(base.__dict__.get("__doc__")):
            before = merged.get(entry["name"], {})
            given = {k: v for k, v in entry.items() if v not in (None, "", [], 0)}
            merged[entry["name"]] = {**entry, **before, **given}
    return list(merged.values())


def defaults_of(cls: type) -> Param:
    """Returns the defaults of a class as a tree."""
    tree = Param()
    for entry in declared(cls):
        if "Param" in entry["types"] or "dict" in entry["types"]:
            tree.at(entry["name"], Param())
        else:
            tree.at(entry["name"], entry["default"])
    return tree
