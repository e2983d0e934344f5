// The buttons of the classes, and the filter that finds one among many.

import { $, html, write } from "./dom.js";

const KEYS = 9;
const HINT = "Type a part of its name, then Enter.";

let classes = [], buttons = [], best = 0;

export const named = (id) => classes.find((one) => one.id === id)?.name ?? "";
export const numbered = (key) => classes[key - 1]?.id;
export const areMany = () => classes.length > KEYS;

const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
const idOf = (button) => Number(button.dataset.id);
const matching = () => buttons.filter((button) => !button.hidden);

export function drawClasses(state) {
  if (JSON.stringify(state.classes) !== JSON.stringify(classes)) make(state.classes);
  for (const button of buttons) {
    const n = state.counts[button.dataset.id] ?? 0, count = button.lastChild;
    if (count.textContent === String(n)) continue;
    count.textContent = n;
    count.setAttribute("aria-label", `${n} labelled`);
  }
}

function make(list) {
  classes = list;
  buttons = list.map(({ id, name }, i) => {
    const key = i < KEYS ? String(i + 1) : "";
    return html("button", { type: "button", "data-id": id, ...(key && { "aria-keyshortcuts": key }) },
      html("kbd", { "aria-hidden": true }, key), html("bdi", {}, name), html("span", { role: "img" }));
  });
  $("classes").replaceChildren(...buttons);
  $("filter-box").hidden = !areMany();
  document.body.classList.toggle("filters", areMany());
}

function filter() {
  const text = plain($("filter").value.trim());
  for (const button of buttons) button.hidden = !plain(named(idOf(button))).includes(text);
  best = Math.max(0, matching().findIndex((button) => plain(named(idOf(button))).startsWith(text)));
  mark(text !== "");
}

function mark(on) {
  const found = matching();
  for (const button of buttons) button.classList.toggle("best", on && button === found[best]);
  if (!on) return write("filter-hint", HINT);
  if (!found.length) return write("filter-hint", "No class has that in its name.");
  found[best].scrollIntoView({ block: "nearest" });
  write("filter-hint", `Enter: ${named(idOf(found[best]))} (${best + 1} of ${found.length})`);
}

export function leaveFilter() {
  $("filter").value = "";
  $("filter").blur();
  filter();
}

export function filterKey(event, choose) {
  const found = matching(), step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.key === "Escape") leaveFilter();
  else if (step && found.length) {
    best = (best + step + found.length) % found.length;
    mark(true);
  } else if (event.key === "Enter" && !event.repeat && found.length && found[best].classList.contains("best")) {
    const id = idOf(found[best]);
    leaveFilter();
    choose(id);
  } else return;
  event.preventDefault();
}

$("filter").addEventListener("input", filter);
