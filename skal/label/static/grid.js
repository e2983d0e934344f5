// Many pictures at once: which are shown, and which of them are selected.

import { $, html, without, write } from "./dom.js";
import { ask, me, pending } from "./outbox.js";

const SIZE = 48; // pictures

let items = [], selected = new Set(), at = 0, anchor = 0;
const cells = new Map();

export const isOpen = () => !$("many").hidden;
export const chosen = () => items.filter((item) => selected.has(item.image));

export function toggle() {
  const open = !isOpen();
  $("many").hidden = !open;
  $("single").hidden = open;
  $("grid-button").setAttribute("aria-pressed", open);
  [items, selected, at, anchor] = [[], new Set(), 0, 0];
  draw(false);
  if (open) load(true);
}

export async function load(focus) {
  const answer = await ask(`/api/grid?as=${encodeURIComponent(me)}&n=${SIZE}`);
  if (!answer || !isOpen()) return;
  items = [...items, ...without(answer.images, [...items, ...pending()])].slice(0, SIZE);
  draw(focus);
  if (!items.length) write("chosen", "There are no images to answer.");
}

export function remove(gone) {
  items = without(items, gone);
  selected.clear();
  at = anchor = 0;
  draw();
}

export function bringBack(back) {
  items = [...back, ...without(items, back)];
  selected = new Set(back.map((item) => item.image)); // one more key gives all of them another class
  draw();
}

export function selectAll(all) {
  selected = new Set(all ? items.map((item) => item.image) : []);
  draw();
}

function draw(focus = $("grid").contains(document.activeElement)) {
  const shown = [...$("grid").children], wanted = items.map(cell);
  const isSame = wanted.length === shown.length && wanted.every((node, i) => node === shown[i]);
  if (!isSame) $("grid").replaceChildren(...wanted);
  for (const [image, node] of cells) if (!wanted.includes(node)) cells.delete(image);
  wanted.forEach((node, i) => {
    node.setAttribute("aria-selected", selected.has(items[i].image));
    node.tabIndex = i === at ? 0 : -1;
  });
  if (focus) wanted[at]?.focus();
  write("chosen", `${selected.size} of ${items.length} selected`);
}

function cell({ image, name }) {
  if (!cells.has(image)) {
    const picture = html("img", { src: `/thumbs/${image}`, alt: "" });
    cells.set(image, html("div", { role: "option", "aria-label": name }, picture));
  }
  return cells.get(image);
}

function select(index, range) {
  at = index;
  if (range) for (let i = Math.min(anchor, index); i <= Math.max(anchor, index); i++) selected.add(items[i].image);
  else {
    anchor = index;
    if (!selected.delete(items[index].image)) selected.add(items[index].image);
  }
  draw(true);
}

$("grid").addEventListener("click", (event) => {
  const node = event.target.closest("[role=option]");
  if (node) select([...$("grid").children].indexOf(node), event.shiftKey);
});

$("grid").addEventListener("keydown", (event) => {
  const shown = [...$("grid").children];
  const row = shown.filter((node) => node.offsetTop === shown[0].offsetTop).length;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row, Home: -SIZE, End: SIZE, " ": 0 };
  const step = steps[event.key];
  if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  event.stopPropagation();
  const index = Math.min(Math.max(at + step, 0), shown.length - 1);
  if (event.shiftKey || step === 0) return select(index, event.shiftKey);
  at = anchor = index;
  draw(true);
});
