// What the server holds: its model, the dimensions of its adapters, its policy, and what that allows to whom.

import { call } from "./api.js";

export async function readWorld() {
  const [adapters, policy, models] = await Promise.all(
    ["/v1/adapters", "/v1/policy", "/v1/models"].map((path) => call(path)),
  );
  return { adapters: adapters.data, axes: axesOf(adapters.data), policy, model: models.data[0].id, ranges: new Map() };
}

/** A slider's worth of adapters: two poles of one dimension, or one pole. */
function axesOf(adapters) {
  const poles = Map.groupBy(adapters, (each) => each.dimension);
  return [...poles].flatMap(([dimension, found]) =>
    found.length === 2
      ? [{ label: dimension, low: found[0].name, high: found[1].name }]
      : found.map((each) => ({ label: nameOf(dimension, each.name), low: null, high: each.name })),
  );
}

function nameOf(dimension, pole) {
  return dimension === pole ? pole : `${dimension}: ${pole}`;
}

/** The most of every adapter, asked for alone, that these attributes allow; with the reason, if it is less than 1. */
export function rangesFor(world, attributes) {
  const kind = JSON.stringify(Object.entries(attributes).sort());
  if (!world.ranges.has(kind)) {
    const asked = Promise.all(world.adapters.map((each) => mostOf(each.name, attributes)));
    world.ranges.set(kind, asked.then((found) => new Map(found)));
    asked.catch(() => world.ranges.delete(kind));
  }
  return world.ranges.get(kind);
}

async function mostOf(name, attributes) {
  try {
    const grant = await call("/v1/clamp", { method: "POST", body: { weights: { [name]: 1 }, attributes } });
    return [name, Number(grant.granted[name] ?? 0)];
  } catch (problem) {
    if (problem.status === 403) return [name, 0];
    throw problem;
  }
}

/** Why an adapter's weight is not as asked for, as its issuers tell it. */
export function reasonsFor(grant, name) {
  const rules = grant.binding.filter((each) => each.adapters.includes(name));
  const said = rules.map((each) => each.public_reason ?? `${each.limit} (${each.rule}, ${each.issuer})`);
  return said.join("; ") || "the policy grants no more";
}
