// What a request says about a person, as far as the policy asks: one select per attribute.

export class Attributes {
  /** `values` are those that the policy's rules name, by attribute; `fixed` is what is so of the API key. */
  constructor(place, values, chosen, onChange) {
    this.selects = Object.entries(values).map(([name, known]) => {
      const select = selectOf(known);
      select.name = name;
      select.value = chosen[name] ?? "";
      select.addEventListener("change", onChange);
      place.append(labelled(name, select));
      return select;
    });
  }

  get chosen() {
    const said = this.selects.filter((each) => each.value && !each.disabled);
    return Object.fromEntries(said.map((each) => [each.name, each.value]));
  }

  /** Attributes that the server counts, whatever the page says: the API key's. */
  setCounted(counted) {
    for (const select of this.selects) {
      const fixed = counted[select.name];
      if (!fixed || fixed === select.value) continue;
      if (![...select.options].some((each) => each.value === fixed)) select.add(new Option(fixed, fixed));
      select.value = fixed;
      select.disabled = true;
      select.title = "What is so of the API key counts.";
    }
  }
}

function selectOf(known) {
  const select = document.createElement("select");
  select.add(new Option("not said: every rule holds", ""));
  for (const value of known) select.add(new Option(value, value));
  select.add(new Option("someone else", elsewhere(known)));
  return select;
}

/** A value that no rule names. */
export function elsewhere(known) {
  let value = "other";
  while (known.includes(value)) value += "-";
  return value;
}

function labelled(name, select) {
  const label = document.createElement("label");
  label.append(`${name} `, select);
  return label;
}
