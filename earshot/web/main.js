// The question, its answer, and all that leads from one to the next.

import * as api from "./api.js";
import * as filters from "./filters.js";
import { byId, clock, el, icon, many } from "./format.js";
import { row } from "./hits.js";
import { listen } from "./keys.js";
import * as panels from "./panels.js";
import { painter } from "./picture.js";
import * as player from "./player.js";

const TYPING_MS = 160;
const PAGE = 40;
const MOST = 500;

const [list, summary, took, sentinel] = ["hits", "summary", "took", "sentinel"].map(byId);
const [q, not, chips] = ["q", "not", "chips"].map(byId);

// Examples: {id, start_s, end_s, name}; `like` and `unlike` are what the order follows.
const question = { like: [], unlike: [] };
let shown = { hits: [], total: 0, complete: true, asked: null };
let at = -1;
let running = null;
let typing = 0;

const example = ({ id, start_s, end_s }) => ({ id, start_s, ...(end_s ? { end_s } : {}) });

function asked() {
  const without = not.value.split(",").map((text) => text.trim()).filter(Boolean);
  return {
    text: q.value.trim(),
    without,
    like: question.like.map(example),
    unlike: question.unlike.map(example),
    where: filters.where(),
  };
}

const isQuestion = (it) => Boolean(it.text || it.like.length);

// ---- asking ---------------------------------------------------------------------------------

async function ask({ push = false } = {}) {
  clearTimeout(typing);
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  const it = asked();
  remember(it, push);
  showChips();
  list.setAttribute("aria-busy", "true");
  try {
    const part = await fetchPart(it, 0, signal);
    const hadFocus = list.contains(document.activeElement);
    list.replaceChildren();
    list.scrollTop = 0;
    shown = { hits: [], asked: it, ...part, added: undefined };
    at = -1;
    append(part.added);
    headline(part);
    if (hadFocus) (list.firstElementChild ?? q).focus({ preventScroll: true });
  } catch (error) {
    if (error.name === "AbortError") return;
    panels.toast(error.message);
  }
  list.setAttribute("aria-busy", "false");
}

async function fetchPart(it, offset, signal) {
  if (!isQuestion(it)) {
    const page = await api.clips(offset, PAGE, it.where, signal);
    const added = page.clips.map((clip) => ({
      clip, score: null, probability: null, sound: null, words: [], copies: [],
      start_s: 0, end_s: clip.duration_s, moments: [],
    }));
    return { added, total: page.total, complete: offset + added.length >= page.total, found: true };
  }
  const k = Math.min(offset + PAGE, MOST);
  const answer = await api.search({ ...it, k }, signal);
  const complete = answer.hits.length < k || k === MOST;
  return { added: answer.hits.slice(offset), total: null, complete, found: answer.found, took: answer.took_ms };
}

async function more() {
  if (shown.complete || shown.loading || !shown.asked) return;
  shown.loading = true;
  const before = shown;
  try {
    const part = await fetchPart(shown.asked, shown.hits.length, running?.signal);
    if (before !== shown) return;
    append(part.added);
    shown.complete = part.complete;
  } catch (error) {
    if (error.name !== "AbortError") panels.toast(error.message);
  } finally {
    before.loading = false;
  }
  // What came may not reach the end of the window.
  if (isNear()) more();
}

const isNear = () => sentinel.getBoundingClientRect().top < innerHeight + 600;

function append(hits) {
  const best = shown.hits[0]?.score ?? hits[0]?.score ?? 0;
  const base = panels.status()?.common_folder ?? "";
  const has = (examples, id) => examples.some((e) => e.id === id && e.feedback);
  for (const hit of hits) {
    const { id } = hit.clip;
    const [liked, disliked] = [has(question.like, id), has(question.unlike, id)];
    list.append(row(hit, acts, { base, best, liked, disliked, spectrogram: player.isSpectrogram }));
  }
  shown.hits = shown.hits.concat(hits);
  const first = list.firstElementChild;
  if (first && at < 0) first.tabIndex = 0;
  mark();
}

function headline(part) {
  const { hits, asked: it, total } = shown;
  const words = it.text ? ` for “${it.text}”` : "";
  let text = `${many(total ?? hits.length, "sound")}${shown.complete || total !== null ? "" : "+"}${words}`;
  if (isQuestion(it) && hits.length) text = shown.complete ? text : `Best sounds${words}`;
  if (!part.found) text = "Nothing here sounds like that – nearest:";
  if (!hits.length) text = it.where.length ? "No sound passes these filters" : "No sounds here yet";
  summary.textContent = text;
  summary.parentElement.classList.toggle("none", !part.found);
  list.classList.toggle("nearest", !part.found);
  took.textContent = part.took === undefined ? "" : `${Math.max(1, Math.round(part.took))} ms`;
  panels.say(hits.length && isQuestion(it) ? `${text}. First: ${panels.told(hits[0])}` : text);
}

function soon() {
  clearTimeout(typing);
  typing = setTimeout(ask, TYPING_MS);
}

// ---- the address says what was asked --------------------------------------------------------

const write = ({ id, start_s, end_s, name, feedback }) =>
  [id, start_s, end_s ?? "", feedback ? 1 : 0, name].join("~");

function read(text) {
  const [id, start, end, feedback, ...name] = text.split("~");
  return {
    id, start_s: Number(start) || 0, end_s: end ? Number(end) : null,
    feedback: feedback === "1", name: name.join("~"),
  };
}

function remember(it, push) {
  const query = new URLSearchParams();
  if (q.value.trim()) query.set("q", q.value.trim());
  if (not.value.trim()) query.set("not", not.value.trim());
  for (const kind of ["like", "unlike"]) question[kind].forEach((e) => query.append(kind, write(e)));
  for (const condition of it.where) query.append("where", condition);
  const address = query.size ? `?${query}` : location.pathname;
  if (address !== (location.search || location.pathname)) {
    history[push ? "pushState" : "replaceState"](null, "", address);
  }
}

function recall() {
  const query = new URLSearchParams(location.search);
  q.value = query.get("q") ?? "";
  not.value = query.get("not") ?? "";
  for (const kind of ["like", "unlike"]) question[kind] = query.getAll(kind).map(read);
  filters.show(query.getAll("where"));
}

function showChips() {
  const chip = (e, kind) => {
    const part = e.end_s ? ` ${clock(e.start_s)}–${clock(e.end_s)}` : "";
    const sign = kind === "like" ? "like" : "unlike";
    const drop = () => {
      question[kind] = question[kind].filter((other) => other !== e);
      ask({ push: true });
    };
    return el(
      "div",
      { class: kind === "like" ? "chip" : "chip un" },
      el("b", {}, sign),
      el("span", {}, e.name + part),
      el("button", { type: "button", class: "plain", "aria-label": `Remove ${sign} ${e.name}`, onclick: drop }, icon("close")),
    );
  };
  const all = [...question.like.map((e) => chip(e, "like")), ...question.unlike.map((e) => chip(e, "unlike"))];
  chips.replaceChildren(...all);
  chips.hidden = !all.length;
}

// ---- what can be done with a hit ------------------------------------------------------------

const ofHit = (hit, rest = {}) => ({
  id: hit.clip.id, start_s: hit.start_s, end_s: hit.end_s, name: hit.clip.notes.title || hit.clip.name, ...rest,
});

function feedback(hit, kind) {
  const other = kind === "like" ? "unlike" : "like";
  const isIt = (e) => e.id === hit.clip.id && e.feedback;
  const had = question[kind].some(isIt);
  question[kind] = question[kind].filter((e) => !isIt(e));
  question[other] = question[other].filter((e) => !isIt(e));
  if (!had) question[kind].push(ofHit(hit, { feedback: true }));
  panels.say(`${had ? "No longer " : ""}${kind === "like" ? "liked" : "disliked"}: ${hit.clip.name}`);
  ask({ push: true });
}

function searchLike(e) {
  q.value = "";
  Object.assign(question, { like: [e], unlike: [] });
  ask({ push: true });
  scrollTo({ top: 0 });
}

const acts = {
  play(hit, seconds) {
    focusOn(hit);
    player.play(hit, seconds);
  },
  toggle(hit) {
    if (player.current()?.clip.id === hit.clip.id && player.isPlaying()) player.toggle();
    else acts.play(hit, hit.start_s);
  },
  focus(hit) {
    at = shown.hits.indexOf(hit);
    mark();
  },
  like: (hit) => feedback(hit, "like"),
  dislike: (hit) => feedback(hit, "unlike"),
  more(hit) {
    const part = player.current()?.clip.id === hit.clip.id ? player.region() : null;
    const span = part ? { start_s: part.start, end_s: part.end } : {};
    searchLike({ ...ofHit(hit), ...span });
  },
  async copy(hit) {
    try {
      await navigator.clipboard.writeText(hit.clip.path);
      panels.toast(`Copied ${hit.clip.path}`);
    } catch {
      panels.toast(hit.clip.path);
    }
  },
  save(hit) {
    el("a", { href: api.audioUrl(hit.clip, "&download=true"), download: hit.clip.name }).click();
  },
};

// ---- the current row ------------------------------------------------------------------------

// Only the rows that change are touched: there may be thousands.
let [marked, sounding] = [null, null];

function mark() {
  const element = list.children[at] ?? null;
  if (element !== marked) {
    marked?.classList.remove("current");
    if (element) {
      list.querySelector("li[tabindex='0']")?.setAttribute("tabindex", "-1");
      element.tabIndex = 0;
      element.classList.add("current");
    }
    marked = element;
  }
  const playing = player.isPlaying() ? player.current()?.clip.id : null;
  const on = playing ? list.querySelector(`li[data-id="${CSS.escape(playing)}"]`) : null;
  if (on === sounding) return;
  for (const [row, name] of [[sounding, "play"], [on, "pause"]]) {
    row?.classList.toggle("playing", row === on);
    row?.querySelector(".round use").setAttribute("href", `#i-${name}`);
  }
  sounding = on;
}

function focusOn(hit) {
  at = shown.hits.indexOf(hit);
  mark();
}

function move(step) {
  const next = Math.min(Math.max(at + step, 0), shown.hits.length - 1);
  const element = list.children[next];
  if (!element) return;
  at = next;
  mark();
  element.focus({ preventScroll: true });
  element.scrollIntoView({ block: "nearest" });
  if (player.isPlaying()) player.play(shown.hits[at]);
  if (at > shown.hits.length - 8) more();
}

const withHit = (act) => () => {
  const hit = shown.hits[at] ?? player.current();
  if (hit) act(hit);
};

const focusQuery = () => {
  q.focus();
  q.select();
};

function escape() {
  if (player.region()) player.select(0, 0);
  else if (document.activeElement === q) q.blur();
  else focusQuery();
}

listen({
  "/": focusQuery,
  "?": () => panels.open("help"),
  ArrowDown: () => move(1),
  ArrowUp: () => (at <= 0 ? focusQuery() : move(-1)),
  Enter: withHit((hit) => acts.play(hit, hit.start_s)),
  " ": withHit((hit) => (player.current()?.clip.id === hit.clip.id ? player.toggle() : acts.play(hit))),
  ArrowLeft: (event) => player.seek(event.shiftKey ? -10 : -1),
  ArrowRight: (event) => player.seek(event.shiftKey ? 10 : 1),
  ",": () => player.moment(-1),
  ".": () => player.moment(1),
  "[": () => player.edge("start"),
  "]": () => player.edge("end"),
  m: withHit(acts.more),
  l: withHit(acts.like),
  d: withHit(acts.dislike),
  c: withHit(acts.copy),
  w: withHit(acts.save),
  s: () => player.flip("spectrogram"),
  z: () => player.flip("zoom"),
  o: () => player.flip("loop"),
  f: () => filters.toggle(),
  t: panels.theme,
  i: () => panels.open("status"),
  Escape: escape,
});

// ---- sounds from outside --------------------------------------------------------------------

async function bring(file) {
  if (!file) return;
  panels.say(`Listening to ${file.name}`);
  list.setAttribute("aria-busy", "true");
  try {
    const upload = await api.bring(file);
    searchLike({ id: upload.id, start_s: 0, end_s: null, name: upload.name });
  } catch (error) {
    list.setAttribute("aria-busy", "false");
    panels.toast(error.message);
  }
}

const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  byId("drop").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) byId("drop").hidden = true;
});
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  byId("drop").hidden = true;
  bring(event.dataTransfer.files[0]);
});
byId("bring").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", (event) => {
  bring(event.target.files[0]);
  event.target.value = "";
});

// ---- beginning ------------------------------------------------------------------------------

function repaint() {
  for (const canvas of list.querySelectorAll("canvas")) painter.observe(canvas);
  player.draw();
}

let wasSpectrogram = false;
player.onChange(() => {
  mark();
  if (wasSpectrogram !== player.isSpectrogram()) {
    wasSpectrogram = player.isSpectrogram();
    repaint();
  }
});
byId("part").addEventListener("click", () => player.current() && acts.more(player.current()));
byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask({ push: true });
});
q.addEventListener("input", soon);
not.addEventListener("input", soon);
filters.onChange(() => ask({ push: true }));
byId("filter-button").addEventListener("click", () => filters.toggle());
byId("theme").addEventListener("click", panels.theme);
byId("home").addEventListener("click", (event) => {
  event.preventDefault();
  Object.assign(question, { like: [], unlike: [] });
  [q.value, not.value] = ["", ""];
  filters.show([]);
  ask({ push: true });
  focusQuery();
});
addEventListener("popstate", () => {
  recall();
  ask();
});
new MutationObserver(repaint).observe(document.documentElement, { attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: light)").addEventListener("change", repaint);
new IntersectionObserver((entries) => entries.some((e) => e.isIntersecting) && more(), {
  rootMargin: "600px",
}).observe(sentinel);

async function renew() {
  const status = await panels.refresh();
  await filters.refresh(status.common_folder);
}

panels.begin();
if (matchMedia("(max-width: 760px)").matches) filters.toggle(false);
recall();
const known = panels.refresh().then((status) => filters.refresh(status.common_folder));
await Promise.allSettled([panels.status() ? null : known.catch(() => {}), ask()]);
panels.watch(async (job) => {
  await renew();
  panels.toast(job.error || "The index is up to date");
  ask();
});
