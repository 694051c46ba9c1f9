// Make elements, and format numbers and names.

/** Make an element: attributes, properties that begin with a dot, handlers that begin with "on", then children. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith(".")) element[key.slice(1)] = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const $ = (id) => document.getElementById(id);

/** Format a probability; one just below 1 is not shown as 100 %. */
export function percent(share) {
  if (!Number.isFinite(share)) return "–";
  if (share >= 0.995 && share < 1) return ">99\u00a0%";
  if (share > 0 && share < 0.005) return "<1\u00a0%";
  return `${Math.round(100 * share)}\u00a0%`;
}

/** Format a number in significant digits, without an exponent if it is short. */
export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (!Number.isFinite(value)) return String(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e-4 && size < 1e6 ? String(Number(value.toPrecision(digits))) : value.toExponential(digits - 1);
  return text.replaceAll("-", "−");
}

/** Format a whole number with commas. */
export function whole(value) {
  return Math.round(value).toLocaleString("en");
}

/** Shorten a name to a number of characters. */
export function shortened(name, length = 28) {
  return name.length <= length ? name : `${name.slice(0, length - 1)}…`;
}

/** Shorten names but keep them different: in the middle if their beginnings are equal. */
export function shortNames(names, length) {
  const cut = names.map((name) => shortened(name, length));
  const tail = Math.floor((length - 1) / 2);
  const isAlike = (at) => names[at].length > length && cut.indexOf(cut[at]) !== cut.lastIndexOf(cut[at]);
  return names.map((name, at) => (isAlike(at) ? `${name.slice(0, length - 1 - tail)}…${name.slice(-tail)}` : cut[at]));
}

/** Return a function that acts on the last call of many, at most every `wait` milliseconds. */
export function throttled(act, wait) {
  let timer = null;
  let last = -Infinity;
  return (...given) => {
    clearTimeout(timer);
    const left = last + wait - performance.now();
    timer = setTimeout(() => {
      last = performance.now();
      act(...given);
    }, Math.max(0, left));
  };
}
