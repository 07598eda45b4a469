// One dimension: what is asked for, what is allowed, what is granted, and why it is not the same.

import { reasonsFor } from "./world.js";

let made = 0;

export class Slider {
  constructor(axis, onChange) {
    this.axis = axis;
    this.element = document.querySelector("#slider").content.firstElementChild.cloneNode(true);
    this.input = this.find("input");
    this.input.min = axis.low ? -100 : 0;
    this.input.max = 100;
    this.input.value = 0;
    this.nameParts();
    this.input.addEventListener("input", () => {
      this.grant = null;
      this.found = null;
      this.draw();
      onChange();
    });
    this.setRange(new Map());
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  nameParts() {
    const id = `slider-${(made += 1)}`;
    this.input.id = id;
    this.find("label").htmlFor = id;
    this.find("label").textContent = this.axis.label;
    this.find(".ends").id = `${id}-ends`;
    this.input.setAttribute("aria-describedby", `${id}-ends`);
  }

  /** As a request says it. */
  get weights() {
    const { pole, amount } = this.asked();
    return this.found ?? (amount ? { [pole]: this.scale(pole).asked(amount) } : {});
  }

  /** Wish for amounts: weights, or shares of effects where they were measured. */
  wish(amounts) {
    const { low, high } = this.axis;
    this.move((amounts[high] ?? 0) - (amounts[low] ?? 0));
  }

  /** Wish for weights that were found, to the last digit, until somebody moves the slider. */
  take(weights) {
    const names = this.poles().filter((name) => Number(weights[name] ?? 0));
    const amount = (name) => (names.includes(name) ? this.scale(name).amountOf(Number(weights[name])) : 0);
    this.move(amount(this.axis.high) - amount(this.axis.low));
    this.found = Object.fromEntries(names.map((name) => [name, weights[name]]));
  }

  move(amount) {
    const value = Math.round(100 * amount);
    this.found = null;
    this.input.step = value % 5 ? 1 : 5; // what was found is in hundredths
    this.input.value = value;
    this.draw();
  }

  asked() {
    const value = this.input.valueAsNumber / 100;
    return { pole: value < 0 ? this.axis.low : this.axis.high, amount: Math.abs(value) };
  }

  scale(name) {
    return this.axis.scales[name];
  }

  poles() {
    return [this.axis.low, this.axis.high].filter(Boolean);
  }

  setRange(most) {
    const upTo = (name) => this.scale(name).amountOf(most.get(name) ?? 1);
    const text = (name) => `${name}${limitOf(most.get(name) ?? 1, this.scale(name))}`;
    const { low, high } = this.axis;
    this.find(".low").textContent = low ? text(low) : "none";
    this.find(".high").textContent = text(high);
    this.place(".allowed", low ? -upTo(low) : 0, upTo(high));
  }

  setGrant(grant) {
    this.grant = grant;
    this.draw();
  }

  draw() {
    const { pole, amount } = this.asked();
    const value = this.input.valueAsNumber / 100;
    const granted = this.grant ? this.grantedValue() : value;
    const withheld = this.withheld();
    this.place(".zero", 0, 0);
    this.place(".fill", 0, granted);
    this.place(".withheld", granted, withheld.length ? value : granted);
    this.place(".granted", granted, granted);
    this.element.classList.toggle("clamped", withheld.length > 0);
    const told = amount ? `${pole} ${this.scale(pole).told(amount)}` : this.inferred();
    this.find(".value").textContent = (told || "0") + this.arrow(pole, withheld.length);
    this.find(".why").textContent = withheld.map(({ text }) => text).join(". ");
    this.input.ariaValueText = [told || "none", ...spokenOf(withheld)].join(", ");
  }

  /** Behind what is asked for, what is granted instead: of that pole, or of the other one by name. */
  arrow(pole, isClamped) {
    if (!isClamped) return "";
    const granted = this.grantedValue();
    const name = granted < 0 ? this.axis.low : this.axis.high;
    const other = granted && name !== pole ? `${name} ` : "";
    return ` \u2192 ${other}${this.scale(name).told(Math.abs(granted))}`;
  }

  /** What is granted because it was inferred, where nothing is asked for. */
  inferred() {
    const names = this.grant ? this.poles().filter((name) => Number(this.grant.inferred?.[name] ?? 0)) : [];
    return names.map((name) => `inferred: ${name} ${this.scale(name).told(this.scale(name).amountOf(Number(this.grant.granted[name] ?? 0)))}`).join(", ");
  }

  grantedValue() {
    const of = (name) => (name ? this.scale(name).amountOf(Number(this.grant.granted[name] ?? 0)) : 0);
    return of(this.axis.high) - of(this.axis.low);
  }

  /** Every pole whose weight is not as it was asked for. */
  withheld() {
    const other = (name) => (name === this.asked().pole ? "" : `${name}: `);
    return this.grant ? this.poles().flatMap((name) => difference(this.grant, name, this.scale(name), other(name))) : [];
  }

  /** Put a mark of the rail between two values. */
  place(selector, from, to) {
    const { min, max } = this.input;
    const percent = (value) => (100 * (100 * value - min)) / (max - min);
    const [start, end] = [percent(from), percent(to)].sort((a, b) => a - b);
    this.find(selector).style.setProperty("left", `${start}%`);
    this.find(selector).style.setProperty("width", `${end - start}%`);
  }
}

function limitOf(most, scale) {
  if (most >= 1) return "";
  return most > 0 ? ` \u2264 ${scale.told(scale.amountOf(most))}` : ": not allowed";
}

function spokenOf(withheld) {
  return withheld.map(({ spoken }) => spoken);
}

function difference(grant, name, scale, prefix) {
  const [asked, granted] = [grant.requested, grant.granted].map((weights) => Number(weights[name] ?? 0));
  if (asked === granted) return [];
  const numbers = `asked ${scale.toldWeight(asked)}, granted ${scale.toldWeight(granted)}`;
  const reason = reasonsFor(grant, name);
  return [{ text: `${prefix}${numbers}: ${reason}`, spoken: `${prefix}granted ${scale.toldWeight(granted)}: ${reason}` }];
}
