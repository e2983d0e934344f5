// The class buttons, and the filter that finds one among many.

import { $, html, percent, write } from "./dom.js";

const KEYS = 9; // with more classes, names can be typed
const HINT = "Type part of its name, then press Enter.";

let classes = [], buttons = [], best = 0, aim = null, areMoved = false;
let aimed = () => null; // returns what an answer would label now
export const aimBy = (what) => { aimed = what; };

export const named = (id) => classes.find((one) => one.id === id)?.name ?? "";
export const idOfKey = (key) => classes.find((one) => one.key && one.key === key)?.id;
export const areMany = () => classes.length > KEYS;

const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
const idOf = (button) => Number(button.dataset.id);
const matching = () => buttons.filter((button) => !button.hidden);

export function drawClasses(state, isOwn) {
  if (JSON.stringify(state.classes) !== JSON.stringify(classes)) {
    const before = classes;
    make(state.classes);
    const isMoved = ({ id, key }) => key && idOfKey(key) !== undefined && idOfKey(key) !== id;
    if (!isOwn && before.some(isMoved)) areMoved = true;
  }
  for (const button of buttons) {
    const n = state.counts[button.dataset.id] ?? 0, count = button.lastChild;
    if (count.textContent === String(n)) continue;
    count.textContent = n;
    count.setAttribute("aria-label", `${n} labelled`);
  }
}

// Whether another person moved keys between classes, and this person has not noticed yet.
export const haveMoved = () => areMoved;
export function seeMoved() {
  areMoved = false;
}

function make(list) {
  classes = list;
  buttons = list.map(({ id, name, key }) => {
    return html("button", { type: "button", "data-id": id, ...(key && { "aria-keyshortcuts": key }) },
      html("kbd", { "aria-hidden": true }, key), html("bdi", {}, name), html("span", { class: "chance" }), html("span", { role: "img" }));
  });
  $("classes").replaceChildren(...buttons);
  $("filter-box").hidden = !areMany();
  document.body.classList.toggle("filters", areMany());
  drawLetters();
}

// Show the class probabilities, in the order of the buttons; an empty list clears them.
export function drawChances(proba) {
  buttons.forEach((button, i) => {
    const chance = button.querySelector(".chance"), share = proba[i];
    chance.textContent = share === undefined ? "" : percent(share);
    button.style.setProperty("--chance", share === undefined ? "0%" : `${100 * share}%`);
  });
}

// Letters type names if there are many classes, and may be a class's key: their commands then need Shift.
function drawLetters() {
  for (const kbd of document.querySelectorAll("[data-letter]")) {
    const letter = kbd.dataset.letter, isTaken = areMany() || idOfKey(letter) !== undefined;
    kbd.textContent = isTaken ? `Shift+${letter.toUpperCase()}` : letter;
    kbd.closest("button")?.setAttribute("aria-keyshortcuts", kbd.textContent);
  }
}

function filter() {
  const text = plain($("filter").value.trim());
  if (!text) aim = null;
  else if (aim === null) aim = { at: aimed() };
  for (const button of buttons) button.hidden = !plain(named(idOf(button))).includes(text);
  const names = matching().map((button) => plain(named(idOf(button))));
  best = Math.max(0, names.includes(text) ? names.indexOf(text) : names.findIndex((name) => name.startsWith(text)));
  mark(text !== "");
}

function mark(on) {
  const found = matching();
  for (const button of buttons) button.classList.toggle("best", on && button === found[best]);
  if (!on) return write("filter-hint", HINT);
  if (!found.length) return write("filter-hint", "No class name contains this.");
  found[best].scrollIntoView({ block: "nearest" });
  write("filter-hint", `Enter: ${named(idOf(found[best]))} (${best + 1} of ${found.length})`);
}

export function leaveFilter() {
  $("filter").value = "";
  $("filter").blur();
  filter();
}

// An answer is for the image shown when typing began; if another one is shown by now, refuse it.
export function filterKey(event, choose, refuse) {
  const found = matching(), step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.key === "Escape") leaveFilter();
  else if (step && found.length) {
    best = (best + step + found.length) % found.length;
    mark(true);
  } else if (event.key === "Enter" && !event.repeat && found.length && found[best].classList.contains("best")) {
    const id = idOf(found[best]), isSame = aim?.at === aimed();
    leaveFilter();
    if (isSame) choose(id);
    else refuse();
  } else return;
  event.preventDefault();
}

$("filter").addEventListener("input", filter);
new ResizeObserver(([{ target }]) => document.body.style.setProperty("--classes", `${target.offsetHeight}px`)).observe($("classes"));
