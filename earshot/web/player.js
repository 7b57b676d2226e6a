// The player: one sound at a time, its picture, the place in it, a selected part.

import { audioUrl, firstByte } from "./api.js";
import { byId, clock, setIcon } from "./format.js";
import { band, telling } from "./hits.js";
import { toast } from "./panels.js";
import { paint } from "./picture.js";

const LONG_S = 40;
const ZOOMED_S = 20;
const MIN_PART_S = 0.05;

const audio = byId("audio");
const [box, stage, canvas, head] = ["player", "stage", "stage-canvas", "head"].map(byId);
const [bands, regionBox, toggleButton] = ["stage-bands", "region", "toggle"].map(byId);

const state = { hit: null, region: null, loop: false, zoom: false, spectrogram: false, view: null };
let changed = () => {};
let from = 0;

export const current = () => state.hit;
export const region = () => state.region;
export const isPlaying = () => !audio.paused;
export const isSpectrogram = () => state.spectrogram;
export const onChange = (act) => {
  changed = act;
};

const duration = () => state.hit?.clip.duration_s ?? 0;

function whole() {
  return { start: 0, end: duration() };
}

function visible() {
  return state.view ?? whole();
}

const share = (seconds) => {
  const { start, end } = visible();
  return (seconds - start) / (end - start || 1);
};

const secondsAt = (x) => {
  const rect = stage.getBoundingClientRect();
  const { start, end } = visible();
  const seconds = start + ((x - rect.left) / rect.width) * (end - start);
  return Math.min(Math.max(seconds, 0), duration());
};

export function load(hit) {
  if (state.hit?.clip.id === hit.clip.id && state.hit?.clip.version === hit.clip.version) {
    state.hit = hit;
    draw();
    return;
  }
  Object.assign(state, { hit, region: null, view: null });
  audio.src = audioUrl(hit.clip);
  audio.dataset.fallback = "";
  from = 0;
  box.hidden = false;
  document.documentElement.style.setProperty("--player", `${box.offsetHeight}px`);
  byId("now-name").textContent = hit.clip.notes.title || hit.clip.name;
  byId("now-name").title = hit.clip.path;
  byId("zoom").disabled = duration() < LONG_S;
  if (state.zoom && duration() >= LONG_S) setView(hit.start_s);
  draw();
}

// A player that knows no duration yet is told where to go once it does.
function go(seconds) {
  from = seconds;
  if (audio.readyState >= 1) audio.currentTime = seconds;
  tick();
}

// One that failed is asked for again: it may be there now, and else that is told again.
function start() {
  if (audio.error) audio.load();
  audio.play().catch(() => {});
}

export function play(hit, seconds = hit.start_s) {
  load(hit);
  go(seconds);
  start();
}

export function toggle() {
  if (!state.hit) return;
  if (audio.paused) start();
  else audio.pause();
}

export function seek(by) {
  if (state.hit) go(Math.min(Math.max(place() + by, 0), Math.max(0, duration() - 0.01)));
}

export function moment(step) {
  if (!state.hit) return;
  const starts = state.hit.moments.map((m) => m.start_s).sort((a, b) => a - b);
  const now = place();
  const next = step > 0 ? starts.find((s) => s > now + 0.3) : starts.findLast((s) => s < now - 0.7);
  if (next !== undefined) go(next);
}

const place = () => (audio.readyState >= 1 ? audio.currentTime : from);

export function select(start, end) {
  const [low, high] = start < end ? [start, end] : [end, start];
  state.region = high - low >= MIN_PART_S ? { start: low, end: Math.min(high, duration()) } : null;
  tick();
  changed();
}

export function edge(which) {
  if (!state.hit) return;
  const now = place();
  const { start, end } = state.region ?? { start: 0, end: duration() };
  if (which === "start") select(now, end > now ? end : duration());
  else select(start < now ? start : 0, now);
}

export function flip(what) {
  state[what] = !state[what];
  byId(what === "spectrogram" ? "view" : what).setAttribute("aria-pressed", String(state[what]));
  document.body.classList.toggle("colours", state.spectrogram);
  if (what === "zoom") {
    if (state.zoom && duration() >= LONG_S) setView(place());
    else state.view = null;
  }
  draw();
  changed();
}

function setView(seconds) {
  const start = Math.min(Math.max(0, seconds - ZOOMED_S / 4), Math.max(0, duration() - ZOOMED_S));
  state.view = { start: +start.toFixed(2), end: +Math.min(duration(), start + ZOOMED_S).toFixed(2) };
}

export function draw() {
  if (!state.hit) return;
  const { clip } = state.hit;
  paint(canvas, clip, { spectrogram: state.spectrogram, view: state.view }).catch(() => {});
  bands.replaceChildren();
  const { start, end } = visible();
  telling(state.hit).forEach((m, i) => {
    const shifted = { start_s: m.start_s - start, end_s: m.end_s - start };
    if (shifted.end_s > 0 && shifted.start_s < end - start) {
      const cut = { start_s: Math.max(0, shifted.start_s), end_s: shifted.end_s };
      bands.append(band(cut, end - start, i ? "lesser" : ""));
    }
  });
  tick();
}

function tick() {
  if (!state.hit) return;
  const now = place();
  if (state.region && state.loop && !audio.paused && now >= state.region.end) go(state.region.start);
  const { start, end } = visible();
  if (state.view && !audio.paused && (now > end || now < start)) {
    setView(now);
    draw();
    return;
  }
  head.style.left = `${100 * share(now)}%`;
  byId("now-time").textContent = `${clock(now)} / ${clock(duration())}`;
  stage.setAttribute("aria-valuemax", duration().toFixed(1));
  stage.setAttribute("aria-valuenow", now.toFixed(1));
  stage.setAttribute("aria-valuetext", `${clock(now)} of ${clock(duration())}`);
  const part = state.region;
  regionBox.hidden = !part;
  if (part) {
    regionBox.style.left = `${100 * share(part.start)}%`;
    regionBox.style.width = `${100 * (share(part.end) - share(part.start))}%`;
  }
  byId("part").disabled = false;
  byId("part-label").textContent = part
    ? `More like ${clock(part.start)}–${clock(part.end)}`
    : "More like this";
}

function loopFrames() {
  tick();
  if (!audio.paused) requestAnimationFrame(loopFrames);
}

function showState() {
  setIcon(toggleButton, audio.paused ? "play" : "pause");
  toggleButton.setAttribute("aria-label", audio.paused ? "Play" : "Pause");
  changed();
}

audio.addEventListener("loadedmetadata", () => {
  if (from) audio.currentTime = from;
});
audio.addEventListener("play", () => {
  showState();
  loopFrames();
});
audio.addEventListener("pause", showState);
audio.addEventListener("timeupdate", tick);
audio.addEventListener("ended", () => {
  if (!state.loop) return;
  go(state.region?.start ?? 0);
  audio.play().catch(() => {});
});
function giveUp(why) {
  audio.pause(); // Else it counts as playing, and the next press only stops it.
  toast(why);
}

// What the server takes for playable this browser may still not know: WAV it does. Why there is no
// sound at all is told by the server, not to a player.
audio.addEventListener("error", async () => {
  const { clip } = state.hit ?? {};
  if (!clip) return;
  if (audio.dataset.fallback) {
    giveUp(`${clip.name} cannot be played here`);
    return;
  }
  try {
    await firstByte(clip);
  } catch (error) {
    giveUp(error.message);
    return;
  }
  if (state.hit.clip.id !== clip.id) return;
  audio.dataset.fallback = "wav";
  audio.src = audioUrl(clip, "&wav=true");
  audio.play().catch(() => {});
});

let pressed = null;
stage.addEventListener("pointerdown", (event) => {
  if (!state.hit || event.button) return;
  stage.setPointerCapture(event.pointerId);
  pressed = { x: event.clientX, seconds: secondsAt(event.clientX), moved: false };
});
stage.addEventListener("pointermove", (event) => {
  if (!pressed) return;
  pressed.moved ||= Math.abs(event.clientX - pressed.x) > 4;
  if (pressed.moved) select(pressed.seconds, secondsAt(event.clientX));
});
stage.addEventListener("pointerup", (event) => {
  if (pressed && !pressed.moved) {
    if (state.region) select(0, 0);
    go(secondsAt(event.clientX));
  }
  pressed = null;
});
stage.addEventListener("pointercancel", () => {
  pressed = null;
});
stage.addEventListener("keydown", (event) => {
  const target = { Home: 0, End: duration() - 0.1 }[event.key];
  if (target === undefined) return;
  event.preventDefault();
  go(target);
});
toggleButton.addEventListener("click", toggle);
byId("loop").addEventListener("click", () => flip("loop"));
byId("zoom").addEventListener("click", () => flip("zoom"));
byId("view").addEventListener("click", () => flip("spectrogram"));
addEventListener("resize", () => {
  if (!box.hidden) document.documentElement.style.setProperty("--player", `${box.offsetHeight}px`);
});
