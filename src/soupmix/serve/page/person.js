// A column: the base model, or a person with wishes, what is granted of them, an answer, and a profile.

import { Answer } from "./answer.js";
import { call } from "./api.js";
import { Attributes } from "./attributes.js";
import { Learning } from "./learning.js";
import { Slider } from "./slider.js";
import { Wanted } from "./wanted.js";
import { rangesFor } from "./world.js";

const PAUSE = 120; // milliseconds without a change after which the policy is asked

function cardOf(template) {
  return document.querySelector(template).content.firstElementChild.cloneNode(true);
}

export class Base {
  constructor(app) {
    this.app = app;
    this.element = cardOf("#base-column");
    this.element.ariaLabel = "Base";
    this.element.querySelector(".answer").ariaLabel = "Answer of the base model";
    this.answer = new Answer(this.element, () => "Base", app.announce);
  }

  ask(body, signal) {
    return this.answer.ask({ ...body, model: this.app.world.model }, signal, (grant) => this.show(grant));
  }

  /** A policy may require adapters of everybody. */
  show({ granted }) {
    const mixed = Object.entries(granted).map(([name, weight]) => `${name} ${weight}`);
    if (mixed.length) this.element.querySelector(".controls p").textContent = `Required by the policy: ${mixed.join(", ")}.`;
  }
}

export class Person {
  /** `wish` is {amounts, attributes}; `app` is {world, announce, ask, remove, fail, granted, tokens}. */
  constructor(app, wish) {
    this.app = app;
    this.element = cardOf("#person-column");
    this.answer = new Answer(this.element, () => this.name, app.announce);
    this.attributes = new Attributes(this.find(".attributes"), app.world.policy.attributes, wish.attributes, () => this.change());
    this.sliders = app.world.axes.map((axis) => new Slider(axis, () => this.change()));
    this.find(".sliders").append(...this.sliders.map((each) => each.element));
    for (const slider of this.sliders) slider.wish(wish.amounts);
    this.wanted = new Wanted(this.find(".wanted"), app.world.measures, (asked) => this.beside(asked), (found, asked) => this.take(found, asked));
    this.learning = new Learning(this.find(".learning"), app, () => this.keep(), () => this.look());
    this.listen();
    this.rename();
    this.look();
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  listen() {
    this.find(".name").addEventListener("input", () => this.rename(true));
    this.find(".remove").addEventListener("click", () => this.app.remove(this));
    this.find(".save").addEventListener("click", () => this.save());
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.target.tagName === "INPUT") this.app.ask();
    });
  }

  get name() {
    return this.find(".name").value.trim() || "Somebody";
  }

  get weights() {
    return Object.assign({}, ...this.sliders.map((each) => each.weights));
  }

  get soup() {
    return { weights: this.weights, attributes: this.attributes.chosen };
  }

  /** The wishes about other dimensions than those, and what is said besides. */
  beside(dimensions) {
    const others = this.sliders.filter((each) => !dimensions.has(each.axis.dimension));
    return { weights: Object.assign({}, ...others.map((each) => each.weights)), attributes: this.attributes.chosen };
  }

  /** Wish for weights that were found for those dimensions. */
  take(weights, dimensions) {
    for (const slider of this.sliders) if (dimensions.has(slider.axis.dimension)) slider.take(weights);
    this.change();
  }

  /** Be the person of a stored profile, which saving changes. */
  load(profile) {
    this.saved = profile.id;
    this.stored = profile.name;
    this.find(".name").value = profile.name;
    this.find(".save").textContent = "Save again";
    this.rename(true);
    this.take(profile.weights, new Set(this.sliders.map((each) => each.axis.dimension)));
  }

  /** The name follows the wishes until somebody writes another. */
  rename(byHand = false) {
    this.named ||= byHand;
    if (!this.named) this.find(".name").value = described(this.sliders.map((each) => each.asked()));
    this.find(".title").textContent = this.name;
    this.element.ariaLabel = this.name;
    this.find(".remove").ariaLabel = `Remove ${this.name}`;
    this.find(".save").ariaLabel = `${this.find(".save").textContent}: ${this.name}`;
    this.find(".find").ariaLabel = `Find weights: ${this.name}`;
    this.find(".sliders").ariaLabel = `Wishes of ${this.name}`;
    this.find(".answer").ariaLabel = `Answer for ${this.name}`;
    for (const name of ["next", "freeze", "forget", "export"]) {
      const button = this.find(`.learning .${name}`);
      button.ariaLabel = `${button.textContent}: ${this.name}`;
    }
  }

  change() {
    this.rename();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), PAUSE);
  }

  /** Ask the policy what it grants of the wishes as they are now. */
  async look() {
    this.looking?.abort();
    this.looking = new AbortController();
    const { signal } = this.looking;
    try {
      const most = await rangesFor(this.app.world, this.attributes.chosen);
      for (const slider of this.sliders) slider.setRange(most);
      const granted = this.learning.isOn
        ? call(`/v1/soups/${await this.keep()}/grant`, { signal })
        : call("/v1/clamp", { method: "POST", body: this.soup, signal });
      this.show(await granted);
    } catch (error) {
      if (error.name !== "AbortError") this.refuse(error);
    }
  }

  show(grant) {
    this.find(".refusal").textContent = "";
    this.attributes.setCounted(grant.attributes);
    for (const slider of this.sliders) slider.setGrant(grant);
    this.app.granted(grant);
  }

  refuse(problem) {
    if (problem.status === 401 || !("status" in problem)) this.app.fail(problem);
    else this.find(".refusal").textContent = problem.message;
  }

  async ask(body, signal) {
    const whose = this.learning.isOn ? { model: `soup:${await this.keep()}` } : { model: this.app.world.model, soup: this.soup };
    return this.answer.ask({ ...body, ...whose }, signal, (grant) => this.show(grant));
  }

  /** The id of the profile, which says what the sliders say: what is learned is learned beside that. */
  async keep() {
    const said = JSON.stringify(this.soup);
    if (!this.saved) {
      this.saved = (await call("/v1/soups", { method: "POST", body: this.soup })).id;
      this.find(".save").textContent = "Save again";
      this.rename(this.named);
    } else if (said !== this.said) {
      await call(`/v1/soups/${this.saved}`, { method: "PUT", body: { name: this.stored ?? null, ...this.soup } });
    }
    this.said = said;
    return this.saved;
  }

  async save() {
    const [path, method] = this.saved ? [`/v1/soups/${this.saved}`, "PUT"] : ["/v1/soups", "POST"];
    try {
      const profile = await call(path, { method, body: { name: this.name, ...this.soup } });
      this.saved = profile.id;
      this.stored = profile.name;
      this.said = JSON.stringify(this.soup);
      this.tell("Saved. Call it as ", `model="${profile.model}"`);
      this.find(".save").textContent = "Save again";
      this.rename();
    } catch (problem) {
      this.refuseToSave(problem);
    }
  }

  refuseToSave(problem) {
    if (problem.status === 401 || !("status" in problem)) this.app.fail(problem);
    else this.tell(`Not saved: ${problem.message}.`, "");
  }

  tell(text, code) {
    const shown = document.createElement("code");
    shown.textContent = code;
    this.find(".saved").replaceChildren(text, shown);
  }
}

function described(wishes) {
  const wished = wishes.filter(({ amount }) => amount).sort((a, b) => b.amount - a.amount);
  const text = wished.map(({ pole }) => pole).join(", ");
  return text ? text[0].toUpperCase() + text.slice(1) : "No wishes yet";
}
