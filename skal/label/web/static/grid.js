// Many images at once: those shown, and those selected.

import { $, html, without, write } from "./dom.js";
import { ask, pending, picture } from "./outbox.js";

const SIZE = 48; // images
const LONG = 500; // ms of a long touch, which selects a range

let items = [], selected = new Set(), before = new Set(), at = 0, anchor = 0;
let among = []; // the images to choose from; empty for all
let tell = () => {}; // takes the server's state
const cells = new Map();

export const isOpen = () => !$("many").hidden;
export const isShort = () => isOpen() && items.length < SIZE; // more may be available soon
export const chosen = () => items.filter((item) => selected.has(item.image));
export const start = (accept) => { tell = accept; };

// Restrict the grid to some images; an empty list allows all.
export const limit = (images) => { among = images; };

export function toggle() {
  const open = !isOpen();
  $("many").hidden = !open;
  $("single").hidden = open;
  [items, selected, before, at, anchor] = [[], new Set(), new Set(), 0, 0];
  draw(false);
  if (open) load(true);
}

export async function load(focus = !items.length) {
  const answer = await ask("/api/grid", { n: SIZE, ...(among.length && { among }) });
  if (!answer || !isOpen()) return;
  tell(answer.state);
  if (!isOpen()) return;
  items = [...items, ...without(answer.images, [...items, ...pending()])].slice(0, SIZE);
  draw(focus);
  if (!items.length) write("chosen", "There are no images to label.");
}

export function forgetPictures() {
  cells.clear();
  if (isOpen()) draw();
}

export function remove(gone) {
  items = without(items, gone);
  selected.clear();
  before.clear();
  at = anchor = 0;
  draw();
}

export function bringBack(back) {
  items = [...back, ...without(items, back)];
  selected = new Set(back.map((item) => item.image)); // the next key relabels all of them
  before = new Set(selected);
  draw();
}

export function selectAll(all) {
  selected = new Set(all ? items.map((item) => item.image) : []);
  before = new Set(selected);
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
    const thumb = html("img", { src: picture("thumbs", image), alt: "", draggable: "false" });
    cells.set(image, html("div", { role: "option", "aria-label": name }, thumb));
  }
  return cells.get(image);
}

// A range goes from the anchor to here and adds to the earlier selection, so it can shrink again.
function select(index, range) {
  at = index;
  if (range) {
    const [from, to] = [Math.min(anchor, index), Math.max(anchor, index)];
    selected = new Set([...before, ...items.slice(from, to + 1).map((item) => item.image)]);
  } else {
    if (!selected.delete(items[index].image)) selected.add(items[index].image);
    settle(index);
  }
  draw(true);
}

function settle(index) {
  at = anchor = index;
  before = new Set(selected);
}

let finger = null, wasLong = false;
const indexOf = (target) => [...$("grid").children].indexOf(target.closest("[role=option]"));

$("grid").addEventListener("pointerdown", ({ target, pointerType }) => {
  clearTimeout(finger);
  wasLong = false;
  const index = indexOf(target);
  if (pointerType !== "touch" || index < 0) return;
  finger = setTimeout(() => {
    wasLong = true;
    select(index, true);
  }, LONG);
});
for (const end of ["pointerup", "pointercancel", "pointerleave"]) $("grid").addEventListener(end, () => clearTimeout(finger));
$("grid").addEventListener("contextmenu", (event) => { if (wasLong) event.preventDefault(); });
$("grid").addEventListener("click", ({ target, shiftKey }) => {
  const index = indexOf(target);
  if (index >= 0 && !wasLong) select(index, shiftKey);
  wasLong = false;
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
  settle(index);
  draw(true);
});
