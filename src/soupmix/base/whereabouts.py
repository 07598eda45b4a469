"""Where bases were last seen on this machine, by digest: adapters name their base by it, and by a label that is no path."""

from pathlib import Path

from soupmix.base.cache import cache_root
from soupmix.base.records import recalled, remember
from soupmix.base.resolver import Base, resolve
from soupmix.errors import BaseModelError

__all__ = ["base_of", "remember_base"]


def remember_base(base: Base) -> None:
    """Remember where a base is; nothing is believed of that later but by its digest."""
    kind = base.source.partition(":")[0]
    name = str(Path(base.name).expanduser().resolve()) if kind in ("folder", "gguf") else base.name
    place, known = _record(base.digest), {"name": name}
    if recalled(place) != known:
        remember(place, known)


def base_of(label: str, digest: str) -> Base:
    """The base with this digest: where it was last seen, else what its label names.

    Args:
        label: as adapters have it, see `Base.label`.

    Raises:
        BaseModelError: neither is that base ("unknown-base"); the message says what is needed.
    """
    said = (recalled(_record(digest)) or {}).get("name")
    tried = dict.fromkeys(name for name in (said, label) if isinstance(name, str) and name)
    why = ""
    for name in tried:
        try:
            found = resolve(name)
        except BaseModelError as error:
            why = f" ({error})"
            continue
        if found.digest == digest:
            return found
        why = f" ({name} is now another, {found.digest[:23]}...)"
    raise BaseModelError(
        f"these adapters were trained on {label} ({digest[:23]}...), which was not found here{why}: give it with --base",
        reason="unknown-base",
    )


def _record(digest: str) -> Path:
    return cache_root() / "places" / f"{digest.removeprefix('sha256:')}.json"
