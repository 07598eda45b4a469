"""docs/api.md from the docstrings of the face, by griffe2md.

python -m tests.support.api > docs/api.md
"""

import logging
import re
from pathlib import Path

import griffe
import griffe2md

import soupmix

SOURCES = [str(Path(soupmix.__file__).parents[1])]
HEAD = """\
# The library

Everything that `soupmix.<Tab>` shows, from its docstrings by `make docs`. Names not listed here are internal, and may change.
`soupmix.audit` ([audit.md](audit.md)) and `soupmix.trust` ([trust.md](trust.md)) are rooms with names of their own.
"""
CONFIG: griffe2md.ConfigDict = {
    "docstring_section_style": "list",
    "docstring_style": "google",
    "filters": ["!^_"],
    "group_by_category": True,
    "heading_level": 3,
    "inherited_members": True,
    "line_length": 100,
    "merge_init_into_class": True,
    "separate_signature": True,
    "show_bases": False,
    "show_if_no_docstring": False,
    "show_object_full_path": False,
    "show_root_heading": True,
    "show_root_full_path": False,
    "show_signature_annotations": True,
    "show_submodules": False,
    "signature_crossrefs": False,
    "summary": False,
}


def page() -> str:
    """The whole page: functions, classes, exceptions."""
    logging.getLogger("griffe").setLevel(logging.ERROR)
    package = griffe.load("soupmix", search_paths=SOURCES, docstring_parser="google")
    rooms = [name for name in soupmix.__all__ if name in ("__version__", "audit", "trust")]
    found = {name: package[name].final_target for name in soupmix.__all__ if name not in (*rooms, "merge")}
    found["merge"] = package["merge.soup.merge"]
    kinds: dict[str, list[str]] = {"Functions": [], "Classes": [], "Exceptions": []}
    for name, each in sorted(found.items()):
        kind = "Functions" if isinstance(each, griffe.Function) else "Exceptions" if _is_error(name) else "Classes"
        kinds[kind].append(_section(name, each))
    return HEAD + "".join(f"\n## {kind}\n\n{''.join(sections)}" for kind, sections in kinds.items())


def _is_error(name: str) -> bool:
    return issubclass(getattr(soupmix, name), Exception)


def _plain(text: str) -> str:
    """Without links: the targets of most stand in no document."""
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)


def _section(name: str, found: griffe.Object) -> str:
    text = griffe2md.render_object_docs(found, config=CONFIG)
    text = re.sub(r"<code>(.*?)</code>", lambda match: f"`{_plain(match[1]).strip('()')}`", text)
    text = re.sub(r"\[(\*\*\w+\*\*)\]\(#[^)]*\)", r"\1", text)
    text = re.sub(r"(?<=```python\n).*(?=\n```)", lambda match: _wrapped(match[0]), text)
    text = text.replace(f"`{found.path}.", f"`{name}.").replace(f"`{found.name}`", f"`soupmix.{name}`", 1)
    return f"{text.strip()}\n\n"


def _wrapped(signature: str) -> str:
    """A long signature with an argument a line."""
    if len(signature) <= 100 or "(" not in signature:
        return signature
    head, _, rest = signature.partition("(")
    inner, _, end = rest.rpartition(")")
    arguments, depth = [""], 0
    for letter in inner:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            arguments.append("")
        else:
            arguments[-1] += letter
    return f"{head}(\n" + "".join(f"    {each.strip()},\n" for each in arguments) + f"){end}"


if __name__ == "__main__":
    print(page(), end="")
