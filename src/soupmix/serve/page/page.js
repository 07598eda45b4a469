// The page: who is on it, and one prompt for everybody.

import { keepKey } from "./api.js";
import { elsewhere } from "./attributes.js";
import { Base, Person } from "./person.js";
import { showPolicy } from "./policy.js";
import { readWorld } from "./world.js";

const MOST_PEOPLE = 4; // with the base one connection less than the six that a browser has; the last one asks the policy
const STARTERS = [
  [{ elementary: 0.7, friendly: 1 }, { audience: "minor" }],
  [{ expert: 1, informative: 0.3 }, {}],
  [{ concise: 1, unfriendly: 0.9 }, { audience: "public" }],
];

const at = (id) => document.getElementById(id);

const app = { world: null, announce, granted, fail, remove, ask: () => at("ask").requestSubmit(), tokens: () => at("tokens").valueAsNumber };
let columns = [];
let running = null;

async function open() {
  try {
    app.world = await readWorld();
    fail({ message: "" });
    draw();
  } catch (error) {
    fail(error);
  }
}

function draw() {
  at("model").textContent = app.world.model;
  at("unserved").textContent = app.world.unserved.map((each) => each.why).join(". ");
  at("unserved").hidden = !app.world.unserved.length;
  at("shares").hidden = !app.world.axes.some(({ scales }) => Object.values(scales).some((each) => each.isShare));
  showPolicy(app.world.policy);
  columns = [new Base(app), ...startersOf(app.world).map((wish) => new Person(app, wish))];
  at("columns").replaceChildren(...columns.map((each) => each.element));
  for (const id of ["facts", "kitchen"]) at(id).hidden = false;
  at("key-form").hidden = true;
  showProfiles();
  count();
}

/** Named profiles of the tenant, to begin with one of them. */
function showProfiles() {
  const named = app.world.profiles.filter((each) => each.name);
  const options = named.map((each) => new Option(each.name, each.id));
  at("profiles").replaceChildren(new Option("choose one", ""), ...options);
  at("kept").hidden = !named.length;
}

/** Whom the page begins with: as far as there are adapters for it, or one person for each of the first two adapters. */
function startersOf({ adapters, policy }) {
  const names = adapters.map((each) => each.name);
  const known = STARTERS.map(([amounts, said]) => [only(amounts, names), said]);
  const fitting = known.filter(([amounts]) => Object.keys(amounts).length);
  const usual = names.slice(0, 2).map((name) => [{ [name]: 0.9 }, {}]);
  return (fitting.length ? fitting : usual).map(([amounts, said]) => ({ amounts, attributes: stated(policy, said) }));
}

function only(amounts, names) {
  return Object.fromEntries(Object.entries(amounts).filter(([name]) => names.includes(name)));
}

function stated({ attributes }, said) {
  const known = Object.entries(attributes);
  return Object.fromEntries(known.map(([name, values]) => [name, values.includes(said[name]) ? said[name] : elsewhere(values)]));
}

function add(profile) {
  if (columns.length > MOST_PEOPLE) return;
  const person = new Person(app, { amounts: {}, attributes: profile ? profile.attributes : {} });
  if (profile) person.load(profile);
  columns.push(person);
  at("columns").append(person.element);
  person.find(".name").focus();
  count();
}

function addProfile() {
  const chosen = app.world.profiles.find((each) => each.id === at("profiles").value);
  at("profiles").value = "";
  if (chosen) add(chosen);
}

function remove(person) {
  columns = columns.filter((each) => each !== person);
  person.element.remove();
  announce(`${person.name} is removed.`);
  count();
  at("add").focus();
}

function count() {
  const full = columns.length > MOST_PEOPLE;
  at("add").ariaDisabled = String(full);
  at("add").textContent = full ? `${MOST_PEOPLE} people are the most at once` : "Add a person";
}

async function askEverybody() {
  running?.abort();
  const mine = (running = new AbortController());
  at("stop").ariaDisabled = "false";
  fail({ message: "" });
  try {
    await Promise.all(columns.map((each) => each.ask(asked(), mine.signal)));
  } catch (error) {
    fail(error);
  }
  if (running === mine) stop();
  at("forget").ariaDisabled = String(!columns.some((each) => each.answer.turns.length));
}

function forget() {
  stop();
  for (const each of columns) each.answer.forget();
  at("forget").ariaDisabled = "true";
  at("prompt").focus();
}

function asked() {
  return {
    messages: [{ role: "user", content: at("prompt").value }],
    max_tokens: at("tokens").valueAsNumber,
    temperature: at("temperature").valueAsNumber,
    seed: at("seed").valueAsNumber,
  };
}

function stop() {
  running?.abort();
  running = null;
  at("stop").ariaDisabled = "true";
}

/** A grant under another policy than the one on the page: read that. */
async function granted({ policy }) {
  if (policy.digest === app.world.policy.digest) return;
  app.world.policy.digest = policy.digest; // once, however many grants come meanwhile
  try {
    app.world = await readWorld();
    showPolicy(app.world.policy);
  } catch (error) {
    fail(error);
  }
}

function fail(problem) {
  at("problem").textContent = problem.code === "no-key" ? "This server needs an API key." : problem.message;
  if (problem.status !== 401) return;
  at("key-form").hidden = false;
  at("key").focus();
}

/** The sheet of rules lies over the page: Escape and whatever happens elsewhere close it. */
function closePolicy(event) {
  const isOutside = event.type === "click" && !at("policy").contains(event.target);
  if (isOutside || event.key === "Escape") at("policy").open = false;
}

function announce(text) {
  const line = document.createElement("p");
  line.textContent = text;
  at("spoken").append(line);
  while (at("spoken").childElementCount > 8) at("spoken").firstElementChild.remove();
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  askEverybody();
});
at("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  app.ask();
});
at("stop").addEventListener("click", stop);
at("forget").addEventListener("click", forget);
at("add").addEventListener("click", () => add());
at("profiles").addEventListener("change", addProfile);
for (const kind of ["click", "keydown"]) document.addEventListener(kind, closePolicy);
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(at("key").value.trim());
  at("key").value = "";
  open();
});

open();
