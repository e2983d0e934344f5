// Helpers for the page. External text enters as text nodes and attributes, never as HTML.

export const $ = (id) => document.getElementById(id);

const maker = (space) => (tag, attributes = {}, ...children) => {
  const node = document.createElementNS(space, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

export const html = maker("http://www.w3.org/1999/xhtml");
export const svg = maker("http://www.w3.org/2000/svg");

export function write(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text; // screen readers announce only changes
}

export const say = (text) => write("status", text);
export const percent = (share) => `${Math.round(100 * share)}%`;
export const counted = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
export const afterPaint = (deed) => requestAnimationFrame(() => setTimeout(deed));
export const without = (items, gone) => items.filter((item) => !gone.some((other) => other.image === item.image));
