// The server, as functions. Whoever is refused for want of a token is asked for it once.

import { byId } from "./format.js";

export class Refusal extends Error {}

let asking = null;
let logins = 0;

function askForToken() {
  asking ??= new Promise((resolve) => {
    const [dialog, form, error] = [byId("login"), byId("login-form"), byId("login-error")];
    const answered = new AbortController();
    const { signal } = answered;
    error.textContent = byId("token").value = "";
    dialog.addEventListener("cancel", (event) => event.preventDefault(), { signal });
    const ask = async (event) => {
      event.preventDefault();
      const body = JSON.stringify({ token: byId("token").value });
      const headers = { "content-type": "application/json" };
      const reply = await fetch("/api/login", { method: "POST", headers, body });
      if (!reply.ok) {
        const told = await reply.json().catch(() => ({}));
        error.textContent = reply.status === 429 ? told.detail : "That is not the token.";
        return;
      }
      asking = null;
      logins += 1;
      answered.abort();
      dialog.close();
      resolve();
    };
    form.addEventListener("submit", ask, { signal });
    dialog.showModal();
  });
  return asking;
}

async function call(path, options = {}) {
  const before = logins;
  const reply = await fetch(path, options);
  if (reply.status === 401) {
    // What was sent before somebody gave the token, and is refused after, is only sent again.
    if (logins === before) await askForToken();
    return call(path, options);
  }
  if (!reply.ok) {
    const told = await reply.json().catch(() => ({}));
    const detail = Array.isArray(told.detail) ? told.detail[0]?.msg : told.detail;
    throw new Refusal(detail || `The server answered ${reply.status}.`);
  }
  return reply;
}

const json = async (path, options) => (await call(path, options)).json();

const post = (path, value, signal) =>
  json(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(value),
    signal,
  });

const part = (clip, view) => {
  const query = new URLSearchParams({ v: clip.version });
  if (view) {
    query.set("start_s", view.start);
    query.set("end_s", view.end);
  }
  return query;
};

export const search = (question, signal) => post("/api/search", question, signal);
export const status = () => json("/api/status");
export const facets = () => json("/api/facets");
export const clip = (id) => json(`/api/clips/${id}`);
export const add = (paths) => post("/api/add", { paths });
export const broken = (offset) => json(`/api/broken?offset=${offset}&limit=100`);
export const peaks = (clip, view) => json(`/api/clips/${clip.id}/peaks?${part(clip, view)}`);
export const spectrogram = async (clip, view) =>
  createImageBitmap(await (await call(`/api/clips/${clip.id}/spectrogram?${part(clip, view)}`)).blob());

export const clips = (offset, limit, where, signal) => {
  const query = new URLSearchParams({ offset, limit });
  for (const filter of where) query.append("where", filter);
  return json(`/api/clips?${query}`, { signal });
};

export const bring = (file) => {
  const form = new FormData();
  form.append("sound", file, file.name);
  return json("/api/sounds", { method: "POST", body: form });
};

export const audioUrl = (clip, how = "") => `/api/clips/${clip.id}/audio?v=${clip.version}${how}`;

// Whether there is a sound, or the reason why not.
export const firstByte = (clip) => call(audioUrl(clip), { headers: { range: "bytes=0-0" } });
