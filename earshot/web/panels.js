// What opens above the page: the keys, the index and its broken files; and light or dark.

import * as api from "./api.js";
import { byId, clock, el, many, span } from "./format.js";

const AGAIN_MS = 3000;

let latest = null;
let shownBroken = 0;

export const status = () => latest;

export function toast(text) {
  const box = byId("toast");
  box.textContent = text;
  box.hidden = false;
  clearTimeout(box.timer);
  box.timer = setTimeout(() => {
    box.hidden = true;
  }, 4000);
}

export const say = (text) => {
  byId("live").textContent = text;
};

export function open(name) {
  const dialog = byId(name);
  if (dialog.open) dialog.close();
  else dialog.showModal();
  if (name === "status" && dialog.open) showBroken(true).catch((error) => toast(error.message));
}

export async function refresh() {
  latest = await api.status();
  const { files, broken, duration_s: length, job } = latest;
  const parts = [many(files, "sound"), span(length)];
  if (broken) parts.push(`${broken.toLocaleString("en")} broken`);
  byId("status-line").textContent = parts.join(" · ");
  document.title = latest.index ? `${latest.index} – earshot` : "earshot";
  const facts = {
    Library: latest.index,
    Folder: latest.common_folder,
    Sounds: `${files.toLocaleString("en")}, ${span(length)}`,
    Broken: broken.toLocaleString("en"),
    Model: latest.model,
    Hears: `${latest.segment_s} s at a time, every ${latest.hop_s} s`,
  };
  byId("facts").replaceChildren(
    ...Object.entries(facts).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
  );
  byId("add-form").hidden = !latest.roots.length;
  byId("add-roots").textContent = `Below ${latest.roots.join(", ")}`;
  showJob(job);
  return latest;
}

function showJob(job) {
  byId("status-dot").classList.toggle("busy", job.running);
  const box = byId("job");
  box.hidden = !job.number;
  if (!job.number) return;
  const total = job.files_total;
  byId("job-bar").max = Math.max(1, total);
  byId("job-bar").value = job.running ? job.files_done : Math.max(1, total);
  let line = `${job.files_done} of ${total} files, ${span(job.audio_s)} of sound`;
  if (job.error) line = job.error;
  else if (job.summary) {
    const { added, changed, removed, broken } = job.summary;
    line = `${added} new, ${changed} changed, ${removed} removed, ${broken.length} broken`;
  }
  byId("job-line").textContent = line;
  if (job.running) byId("status-line").textContent = `indexing ${job.files_done} / ${total}`;
}

async function showBroken(anew) {
  const list = byId("broken");
  if (anew) {
    list.replaceChildren();
    shownBroken = 0;
  }
  const { total, files } = await api.broken(shownBroken);
  shownBroken += files.length;
  list.append(...files.map(({ path, reason }) => el("li", {}, `${path} – `, el("span", {}, reason))));
  for (const id of ["broken", "broken-title"]) byId(id).hidden = !total;
  byId("broken-title").textContent = many(total, "broken file");
  byId("broken-more").hidden = shownBroken >= total;
}

export function theme() {
  const root = document.documentElement;
  const light = getComputedStyle(root).getPropertyValue("color-scheme").trim() === "light";
  choose(light ? "dark" : "light");
  localStorage.setItem("theme", root.dataset.theme);
}

const choose = (name) => {
  document.documentElement.dataset.theme = name;
};

// Follows the indexing, and tells when a run is over.
export function watch(finished) {
  let running = false;
  const lost = (is) => byId("status-dot").classList.toggle("lost", is);
  const listen = () => {
    const source = new EventSource("/api/events");
    source.addEventListener("indexing", (event) => {
      const job = JSON.parse(event.data);
      showJob(job);
      if (running && !job.running) finished(job);
      running = job.running;
    });
    source.addEventListener("open", () => lost(false));
    source.addEventListener("error", () => {
      lost(true);
      // A browser tries again after a cut, but not once it was refused: by a proxy, or a new token.
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN_MS);
    });
  };
  listen();
}

export function begin() {
  const kept = localStorage.getItem("theme");
  if (kept) choose(kept);
  for (const [button, name] of [["help-button", "help"], ["status-button", "status"]]) {
    byId(button).addEventListener("click", () => open(name));
  }
  byId("broken-more").addEventListener("click", () => showBroken(false));
  byId("add-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      showJob(await api.add([byId("add-path").value.trim()]));
      byId("add-path").value = "";
    } catch (error) {
      toast(error.message);
    }
  });
}

export const told = (hit) => `${hit.clip.name}, ${clock(hit.clip.duration_s)}`;
