// All images with their answers. Only the visible tiles exist, so that a hundred thousand images scroll.

import { named } from "./classes.js";
import { $, afterPaint, counted, html, percent, say, write } from "./dom.js";
import { picture, request } from "./outbox.js";

const REST = 80; // ms without scrolling before thumbnails are fetched
const AGAIN = 1000; // ms between polls of the computation
const MOST_ROWS = 200; // per request
const BEYOND = 2; // rows of tiles above and below the screen
const WORDS = { unsure: "unsure", bad: "bad image" };

let images = [], selected = new Set(), before = new Set(), at = 0, anchor = 0;
let columns = 1, width = 150, height = 170;
let open = () => {}; // shows one image
let asked = 0, resting = null, watching = null, classes = "", told = null;
const rows = new Map(), tiles = new Map();

export const isOpen = () => !$("review").hidden;
export const start = (lookAt) => { open = lookAt; };

// The selected images, else the marked one if it is visible.
export function chosen() {
  const marked = isSeen(at) ? images.slice(at, at + 1) : [];
  const wanted = selected.size ? images.filter((image) => selected.has(image)) : marked;
  return wanted.map((image) => ({ image, name: rows.get(image)?.name ?? `image ${image}` }));
}

// Whether answers given here settle disputes.
export const settles = () => isOpen() && $("wanted").elements.people.value === "disputed";

export function toggle() {
  const opens = !isOpen();
  $("review").hidden = !opens;
  $("single").hidden = opens;
  clearTimeout(watching);
  if (opens) {
    rows.clear();
    load(true, true);
  }
}

export function forgetPictures() {
  for (const tile of tiles.values()) tile.remove();
  tiles.clear();
  rows.clear();
  if (isOpen()) draw();
}

export function take(state) {
  const now = JSON.stringify(state.classes);
  if (now === classes) return;
  classes = now;
  options("class", "any", state.classes.map(({ id, name }) => [id, name]));
}

function options(name, any, pairs) {
  const select = $("wanted").elements[name], { value } = select;
  if (select.length === pairs.length + 1 && pairs.every(([key], i) => select[i + 1].value === String(key))) return;
  select.replaceChildren(html("option", { value: "" }, any), ...pairs.map(([key, text]) => html("option", { value: key }, text)));
  select.value = value;
}

function wanted() {
  return new URLSearchParams([...new FormData($("wanted"))].filter(([, value]) => value));
}

// With changed filters, start at the top; else (`stays`) keep the selection and the marked image.
async function load(focus = false, stays = false) {
  const mine = ++asked;
  const answer = await request(`/api/review?${wanted()}`).catch((error) => error);
  if (mine !== asked || !isOpen()) return;
  if (answer instanceof Error) return write("found", `The images could not be loaded: ${answer.message}.`);
  const marked = stays ? images[at] : null, there = new Set(answer.images);
  images = answer.images;
  selected = new Set(stays ? [...selected].filter((image) => there.has(image)) : []);
  before = new Set(selected);
  at = anchor = Math.max(0, images.indexOf(marked));
  options("annotator", "anybody", answer.annotators.map((who) => [who, who]));
  options("round", "any", Array.from({ length: answer.n_rounds }, (_, number) => [number, number]));
  $("disputed-button").hidden = answer.annotators.length < 2;
  if (!stays) $("tiles").scrollTop = 0;
  told = answer;
  tell();
  measure();
  if (focus) reach(at);
  draw(focus);
}

function tell() {
  if (!told) return;
  const { doubts, n_doubtful: n, n_disputed, n_noted } = told;
  const found = counted(images.length, "image");
  const state = { none: "", computing: "Searching for doubtful labels …", ready: `${n} doubtful` }[doubts] ?? `Doubtful labels are not available: ${doubts.replace(/^failed: /, "")}.`;
  write("found", [selected.size ? `${selected.size} of ${found} selected` : found, state, n_disputed ? `${n_disputed} disputed` : "", n_noted ? `${n_noted} with notes` : ""].filter(Boolean).join(" · "));
  clearTimeout(watching);
  if (doubts === "computing") watching = setTimeout(watch, AGAIN);
}

async function watch() {
  const answer = await request(`/api/review?${wanted()}`).catch(() => null);
  if (!isOpen()) return;
  if (answer?.doubts === "computing") watching = setTimeout(watch, AGAIN);
  else if (answer) {
    rows.clear();
    load(false, true);
  }
}

async function doubtful() {
  $("wanted").reset();
  $("wanted").elements.sort.value = "doubt";
  $("wanted").elements.agreement.value = "doubtful";
  const answer = await request("/api/doubts", {}).catch((error) => error);
  if (answer instanceof Error) return say(`${answer.message}.`);
  rows.clear();
  load(true);
}

function disputed() {
  $("wanted").reset(); // its listener loads a moment later, with the form of that moment
  $("wanted").elements.people.value = "disputed";
  rows.clear();
  setTimeout(load, 0, true);
}

// ---- the tiles

function measure() {
  const room = $("tiles").clientWidth - 8, least = room < 500 ? 96 : 150;
  columns = Math.max(1, Math.floor(room / least));
  width = room / columns;
  height = Math.round(width + 26);
  $("tiles-inner").style.height = `${Math.ceil(images.length / columns) * height}px`;
}

function draw(focus = $("tiles").contains(document.activeElement)) {
  measure();
  const { scrollTop, clientHeight } = $("tiles");
  const from = Math.max(0, Math.floor(scrollTop / height) - BEYOND) * columns;
  const to = Math.min(images.length, (Math.ceil((scrollTop + clientHeight) / height) + BEYOND) * columns);
  const shown = new Set(images.slice(from, to));
  for (const [image, tile] of tiles) {
    if (shown.has(image)) continue;
    tile.remove();
    tiles.delete(image);
  }
  const fresh = [];
  for (let i = from; i < to; i++) {
    const image = images[i];
    if (!tiles.has(image)) fresh.push(make(image));
    place(tiles.get(image), image, i);
  }
  $("tiles-inner").append(...fresh);
  if (focus) tiles.get(images[at])?.focus({ preventScroll: true });
  clearTimeout(resting);
  resting = setTimeout(fill, REST);
}

function make(image) {
  const tile = html("div", { role: "option" }, html("span", {}, html("b"), html("i")));
  tiles.set(image, tile);
  return tile;
}

function place(tile, image, i) {
  tile.dataset.index = i;
  tile.style.width = `${width - 6}px`;
  tile.style.height = `${height - 6}px`;
  tile.style.transform = `translate(${(i % columns) * width}px, ${Math.floor(i / columns) * height}px)`;
  tile.tabIndex = i === at ? 0 : -1;
  tile.setAttribute("aria-selected", selected.has(image));
  tile.setAttribute("aria-posinset", i + 1);
  tile.setAttribute("aria-setsize", images.length);
  describe(tile, rows.get(image));
}

function describe(tile, row) {
  if (!row) return;
  const answers = [...new Set(row.said.map(({ label }) => named(label)))].join(" / ");
  const said = answers || (WORDS[row.verdict] ?? (row.label === null ? "–" : named(row.label)));
  const differs = row.guess !== null && row.guess !== row.label;
  const people = row.said.map(({ by, label }) => `${by}: ${named(label)}`).join(", ");
  const model = people || (differs ? `${named(row.guess)}? ${percent(row.probability)}` : row.note || row.name);
  const [first, second] = tile.lastChild.children;
  if (first.textContent !== said) first.textContent = said;
  if (second.textContent !== model) second.textContent = model;
  tile.classList.toggle("doubtful", row.doubtful);
  const told = (people ? `, ${people}` : differs ? `, the model predicts ${named(row.guess)}` : "") + (row.note && `, ${row.note}`);
  tile.setAttribute("aria-label", `${row.name}: ${said === "–" ? "no answer" : said}${told}`);
  tile.title = [row.name, people || row.by.join(", "), row.round === null ? "" : `round ${row.round}`, row.note].filter(Boolean).join(" · ");
}

async function fill() {
  if (!isOpen()) return;
  for (const [image, tile] of tiles) {
    if (tile.firstChild.nodeName !== "IMG") tile.prepend(html("img", { src: picture("thumbs", image), alt: "", draggable: "false" }));
  }
  const missing = [...tiles.keys()].filter((image) => !rows.has(image)).slice(0, MOST_ROWS);
  if (!missing.length) return;
  const answer = await request(`/api/rows?images=${missing.join()}`).catch(() => null);
  if (!answer || !isOpen()) return;
  for (const row of answer.rows) {
    rows.set(row.image, row);
    if (tiles.has(row.image)) describe(tiles.get(row.image), row);
  }
}

// ---- answers

// Show an answer at once; `renew` follows with the server's state.
export function answered(items, action, label) {
  for (const { image } of items) {
    const row = rows.get(image);
    if (row) rows.set(image, { ...row, verdict: action, label, guess: null, doubtful: false, said: [] });
  }
  const one = !selected.size;
  selected.clear();
  before.clear();
  if (one) move(Math.min(at + 1, images.length - 1));
  else draw();
  tell();
}

export function renew(changed) {
  for (const image of changed) rows.delete(image);
  if (changed.length > MOST_ROWS) rows.clear();
  clearTimeout(resting);
  afterPaint(fill);
}

export function selectAll(all) {
  selected = new Set(all ? images : []);
  before = new Set(selected);
  changed();
}

function changed(focus) {
  tell();
  draw(focus);
}

function select(index, range) {
  if (range) {
    const [from, to] = [Math.min(anchor, index), Math.max(anchor, index)];
    selected = new Set([...before, ...images.slice(from, to + 1)]);
  } else {
    if (!selected.delete(images[index])) selected.add(images[index]);
    anchor = index;
    before = new Set(selected);
  }
  reach(index);
  changed(true);
}

function move(index) {
  anchor = index;
  before = new Set(selected);
  reach(index);
  draw(true);
}

function reach(index) {
  at = index;
  const top = Math.floor(index / columns) * height, list = $("tiles");
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + height > list.scrollTop + list.clientHeight) list.scrollTop = top + height + 8 - list.clientHeight;
}

function isSeen(index) {
  const top = Math.floor(index / columns) * height, { scrollTop, clientHeight } = $("tiles");
  return top + height / 2 > scrollTop && top + height / 2 < scrollTop + clientHeight;
}

const indexOf = (target) => Number(target.closest("[role=option]")?.dataset.index ?? -1);

function openAt(index) {
  const row = rows.get(images[index]);
  if (!row) return;
  open({ ...row, settles: settles() });
  at = Math.min(index + 1, images.length - 1); // continue here, wherever this image is sorted afterwards
}

$("tiles").addEventListener("scroll", () => draw(), { passive: true });
new ResizeObserver(() => { if (isOpen()) draw(); }).observe($("tiles"));
$("tiles").addEventListener("click", ({ target, shiftKey }) => {
  const index = indexOf(target);
  if (index >= 0) select(index, shiftKey);
});
$("tiles").addEventListener("dblclick", ({ target }) => openAt(indexOf(target)));
$("tiles").addEventListener("keydown", (event) => {
  const page = columns * Math.max(1, Math.floor($("tiles").clientHeight / height)), all = images.length;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -page, PageDown: page, Home: -all, End: all };
  const step = steps[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey || !all) return;
  if (event.key === "Enter") openAt(at);
  else if (event.key === " ") select(at, event.shiftKey);
  else if (step === undefined) return;
  else {
    const index = Math.min(Math.max(at + step, 0), all - 1);
    if (event.shiftKey) select(index, true);
    else move(index);
  }
  event.preventDefault();
  event.stopPropagation();
});
$("wanted").addEventListener("submit", (event) => event.preventDefault());
$("wanted").addEventListener("change", () => load());
$("wanted").addEventListener("reset", () => setTimeout(load));
let typing = null;
$("wanted").elements.name.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(load, 200);
});
$("doubt-button").addEventListener("click", doubtful);
$("disputed-button").addEventListener("click", disputed);
