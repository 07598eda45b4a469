// What a person asks of answers, such as a reading grade: weights that are expected to reach it.

import { call } from "./api.js";

export class Wanted {
  /** `onFound` is told the weights of the dimensions that were asked about. */
  constructor(element, measures, beside, onFound) {
    this.element = element;
    this.measures = measures;
    this.beside = beside;
    this.onFound = onFound;
    this.element.hidden = measures.length === 0;
    this.find(".fields").replaceChildren(...measures.map((each) => fieldOf(each)));
    this.find(".find").addEventListener("click", () => this.look());
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.target.tagName !== "INPUT") return;
      event.preventDefault();
      event.stopPropagation();
      this.look();
    });
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  get targets() {
    const filled = [...this.element.querySelectorAll("input")].filter((each) => each.value !== "");
    return Object.fromEntries(filled.map((each) => [each.name, each.valueAsNumber]));
  }

  async look() {
    if (this.find(".find").ariaDisabled === "true") return;
    const { targets } = this;
    const asked = this.measures.filter((each) => each.name in targets);
    const dimensions = new Set(asked.map((each) => each.dimension));
    if (!asked.length) return this.tell(["Fill in what you want of an answer."]);
    this.find(".find").ariaDisabled = "true";
    try {
      const found = await call("/v1/soups/ask", { method: "POST", body: { targets, ...this.beside(dimensions) } });
      this.onFound(found.weights, dimensions);
      this.tell([...asked.map((each) => expectedOf(each, found.targets[each.name])), ...found.notes.map((note) => `${note}.`)]);
    } catch (problem) {
      this.tell([`${problem.message}.`]);
    }
    this.find(".find").ariaDisabled = "false";
  }

  tell(lines) {
    const shown = lines.map((text) => {
      const line = document.createElement("p");
      line.textContent = text;
      return line;
    });
    this.find(".found").replaceChildren(...shown);
  }
}

function fieldOf({ name, title, base }) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  Object.assign(input, { type: "number", name, step: "any", placeholder: alike([base])[0] });
  label.title = title;
  label.append(`${name} `, input);
  return label;
}

function expectedOf({ name }, { expected }) {
  const [value, low, high] = alike([expected.value, expected.answers_low, expected.answers_high]);
  return `${name}: ${value} expected on average, ${low} to ${high} in nine of ten answers.`;
}

/** Numbers of one measure with as many decimals as their size calls for: none beyond 100, two where all are below 2. */
function alike(values) {
  const largest = Math.max(...values.map(Math.abs));
  const decimals = largest < 2 ? 2 : largest < 100 ? 1 : 0;
  return values.map((value) => value.toFixed(decimals));
}
