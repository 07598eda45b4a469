"""Words of rules that are nearly, and not quite, what adapters are called: a rule with one lets through what it was to stop."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches

from soupmix.policy.adapters import AdapterRef, know
from soupmix.policy.documents import Document
from soupmix.policy.rules import Combinations, Exclusive, Fix, Group, Infer, Rule

__all__ = ["misspelt"]

_LABELS = ("adapter", "dimension", "pole", "tag")


def misspelt(
    documents: Sequence[tuple[str, Document]],
    adapters: Iterable[AdapterRef],
    lines: Sequence[Sequence[int]] = (),
) -> tuple[str, ...]:
    """A sentence for every name or label in a rule that no adapter has, where one is spelt nearly so.

    Args:
        documents: (what messages call it, the document). adapters: usually a store.
        lines: of each document, the line of each of its rules; nothing, where they are not known.

    Raises:
        PolicyError: as `soupmix.policy.adapters.know` raises.
    """
    known = know(adapters, [document for _, document in documents])
    words = {
        "adapter": {each.name for each in known},
        "dimension": {each.dimension for each in known if each.dimension},
        "pole": {each.pole for each in known if each.pole},
        "tag": {tag for each in known for tag in each.tags},
    }
    found = []
    for number, (name, document) in enumerate(documents):
        for index, (rule, ref) in enumerate(document.placed(name)):
            place = f"{ref}, line {lines[number][index]}" if lines else str(ref)
            for label, word in _said(rule):
                near = [] if word in words[label] else get_close_matches(word, sorted(words[label]), n=1)
                found += [f"{place}: no {label} is called {word!r}; did you mean {each!r}?" for each in near]
    return tuple(dict.fromkeys(found))


def _said(rule: Rule) -> Iterator[tuple[str, str]]:
    """(label, word) of everything by which a rule says which adapters it is about; approvals go by digest."""
    for label in _LABELS:
        if isinstance(word := getattr(rule, label, None), str):
            yield label, word
    names: Iterable[str] = ()
    match rule:
        case Infer():
            yield from (("dimension", name) for name in rule.dimensions)
        case Group() | Exclusive():
            names = rule.adapters or ()
        case Fix():
            names = rule.weights
        case Combinations():
            names = (name for each in rule.allow for name in each.adapters)
    for name in names:
        yield "adapter", name
