// The filters: a form whose fields become conditions such as `duration_s < 10`.

import * as api from "./api.js";
import { byId, el, many, rate, voices } from "./format.js";

const form = byId("filter-form");

const CONDITIONS = {
  shortest: "duration_s >=",
  longest: "duration_s <=",
  folder: "folder =",
  tag: "tag =",
  category: "category =",
  licence: "licence =",
  since: "date >=",
  until: "date <=",
  rate: "sample_rate_hz =",
  channels: "channels =",
};

export const where = () =>
  Object.entries(CONDITIONS)
    .map(([name, condition]) => [condition, form.elements[name].value.trim()])
    .filter(([, value]) => value)
    .map(([condition, value]) => `${condition} ${value}`);

export function show(conditions) {
  for (const [name, condition] of Object.entries(CONDITIONS)) {
    const found = conditions.find((text) => text.startsWith(`${condition} `));
    const field = form.elements[name];
    const value = found ? found.slice(condition.length + 1) : "";
    if (value && field.tagName === "SELECT" && ![...field.options].some((o) => o.value === value)) {
      field.append(el("option", { value }, value));
    }
    field.value = value;
  }
  mark();
}

function mark() {
  let count = 0;
  for (const name of Object.keys(CONDITIONS)) {
    const field = form.elements[name];
    field.classList.toggle("active", Boolean(field.value));
    count += field.value ? 1 : 0;
  }
  const badge = byId("filter-count");
  badge.hidden = !count;
  badge.textContent = count;
  badge.setAttribute("aria-label", many(count, "filter"));
}

function fill(name, values, write = (value) => value) {
  const select = form.elements[name];
  const { value } = select;
  select.replaceChildren(el("option", { value: "" }, "any"));
  for (const { value: item, count } of values) {
    select.append(el("option", { value: item }, `${write(item)}  (${count})`));
  }
  select.closest("label").hidden = !values.length;
  if (value) show(where().concat([`${CONDITIONS[name]} ${value}`]));
}

export async function refresh(base) {
  const facets = await api.facets();
  const inside = (folder) => (folder.startsWith(`${base}/`) ? folder.slice(base.length + 1) : folder);
  const folders = [...facets.folder].sort((a, b) => (a.value < b.value ? -1 : 1));
  fill("folder", folders, inside);
  fill("category", facets.category);
  fill("licence", facets.licence);
  fill("rate", facets.sample_rate_hz, rate);
  fill("channels", facets.channels, voices);
  byId("tags").replaceChildren(...facets.tag.map(({ value }) => el("option", { value })));
  form.elements.tag.closest("label").hidden = !facets.tag.length;
}

export function onChange(act) {
  let waiting = 0;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      mark();
      act();
    }, 250);
  });
  form.addEventListener("reset", () =>
    setTimeout(() => {
      mark();
      act();
    }),
  );
}

export function toggle(open) {
  const hidden = document.body.classList.toggle("no-filters", open === undefined ? undefined : !open);
  byId("filter-button").setAttribute("aria-expanded", String(!hidden));
  return !hidden;
}
