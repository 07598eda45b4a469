// The policy in words, at the top of the page.

const DISCLOSED = {
  "disclose ai": "These answers are written by an AI system.",
  "disclose personalisation": "These answers are personalised.",
};

export function showPolicy(policy) {
  const set = (id, text) => (document.getElementById(id).textContent = text);
  set("policy-name", policy.open ? "none" : issuersOf(policy) || shortened(policy.digest));
  set("policy-state", stateOf(policy));
  set("policy-digest", policy.digest);
  set("obligations", policy.obligations.length ? `Obligations: ${policy.obligations.join(", ")}.` : "");
  set("disclosures", disclosuresOf(policy.obligations));
  document.getElementById("policy-state").className = policy.signed ? "badge signed" : "badge";
  document.getElementById("rules").replaceChildren(...rulesOf(policy).map(itemOf));
}

/** Whose rules they are, outermost first. */
function issuersOf({ rules }) {
  return [...new Set(rules.map((each) => each.issuer))].join(", ");
}

function shortened(digest) {
  const [kind, digits] = digest.split(":");
  return `${kind}:${digits.slice(0, 8)}`;
}

function stateOf(policy) {
  if (policy.open) return "open";
  return policy.signed ? "signed" : "not signed";
}

function disclosuresOf(obligations) {
  return obligations.flatMap((each) => DISCLOSED[each] ?? []).join(" ");
}

function rulesOf(policy) {
  if (!policy.rules.length) return [["No rules: only the built-in limits hold.", ""]];
  return policy.rules.map((each) => [each.public_reason ?? each.rule, detailsOf(each)]);
}

function detailsOf({ rule, tier, issuer, scope, refuses }) {
  return [rule, `${tier}, ${issuer}`, scope, refuses && "refuses"].filter(Boolean).join(" \u00b7 ");
}

function itemOf([reason, details]) {
  const item = document.createElement("li");
  const small = document.createElement("small");
  small.textContent = details;
  item.append(reason, small);
  return item;
}
