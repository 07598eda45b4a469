// What the server holds: its model, the dimensions of its adapters, its policy, and what that allows to whom.

import { call } from "./api.js";
import { Scale } from "./scale.js";

export async function readWorld() {
  const [adapters, policy, models, measures, profiles] = await Promise.all(
    ["/v1/adapters", "/v1/policy", "/v1/models", "/v1/measures", "/v1/soups"].map((path) => call(path)),
  );
  const { true: served = [], false: unserved = [] } = Object.groupBy(adapters.data, (each) => each.servable);
  const model = models.data[0].id;
  const axes = axesOf(served).map((axis) => ({ ...axis, scales: scalesOf(axis, measures.effects) }));
  return { adapters: served, unserved, axes, policy, model, measures: measures.data, profiles: profiles.data, ranges: new Map() };
}

/** Of every pole of an axis, how amounts on a slider become weights. */
function scalesOf({ low, high }, effects) {
  return Object.fromEntries([low, high].filter(Boolean).map((name) => [name, new Scale(effects[name]?.weights)]));
}

/** A slider's worth of adapters: two poles of one dimension, or one pole. */
function axesOf(adapters) {
  const poles = Map.groupBy(adapters, (each) => each.dimension);
  return [...poles].flatMap(([dimension, found]) =>
    found.length === 2
      ? [{ dimension, label: dimension, low: found[0].name, high: found[1].name }]
      : found.map((each) => ({ dimension, label: nameOf(dimension, each.name), low: null, high: each.name })),
  );
}

function nameOf(dimension, pole) {
  return dimension === pole ? pole : `${dimension}: ${pole}`;
}

/** The most of every adapter, asked for alone, that these attributes allow. */
export function rangesFor(world, attributes) {
  const kind = JSON.stringify(attributes);
  if (!world.ranges.has(kind)) {
    const asked = call("/v1/ranges", { method: "POST", body: { attributes } });
    world.ranges.set(kind, asked.then(({ most }) => mostOf(most)));
    asked.catch(() => world.ranges.delete(kind));
  }
  return world.ranges.get(kind);
}

function mostOf(most) {
  return new Map(Object.entries(most).map(([name, weight]) => [name, Number(weight)]));
}

/** Why an adapter's weight is not as asked for, as its issuers tell it. */
export function reasonsFor(grant, name) {
  const rules = grant.binding.filter((each) => each.adapters.includes(name));
  const said = rules.map((each) => each.public_reason ?? `${each.limit} (${each.rule}, ${each.issuer})`);
  return said.join("; ") || "the policy grants no more";
}
