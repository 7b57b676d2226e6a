// One row for each hit: play it, see where and why, and go on from it.

import { clock, el, icon, rate, voices } from "./format.js";
import { paint, painter } from "./picture.js";

const percent = (value, duration) => `${Math.min(100, Math.max(0, (100 * value) / duration))}%`;

export function band(moment, duration, extra = "") {
  const element = el("div", { class: `band ${extra}` });
  element.style.left = percent(moment.start_s, duration);
  element.style.width = percent(moment.end_s - moment.start_s, duration);
  return element;
}

// A moment that is the whole clip says nothing: no band then.
export const telling = (hit) =>
  hit.moments.filter((m) => m.end_s - m.start_s < 0.92 * hit.clip.duration_s);

function why(hit) {
  const line = el("div", { class: "why" });
  const matched = hit.words;
  if (matched.length) line.append("matched: ");
  matched.forEach(({ asked, found, field }, i) => {
    const again = matched[i - 1]?.field === field;
    line.append(i ? (again ? " " : ", ") : "", again ? "" : `${field} `, el("mark", {}, found));
    if (found.toLowerCase() !== asked.toLowerCase()) line.append(` (${asked})`);
  });
  if (hit.sound !== null && hit.sound !== undefined) {
    line.append(matched.length ? " · " : "", `sound ${hit.sound.toFixed(2)}`);
  }
  if (hit.copies.length) line.append(` · ${hit.copies.length} more alike`);
  if (hit.copies.length) line.title = hit.copies.map((copy) => copy.path).join("\n");
  return line;
}

function facts(clip, base) {
  const folder = clip.folder.startsWith(`${base}/`) ? clip.folder.slice(base.length + 1) : clip.folder;
  const told = [clip.notes.licence, clip.notes.category].filter(Boolean);
  const form = `${rate(clip.sample_rate_hz)} ${voices(clip.channels)}`;
  return [folder === base ? "" : folder, form, ...told].filter(Boolean).join(" · ");
}

function fit(hit, best) {
  const box = el("div", { class: "fit" });
  if (hit.score === null) return box;
  const known = hit.probability !== null && hit.probability !== undefined;
  const value = known ? hit.probability : Math.max(0, hit.score) / Math.max(best, 1e-9);
  const shown = known ? `${Math.round(100 * value)} %` : hit.score.toFixed(2);
  const label = known ? `Probability of a match ${shown}` : `Score ${shown}`;
  const meter = el("meter", { min: 0, max: 1, value: value.toFixed(3), "aria-label": label });
  box.append(shown, meter);
  box.title = label;
  return box;
}

function action(name, label, key, act, pressed) {
  const properties = { type: "button", class: "plain", "aria-label": label, title: `${label} (${key})` };
  if (pressed !== undefined) properties["aria-pressed"] = String(pressed);
  return el("button", { ...properties, onclick: act }, icon(name));
}

// `acts`: play, like, dislike, more, copy, save, focus – each is told the hit.
export function row(hit, acts, { base, best, liked, disliked, spectrogram }) {
  const { clip } = hit;
  const title = clip.notes.title || clip.name;
  const canvas = el("canvas", { width: 800, height: 104, "aria-hidden": "true" });
  const picture = el("div", { class: "picture" }, canvas);
  telling(hit).forEach((moment, i) => picture.append(band(moment, clip.duration_s, i ? "lesser" : "")));
  picture.append(el("span", { class: "stamp" }, clock(clip.duration_s, clip.duration_s < 60 ? 1 : 0)));
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    acts.play(hit, ((event.clientX - box.left) / box.width) * clip.duration_s);
  });
  const from = telling(hit).length ? ` from ${clock(hit.start_s)}` : "";
  const element = el(
    "li",
    { class: "hit", tabindex: "-1", "data-id": clip.id, onfocusin: () => acts.focus(hit) },
    el("button", { type: "button", class: "round", "aria-label": `Play ${title}${from}`, onclick: () => acts.toggle(hit) }, icon("play")),
    el(
      "div",
      { class: "about" },
      el("div", { class: "name", title: clip.path }, title),
      el("div", { class: "where", title: clip.folder }, el("bdi", {}, facts(clip, base))),
      hit.score === null ? null : why(hit),
    ),
    picture,
    fit(hit, best),
    el(
      "div",
      { class: "actions", role: "group", "aria-label": `For ${title}` },
      action("up", "Like", "l", () => acts.like(hit), liked),
      action("down", "Dislike", "d", () => acts.dislike(hit), disliked),
      action("more", "More like this", "m", () => acts.more(hit)),
      action("copy", "Copy the path", "c", () => acts.copy(hit)),
      action("save", "Download", "w", () => acts.save(hit)),
    ),
  );
  element.hit = hit;
  canvas.paint = () => paint(canvas, clip, { spectrogram: spectrogram() }).catch(() => {});
  painter.observe(canvas);
  return element;
}
