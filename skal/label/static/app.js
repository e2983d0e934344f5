// The page of `skal label`: a picture, a key that says what it is, the next picture at once.

import { areMany, drawClasses, filterKey, leaveFilter, named, numbered } from "./classes.js";
import { $, afterPaint, html, percent, say, without, write } from "./dom.js";
import { drawFigures } from "./figures.js";
import * as grid from "./grid.js";
import { ask, me, pending, post, request, start } from "./outbox.js";

const AHEAD = 8; // pictures
const POLL = 3000, POLL_EMPTY = 300; // ms
const UNSELECTED = "Select images first: click them, or arrow keys and Space.";
const WORDS = { skip: "skipped", unsure: "unsure", bad: "bad image" };

let state = null; // the server's last answer
let queue = []; // the images to come; the first is on screen
let past = []; // what was answered since the page was opened, so that undo need not wait for the server
let shown = null, guess = null, undoing = null;
let looked = 0, since = performance.now(); // ms
const pictures = new Map();

// ---- what the server says

function accept(fresh) {
  state = fresh;
  const first = queue.slice(0, 1); // what a person looks at is never exchanged
  queue = [...first, ...without(fresh.queue, [...first, ...pending()])];
  drawClasses(state);
  drawFigures(state);
  $("suggest").hidden = grid.isOpen() || !state.suggest;
  document.body.classList.toggle("suggests", state.suggest);
  if (!grid.isOpen() && (!queue.length || queue[0].image !== shown?.image)) show();
  else afterPaint(prefetch);
}

function settled(entry, { undone, state: fresh }) {
  accept(fresh);
  if (grid.isOpen()) grid.load();
  if (!undone) return say(`Saved: ${entry.text}`);
  say(`Undone: ${undone.action === "label" ? named(undone.label) : WORDS[undone.action]}`);
  if (entry.items[0]?.image !== undone.image) bringBack(fresh.queue.filter((item) => item.image === undone.image));
}

function refused(entry) {
  if (!entry.text) say("Nothing to undo.");
  past = past.filter((items) => items !== entry.items);
  refresh();
}

async function refresh() {
  const fresh = await ask(`/api/state?as=${encodeURIComponent(me)}`);
  if (fresh) accept(fresh);
}

// ---- answers

function act(action, label = null) {
  const many = grid.isOpen(), items = many ? grid.chosen() : queue.slice(0, 1);
  if (!items.length) return say(many ? UNSELECTED : "There is no image to answer.");
  if (!many && ["label", "unsure"].includes(action) && !isSeen(items[0])) return say("The picture is not there yet.");
  const seconds = Math.round(lookedFor() / items.length) / 1000;
  const actions = items.map(({ image }) => ({ action, image, label, seconds, guess }));
  const text = (label === null ? WORDS[action] : named(label)) + (items.length > 1 ? `, ${items.length} images` : "");
  past.push(items);
  queue = without(queue, items);
  if (many) grid.remove(items);
  show();
  post("/api/actions", many ? { actions } : actions[0], items, text);
}

function undo() {
  const items = past.pop();
  if (items) bringBack(items);
  for (const item of items ? [...items].reverse() : [null]) {
    const done = post("/api/undo", {}, item ? [item] : [], "");
    if (!item) undoing = done.then(() => { undoing = null; });
  }
}

function bringBack(items) {
  queue = [...items, ...without(queue, items)];
  if (grid.isOpen()) grid.bringBack(items);
  show();
}

// While the server alone knows which image an undo brings back, a key would answer one that nobody has seen.
function run(deed) {
  if (!undoing) deed();
  else if (deed === undo) undoing.then(() => run(undo));
  else say("Wait: undoing.");
}

async function showGuess() {
  if (grid.isOpen() || !queue.length) return;
  const { image } = queue[0];
  const answer = await request(`/api/guess/${image}`).catch((error) => error);
  if (image !== shown?.image) return;
  guess = answer.label ?? null;
  const told = guess === null ? "" : `The model guesses ${named(guess)} (${percent(answer.probability)}).`;
  write("guess", told || "No guess: the model knows too little yet.");
}

// ---- the picture

function show() {
  restartClock();
  guess = null;
  write("guess", "");
  if (grid.isOpen()) return;
  shown = queue[0] ?? null;
  if (shown) $("picture").replaceChildren(picture(shown));
  else showNothing();
  write("name", shown?.name ?? "");
  afterPaint(prefetch);
}

function showNothing() {
  const reason = state.finished ? "No image is left. You can close this page." : "The next images are being chosen …";
  if ($("picture").textContent !== reason) $("picture").replaceChildren(html("p", { role: "status" }, reason));
}

function picture(item) {
  if (pictures.has(item.image)) return pictures.get(item.image);
  const image = html("img", { alt: `Image ${item.name}`, width: item.width, height: item.height, decoding: "sync" });
  const isShown = () => !grid.isOpen() && item.image === shown?.image;
  image.addEventListener("load", () => { if (isShown()) restartClock(); });
  image.addEventListener("error", () => {
    pictures.delete(item.image);
    if (!isShown()) return;
    shown = null; // asked for again with the next state
    image.replaceWith(html("p", {}, "This picture did not load. Wait, skip it, or call it bad."));
  });
  image.src = `/images/${item.image}`;
  image.decode().catch(() => {});
  pictures.set(item.image, image);
  return image;
}

const isSeen = ({ image }) => pictures.get(image)?.complete && pictures.get(image).naturalWidth > 0;

function prefetch() {
  const wanted = [...queue.slice(0, AHEAD + 1), ...past.slice(-2).flatMap((items) => items.slice(0, 1))];
  wanted.forEach(picture);
  for (const number of pictures.keys()) if (!wanted.some((item) => item.image === number)) pictures.delete(number);
}

function restartClock() {
  [looked, since] = [0, performance.now()];
}

function lookedFor() {
  return looked + (document.hidden ? 0 : performance.now() - since); // ms, while the page could be seen
}

// ---- keys, clicks, the start

function toggleGrid() {
  grid.toggle();
  $("suggest").hidden = grid.isOpen() || !state?.suggest;
  document.activeElement.blur();
  show();
}

const COMMANDS = {
  " ": () => act("skip"), u: () => act("unsure"), x: () => act("bad"), Backspace: undo, g: toggleGrid, s: showGuess,
  "?": () => $("help").showModal(), "/": () => $("filter").focus(),
  all: () => grid.selectAll(true), none: () => grid.selectAll(false),
};

function keyOf({ code, key, shiftKey }) {
  if (!shiftKey && /^Digit[1-9]$/.test(code) && !/^\d$/.test(key)) return code.at(-1); // AZERTY
  if (!areMany() && /^\P{ASCII}$/u.test(key) && code.startsWith("Key")) return code.at(-1).toLowerCase(); // Greek ...
  return key.length === 1 ? key.toLowerCase() : key;
}

const isShortcut = (event) => event.ctrlKey || event.metaKey; // the browser's, but for Ctrl-Z

function commandOf(event) {
  const key = keyOf(event), id = /^[1-9]$/.test(key) ? numbered(key) : undefined;
  if (isShortcut(event)) return key === "z" ? undo : null;
  if (id !== undefined) return () => act("label", id);
  if (grid.isOpen() && ["a", "Escape"].includes(key)) return key === "a" ? COMMANDS.all : COMMANDS.none;
  if ((key === "s" && !state?.suggest) || (key === "/" && !areMany())) return null;
  return key.length === 1 || key === "Backspace" ? COMMANDS[key] : null;
}

document.addEventListener("keydown", (event) => {
  if (!state || event.isComposing || event.altKey || $("help").open) return;
  if (event.target === $("filter")) return filterKey(event, (id) => run(() => act("label", id)));
  if (event.target.closest("button") && [" ", "Enter"].includes(event.key)) return; // a button answers for itself
  const command = commandOf(event);
  if (command) {
    event.preventDefault();
    if (!event.repeat) run(command); // a key held down is one answer
  } else if (areMany() && /^\p{L}$/u.test(event.key) && !isShortcut(event)) $("filter").focus(); // gets the letter
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button"), { id, command } = button?.dataset ?? {};
  if (state && id) {
    leaveFilter();
    run(() => act("label", Number(id)));
  } else if (state && command) run(COMMANDS[command]);
  if (event.detail && !$("help").open) button?.blur(); // after a click Space is to skip, not to press the button again
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden) looked += performance.now() - since;
  since = performance.now();
});
$("close-help").addEventListener("click", () => $("help").close());
$("retry").addEventListener("click", refresh);

start(settled, refused);
(async function poll() {
  if (!document.hidden && !pending().length) await refresh();
  setTimeout(poll, queue.length || state?.finished ? POLL : POLL_EMPTY);
})();
