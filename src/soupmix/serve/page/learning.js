// Which of these two? What a person chooses, what is believed of what they want, and everything they may do about that.

import { call } from "./api.js";

const PROMPTS = [
  "Why do we sleep?",
  "What is inflation?",
  "How does a plant grow?",
  "What should I see in Rome?",
  "Why is the sky blue?",
  "How do I cook rice?",
  "What is a black hole?",
  "How do vaccines work?",
  "Why do leaves fall?",
  "What does a bank do?",
];
const REACH = { linear: 1, ideal: 2.5 }; // how far from nothing a want can be told

export class Learning {
  /** `app` is that of the page; `keep` stores the person's profile and gives its id; `onLearned` is told when weights may differ. */
  constructor(element, app, keep, onLearned) {
    Object.assign(this, { element, app, keep, onLearned, asked: 0, isOn: false, isBusy: false });
    this.element.hidden = app.world.measures.length === 0;
    this.find("[name=about]").value = PROMPTS[0];
    this.element.addEventListener("toggle", (event) => event.target === this.element && this.element.open && this.look());
    this.find(".question").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    this.element.addEventListener("keydown", (event) => this.press(event));
    for (const button of this.find(".pair").querySelectorAll("button")) {
      button.addEventListener("click", () => this.choose(button));
    }
    this.find(".freeze").addEventListener("click", () => this.settle("PUT", "learning", { frozen: !this.known.frozen }));
    this.find(".forget").addEventListener("click", () => this.settle("DELETE", "evidence"));
    this.find(".export").addEventListener("click", () => this.save());
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  /** Keys of whoever answers many questions: 1 and 2 for the answers, 0 for neither, = for no difference. */
  press(event) {
    if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
    const button = this.find(`.pair button[data-key="${CSS.escape(event.key)}"]`);
    if (!button || this.find(".pair").hidden) return;
    event.preventDefault();
    this.choose(button);
  }

  async path(...parts) {
    return ["/v1/soups", await this.keep(), ...parts].join("/");
  }

  /** Do one thing at a time; what goes wrong is a sentence. */
  async once(work) {
    if (this.isBusy) return;
    this.isBusy = true;
    this.element.ariaBusy = "true";
    try {
      await work();
    } catch (problem) {
      if (problem.status === 401 || !("status" in problem)) this.app.fail(problem);
      else this.tell(`${problem.message}.`);
    }
    this.isBusy = false;
    this.element.ariaBusy = "false";
  }

  look() {
    return this.once(async () => this.show(await call(await this.path("evidence"))));
  }

  ask() {
    return this.once(async () => {
      const body = { prompt: this.find("[name=about]").value, max_tokens: this.app.tokens() };
      this.tell("Two soups answer.");
      const asked = await call(await this.path("next"), { method: "POST", body });
      this.question = asked.id;
      if (!asked.id) return this.without(asked.why);
      this.find(".pair").hidden = false;
      const places = this.find(".pair").querySelectorAll(".text");
      asked.answers.forEach(({ text }, number) => (places[number].textContent = text));
      this.tell("Which of these two?");
      this.find(".pair button").focus();
    });
  }

  choose(button) {
    return this.once(async () => {
      const value = button.dataset.value === undefined ? {} : { value: Number(button.dataset.value) };
      const body = { question: this.question, kind: button.dataset.kind, ...value };
      const known = await call(await this.path("feedback"), { method: "POST", body });
      this.asked += 1;
      this.find("[name=about]").value = PROMPTS[this.asked % PROMPTS.length];
      this.without("");
      this.show(known);
      this.onLearned();
      this.find(".next").focus();
    });
  }

  without(why) {
    this.question = null;
    this.find(".pair").hidden = true;
    if (why) this.tell(`${why}.`);
  }

  settle(method, part, body) {
    return this.once(async () => {
      this.without("");
      this.show(await call(await this.path(part), { method, body }));
      this.onLearned();
    });
  }

  save() {
    return this.once(async () => {
      const known = await call(await this.path("evidence/export"));
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([JSON.stringify(known, null, 1)], { type: "application/json" }));
      link.download = "wants.json";
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }

  show(known) {
    this.known = { ...this.known, ...known };
    this.isOn = known.evidence > 0;
    this.find(".wants").replaceChildren(...known.wants.map((each) => barOf(each, REACH[known.model])));
    this.find(".freeze").textContent = known.frozen ? "Learn again" : "Freeze";
    this.find(".next").ariaDisabled = String(known.frozen);
    this.find(".withheld").textContent = known.withheld.map(({ public_reason, limit }) => public_reason ?? limit).join("; ");
    this.tell(stateOf(known));
    if (known.data) this.list(known.data);
    else if (known.entry) this.list([known.entry, ...(this.entries ?? [])]);
  }

  list(entries) {
    this.entries = entries;
    this.find(".known ol").replaceChildren(...entries.map((each) => this.itemOf(each)));
    this.find(".known").hidden = entries.length === 0;
  }

  itemOf(entry) {
    const item = document.createElement("li");
    const forget = document.createElement("button");
    forget.type = "button";
    forget.textContent = "Forget";
    forget.ariaLabel = `Forget: ${toldOf(entry)}`;
    forget.addEventListener("click", () => this.settle("DELETE", `evidence/${entry.id}`));
    item.append(toldOf(entry), forget);
    if (entry.kind === "choice") {
      const turn = document.createElement("button");
      turn.type = "button";
      turn.textContent = "It was the other";
      turn.ariaLabel = `It was the other: ${toldOf(entry)}`;
      turn.addEventListener("click", () => this.settle("PUT", `evidence/${entry.id}`, { value: 1 - entry.value }));
      item.append(turn);
    }
    return item;
  }

  tell(text) {
    this.find(".state").textContent = text;
  }
}

/** One want: where it is, and between what it lies in nine of ten cases. */
function barOf({ trait, measure, mean, low, high }, reach) {
  const bar = document.querySelector("#want").content.firstElementChild.cloneNode(true);
  const at = (value) => 50 + (50 * Math.max(-reach, Math.min(reach, value))) / reach;
  bar.querySelector(".name").textContent = trait;
  bar.querySelector(".value").textContent = `${signed(mean)} (${signed(low)} to ${signed(high)})`;
  const isCount = measure.endsWith("s"); // words, sentences
  bar.querySelector(".less").textContent = `${isCount ? "fewer" : "lower"} ${measure}`;
  bar.querySelector(".more").textContent = `${isCount ? "more" : "higher"} ${measure}`;
  bar.querySelector(".interval").style.setProperty("left", `${at(low)}%`);
  bar.querySelector(".interval").style.setProperty("width", `${at(high) - at(low)}%`);
  bar.querySelector(".mean").style.setProperty("left", `${at(mean)}%`);
  return bar;
}

function signed(value) {
  const shown = Math.abs(value).toFixed(2);
  return Number(shown) === 0 ? shown : `${value < 0 ? "\u2212" : "+"}${shown}`;
}

function stateOf(known) {
  if (known.refused) return `${known.refused}.`;
  const mixed = Object.entries(known.inferred).map(([name, weight]) => `${name} ${Number(weight).toFixed(2)}`);
  const weights = mixed.length ? `Inferred: ${mixed.join(", ")}.` : "Nothing is inferred yet.";
  const heard = known.alarms.map(({ text }) => `${text}.`);
  const chosen = Object.keys(known.chosen).filter((name) => Number(known.chosen[name]));
  const bound = chosen.length ? `What you set stays: ${chosen.join(", ")}.` : "";
  const ends = known.frozen ? "Frozen." : known.enough && known.evidence ? "It is known well enough." : "";
  return [`${known.evidence} answered.`, weights, bound, ends, ...heard].filter(Boolean).join(" ");
}

function toldOf({ kind, value, moved }) {
  const [first] = Object.entries(moved).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const said = kind === "choice" ? `chose the ${value ? "second" : "first"}` : kind;
  return first ? `${said}: ${first[0]} ${signed(first[1])}` : said;
}
