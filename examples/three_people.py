"""One model, one batch, three people and the base: what each asked for, what was granted, and how each is answered.

Run by `make run`. Also merges each person's soup into a plain PEFT adapter with its card, under out/.
"""

import argparse
import re
from pathlib import Path

from rich.columns import Columns
from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

import soupmix

POLICIES = Path(__file__).parent / "policies"
BASE = "smollm2-135m-instruct"
PROMPT = "Do you think robots make good helpers?"
PEOPLE = {
    "Ada, eleven years old": ({"elementary": 0.7, "concise": 0.5, "friendly": 1.0}, {"audience": "minor"}),
    "Ben, a physician": ({"expert": 1.0, "informative": 0.2, "friendly": 0.4}, {"audience": "public"}),
    "Cleo, in a hurry": ({"elementary": 0.4, "concise": 0.6, "unfriendly": 0.9}, {"audience": "public"}),
}


def main() -> None:
    """Clamp, merge, answer, print."""
    arguments = _arguments()
    console = Console(record=arguments.svg is not None, width=arguments.width)
    store = soupmix.Store.shipped()
    policy = soupmix.Policy.load(POLICIES / "law.example.yaml", POLICIES / "organisation.example.yaml", adapters=store)
    grants = {name: policy.clamp(weights, **about) for name, (weights, about) in PEOPLE.items()}
    everybody = {"the base model": policy.clamp({}), **grants}
    engine = soupmix.Engine.load(BASE, store)
    prompts, people = [PROMPT] * len(everybody), list(everybody.values())
    answers = engine.generate(prompts, people, max_new_tokens=arguments.tokens, temperature=0.6, seed=11)
    panels = [_panel(name, everybody[name], text.strip()) for name, text in zip(everybody, answers, strict=True)]
    console.print(Text(PROMPT, style="bold"))
    console.print(Columns(panels, equal=True, expand=True))
    for name, grant in grants.items():
        soupmix.merge(store, grant).save_adapter(_folder(arguments.out, name), force=True)
    folders = ", ".join(str(_folder(arguments.out, name)) for name in grants)
    console.print(f"[dim]Their soups as PEFT adapters, each with card, recipe and grant: {folders}[/dim]")
    if arguments.svg is not None:
        picture = console.export_svg(title="one batch, a soup per row")
        fonts = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # rich would load them from the network
        arguments.svg.write_text(fonts.sub("", picture), "utf-8")


def _folder(out: Path, name: str) -> Path:
    return out / name.split(",")[0].lower()


def _panel(name: str, grant: soupmix.Grant, answer: str) -> Panel:
    about = ", ".join(f"{key} {value}" for key, value in grant.attributes.items())
    body = Group(Text(grant.explain(), style="cyan"), Text(), Text(answer))
    return Panel(body, title=name, subtitle=about or None, title_align="left", width=58)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the merged adapter goes")
    parser.add_argument("--tokens", type=int, default=130, help="most tokens of an answer")
    parser.add_argument("--width", type=int, default=120, help="columns of the terminal")
    parser.add_argument("--svg", type=Path, help="also save the picture")
    return parser.parse_args()


if __name__ == "__main__":
    main()
