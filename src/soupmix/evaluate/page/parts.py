"""What a page is put together from."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from soupmix.evaluate.page.plots import Plot

__all__ = ["PageTable", "PlotGroup", "Section"]


@dataclass(frozen=True, slots=True)
class PageTable:
    """A table; `folded` is what it says where it is folded away, "" where it is open."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    folded: str = ""


@dataclass(frozen=True, slots=True)
class PlotGroup:
    """Plots beside each other, or one below the other where they are wide."""

    title: str
    plots: Sequence[Plot]
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page."""

    id: str
    title: str
    paragraphs: Sequence[str] = ()
    points: Sequence[str] = ()
    tables: Sequence[PageTable] = ()
    groups: Sequence[PlotGroup] = field(default=())
