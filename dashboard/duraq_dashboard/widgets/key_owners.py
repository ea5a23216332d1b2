"""Which keys there are on whatever screen, and what they do there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from textual.binding import Binding
from textual.dom import DOMNode


def key_owners(keys: Mapping[str, str] = MappingProxyType({})) -> Iterator[Mapping[str, set[str]]]:
    """Of each kind of screen and widget, the names of what each key does there; one, if all is well.

    ``keys``: by name, those that somebody wants instead.
    """
    _import_all()
    kinds: list[type[DOMNode]] = [DOMNode]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        found: dict[str, set[str]] = {}
        if kind.__module__.startswith("duraq_dashboard"):
            for binding in Binding.make_bindings(kind.__dict__.get("BINDINGS", ())):
                if binding.id:
                    for key in keys.get(binding.id, binding.key).split(","):
                        found.setdefault(key.strip(), set()).add(binding.id)
        yield found


def complaints(keys: Mapping[str, str]) -> Iterator[str]:
    """What is the matter with those keys, by name: there is no such name, or the key is that of another."""
    known = {name for owner in key_owners() for names in owner.values() for name in names}
    unknown = sorted(set(keys) - known)
    if unknown:
        yield f"there is no {', '.join(unknown)}; ? lists all names"
    shared = [names for owner in key_owners(keys) for names in owner.values() if len(names) > 1]
    taken = sorted({" and ".join(sorted(names)) for names in shared if names & keys.keys()})
    if taken:
        yield f"the same key for {'; '.join(taken)}"


def _import_all() -> None:
    """Whatever else is imported only once it is opened."""
    from duraq_dashboard.dialogs import actor, export, reading  # noqa: F401, PLC0415
    from duraq_dashboard.screens import (  # noqa: F401, PLC0415
        copy_menu,
        dead_letters,
        entry,
        errors,
        events,
        health,
        help,  # noqa: A004 - the screen
        leases,
        palette,
        queue_detail,
        queues,
    )
