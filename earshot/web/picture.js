// Waveforms and spectrograms on canvases; what was fetched is kept for the next time.

import * as api from "./api.js";

const KEPT = 400;
const kept = new Map();

function remember(key, make) {
  if (!kept.has(key)) {
    if (kept.size >= KEPT) kept.delete(kept.keys().next().value);
    const promise = make();
    promise.catch(() => kept.delete(key));
    kept.set(key, promise);
  }
  return kept.get(key);
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export async function paint(canvas, clip, { spectrogram = false, view = null } = {}) {
  const what = spectrogram ? "spectrogram" : "peaks";
  const key = `${what} ${clip.id} ${clip.version} ${view?.start} ${view?.end}`;
  canvas.dataset.wanted = key;
  const data = await remember(key, () => api[what](clip, view));
  if (canvas.dataset.wanted !== key) return;
  if (spectrogram) paintSpectrogram(canvas, data);
  else paintPeaks(canvas, data);
}

function paintPeaks(canvas, { low, high }) {
  const pen = canvas.getContext("2d");
  const { width, height } = canvas;
  pen.clearRect(0, 0, width, height);
  pen.fillStyle = colour("--wave");
  const loudest = Math.max(4, ...high, ...low.map((value) => -value));
  const scale = (height / 2 - 3) / loudest;
  const step = width / low.length;
  for (let i = 0; i < low.length; i += 1) {
    const top = height / 2 - high[i] * scale;
    const tall = Math.max(1.5, (high[i] - low[i]) * scale);
    pen.fillRect(i * step, top, Math.max(1, step), tall);
  }
}

// Colours of loudness, from the ground to the brightest, in the two schemes.
const DARK = [[18, 20, 22], [44, 36, 66], [128, 50, 84], [226, 112, 62], [252, 222, 150]];
const LIGHT = [[246, 245, 242], [222, 204, 186], [196, 122, 84], [126, 48, 66], [36, 20, 44]];

function shades(stops) {
  const table = new Uint8ClampedArray(256 * 3);
  for (let i = 0; i < 256; i += 1) {
    const at = (i / 255) * (stops.length - 1);
    const first = Math.min(Math.floor(at), stops.length - 2);
    for (let c = 0; c < 3; c += 1) {
      const [from, to] = [stops[first][c], stops[first + 1][c]];
      table[3 * i + c] = from + (to - from) * (at - first);
    }
  }
  return table;
}

const isLight = () => colour("color-scheme") === "light";

function paintSpectrogram(canvas, bitmap) {
  const sheet = new OffscreenCanvas(bitmap.width, bitmap.height);
  const ink = sheet.getContext("2d", { willReadFrequently: true });
  ink.drawImage(bitmap, 0, 0);
  const image = ink.getImageData(0, 0, sheet.width, sheet.height);
  const table = shades(isLight() ? LIGHT : DARK);
  for (let i = 0; i < image.data.length; i += 4) {
    const at = 3 * image.data[i];
    image.data[i] = table[at];
    image.data[i + 1] = table[at + 1];
    image.data[i + 2] = table[at + 2];
  }
  ink.putImageData(image, 0, 0);
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(sheet, 0, 0, canvas.width, canvas.height);
}

// Rows are painted when they come into view, a few at a time: searches must find the connections
// free that a browser has for one server, and rows that are gone by their turn are left out.
const AT_ONCE = 3;
const waiting = [];
let painting = 0;

function paintNext() {
  while (painting < AT_ONCE && waiting.length) {
    const canvas = waiting.shift();
    if (canvas.isConnected) {
      painting += 1;
      canvas.paint().finally(() => {
        painting -= 1;
        paintNext();
      });
    }
  }
}

export const painter = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) {
        painter.unobserve(target);
        waiting.push(target);
      }
    }
    paintNext();
  },
  { rootMargin: "300px" },
);
