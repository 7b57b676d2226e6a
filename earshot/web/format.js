// How numbers and things are written, and how elements are made.

export const clock = (seconds, digits = 1) => {
  const tenths = Math.max(0, Math.round(seconds * 10 ** digits)) / 10 ** digits;
  const hours = Math.floor(tenths / 3600);
  const minutes = Math.floor(tenths / 60) % 60;
  const rest = (tenths % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
};

export const span = (seconds) => {
  if (seconds >= 3600) return `${(seconds / 3600).toFixed(1)} h`;
  return seconds >= 60 ? `${(seconds / 60).toFixed(0)} min` : `${seconds.toFixed(1)} s`;
};

export const many = (count, one, more = `${one}s`) =>
  `${count.toLocaleString("en")} ${count === 1 ? one : more}`;

export const rate = (hertz) => `${+(hertz / 1000).toFixed(2)} kHz`;

export const voices = (channels) => ({ 1: "mono", 2: "stereo" })[channels] ?? `${channels} ch`;

export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(key, value === true ? "" : value);
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

export const setIcon = (button, name) =>
  button.querySelector("use").setAttribute("href", `#i-${name}`);

export const byId = (id) => document.getElementById(id);
