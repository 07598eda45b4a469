"""What pairs and corners keep of each dimension, and what they do besides: the section `decides` of a report."""

from collections.abc import Iterator, Sequence

from weights_do.text import Figure, Report, bare, luck, number, plain, table, told, weight

ENOUGH, HALF = 0.8, 0.5  # of an effect, for a dimension to compose, and to be lost
NOT = "not measured"


def temperatures(report: Report) -> list[str]:
    """Sampled before greedy: it is how people are answered."""
    return sorted(report["results"], key=float, reverse=True)


def decided(report: Report) -> Iterator[tuple[str, str, str, Report]]:
    for temperature in temperatures(report):
        for method, strengths in report["decides"].get(temperature, {}).items():
            for strength in sorted(strengths, key=float):
                yield temperature, method, strength, strengths[strength]


def nearest(report: Report) -> tuple[str, str]:
    """The first method, and the strength that is .7 or nearest to it."""
    found = [each[1:3] for each in decided(report)]
    return min((each for each in found if each[0] == found[0][0]), key=lambda each: abs(float(each[1]) - 0.7))


def first_words(report: Report) -> str:
    """The worst, by name, at .7 or what is nearest, by the first method."""
    found = list(decided(report))
    if not found:
        return "No soup of this report mixes dimensions."
    method, strength = nearest(report)
    chosen = [each for each in found if each[1:3] == (method, strength)]
    sentences = []
    for temperature, _, _, each in chosen:
        worst = {name: one["worst"] for name, one in each["dimensions"].items() if one["worst"]}
        said = ", ".join(
            f"of {name} {told(one['share'])} in `{plain(one['soup'])}`"
            for name, one in sorted(worst.items(), key=lambda item: item[1]["share"]["value"])
        )
        damage = ", ".join(
            f"{measure.replace('_', ' ')} {number(one['effect']['value'])} in `{plain(one['soup'])}`"
            for measure, one in each["damage"].items()
            if one["effect"]
        )
        kept = f"least is kept {said}" if said else "no effect alone can be told from nothing"
        against = f"; against the base, worst {damage}" if damage else ""
        sentences.append(f"{luck(temperature).capitalize()}, {kept}{against}.")
    soups = f"{chosen[0][3]['soups']} pairs and corners of the adapters at {weight(strength)} each, by `{method}`"
    return f"{verdict([each[3] for each in chosen])} In {soups}: {' '.join(sentences)}"


def verdict(found: Sequence[Report]) -> str:
    """Which dimensions compose: the least of many looks less than it is, so a whole interval has to lie on one side."""
    shares: dict[str, list[Figure]] = {}
    for each in found:
        for name, one in each["dimensions"].items():
            shares.setdefault(name, []).extend(one["shares"].values())
    lacking = sorted(name for name, own in shares.items() if any(one and one["high"] < ENOUGH for one in own))
    whole = sorted(name for name, own in shares.items() if all(one and one["low"] >= ENOUGH for one in own))
    unsure = sorted(shares.keys() - {*lacking, *whole})
    said = [f"{_and(lacking)} {'do' if len(lacking) > 1 else 'does'} not compose"] if lacking else []
    if whole:
        said.append(f"{_and(whole)} compose{'s' * (len(whole) == 1)}" if lacking or unsure else "all compose")
    if unsure:
        said.append(f"of {_and(unsure)} it cannot be told")
    words = "; ".join(said)
    return f"**{words[:1].upper()}{words[1:]}.**"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def lost(report: Report, *only: tuple[str, str]) -> str:
    """In plain words, of every dimension, where it is lost; by these methods at these weights, or all."""
    lines = []
    for temperature, method, strength, each in decided(report):
        if only and (method, strength) not in only:
            continue
        for name, one in each["dimensions"].items():
            shares = {soup: share for soup, share in one["shares"].items() if share}
            gone = [soup for soup, share in shares.items() if share["value"] < HALF]
            if gone:
                lines.append(
                    (
                        luck(temperature),
                        method,
                        weight(strength),
                        name,
                        f"{len(gone)} of {len(shares)}",
                        _soups(gone),
                    )
                )
    if not lines:
        return "No dimension loses half of its effect in any soup."
    head = ("", "method", "weights", "dimension", "loses half in", "which")
    return table(head, lines)


def untold(report: Report) -> str:
    """Poles that do too little alone for anything to be kept of it."""
    found: dict[str, list[str]] = {}
    for temperature, method, strength, each in decided(report):
        where = f"{weight(strength)} ({method}, {luck(temperature)})"
        for name, one in each["dimensions"].items():
            parts = {part for soup, share in one["shares"].items() if share is None for part in plain(soup).split("+")}
            for pole in sorted(part for part in parts if report["adapters"][part]["dimension"] == name):
                found.setdefault(pole, []).append(where)
    said = "; ".join(f"`{pole}` at {', '.join(places)}" for pole, places in sorted(found.items()))
    why = "Of these the effect alone cannot be told from nothing, or fewer than five prompts tell it, so there is no share of it"
    return f"{why}: {said}." if said else ""


def _soups(names: Sequence[str]) -> str:
    return ", ".join(map(plain, names))


def kept_table(report: Report) -> str:
    dimensions = list(dict.fromkeys(name for *_, each in decided(report) for name in each["dimensions"]))
    rows = []
    for temperature, method, strength, each in decided(report):
        cells = []
        for name in dimensions:
            one = each["dimensions"].get(name)
            worst = one and one["worst"]
            cells.append(f"{told(worst['share'])}<br>{plain(worst['soup'])}" if worst else NOT)
            cells.append(bare(one["kept"]) if one else "–")
        rows.append((luck(temperature), method, weight(strength), *cells))
    head = ("", "method", "weights", *(cell for name in dimensions for cell in (f"{name}: least", "all")))
    return table(head, rows)


def effect_table(report: Report) -> str:
    """Whether answers have any effect, in the worst soup and alone."""
    rows = []
    for temperature, method, strength, each in decided(report):
        for name, one in each["dimensions"].items():
            if one["any"]:
                soup = plain(one["worst"]["soup"])
                cells = (name, told(one["any_alone"]), told(one["any"]), soup)
                rows.append((luck(temperature), method, weight(strength), *cells))
    return table(
        ("", "method", "weights", "dimension", "answers with some effect, alone", "in the worst soup", "which"), rows
    )


def across_table(report: Report) -> str:
    """What each adapter does to other dimensions, more towards the first pole of each: of each the worst strength last."""
    rows, poles = [], {}
    for found in report["fronts"].values():
        poles |= found["poles"]
    dimensions = list(poles)
    for temperature, method, strength, each in decided(report):
        found: dict[str, dict[str, Figure]] = {}
        for one in each["cross_talk"]:
            found.setdefault(plain(one["soup"]), {})[one["dimension"]] = one["share"]
        for adapter, shares in found.items():
            cells = (told(shares[name]) if name in shares else "" for name in dimensions)
            rows.append((luck(temperature), method, weight(strength), adapter, *cells))
    return table(
        (
            "",
            "method",
            "weight",
            "adapter alone",
            *(f"moves {each} towards {poles[each][0]} by" for each in dimensions),
        ),
        rows,
    )
