// The page of `skal label`: one key labels the image and shows the next one at once.

import { aimBy, areMany, drawChances, drawClasses, filterKey, haveMoved, idOfKey, leaveFilter, named, seeMoved } from "./classes.js";
import { $, afterPaint, html, percent, say, without, write } from "./dom.js";
import * as editor from "./editor.js";
import { drawFigures } from "./figures.js";
import * as finish from "./finish.js";
import * as grid from "./grid.js";
import { drawRecent } from "./history.js";
import * as map from "./map.js";
import * as outbox from "./outbox.js";
import * as review from "./review.js";

const AHEAD = 8; // images to prefetch
const POLL = 3000, POLL_EMPTY = 300; // ms
const MOST = 5000; // images labelled by one key press
const UNSELECTED = "Select images first: click them, or use the arrow keys and Space.";
const WORDS = { skip: "skipped", unsure: "unsure", bad: "bad image" };
const { pending, post } = outbox;

let state = null; // the server's last answer
let queue = []; // the next images; the first is on screen
let past = []; // answers since the page was opened, so that undo need not wait for the server
let shown = null, guess = null, undoing = null;
let resumes = false; // whether the grid reopens once the randomly drawn images are answered
let looked = 0, since = performance.now(); // ms
const pictures = new Map();
const areSeveral = () => grid.isOpen() || review.isOpen() || map.isOpen();
const isGrid = () => grid.isOpen() || resumes;

// ---- server state

function accept(fresh, isOwn = false) {
  state = fresh;
  if (outbox.stamped(fresh.pictures)) forgetPictures();
  const first = grid.isOpen() ? [] : queue.slice(0, 1); // never replace the image on screen
  queue = [...first, ...without(fresh.queue, [...first, ...pending()])];
  drawClasses(state, isOwn);
  drawFigures(state);
  drawRecent(state.recent);
  review.take(state);
  document.body.classList.toggle("suggests", state.suggest);
  switchGrid();
  drawNote();
  drawTools();
  if (!areSeveral() && (!queue.length || queue[0].image !== shown?.image)) show();
  else afterPaint(prefetch);
}

// Images selected in the grid are a biased sample, so randomly drawn ones are shown one by one in between.
function switchGrid() {
  if (grid.isOpen() && state.due) {
    resumes = true;
    grid.toggle();
    queue = without(state.queue, pending());
  } else if (resumes && !state.due && !pending().length && !review.isOpen() && !map.isOpen()) {
    resumes = false;
    grid.toggle();
  }
  if (grid.isOpen() && state.finished) grid.toggle(); // the final message takes the place of the single image
}

// After a restart of the server, numbers may belong to other images.
function forgetPictures() {
  pictures.clear();
  shown = null;
  grid.forgetPictures();
  review.forgetPictures();
}

function drawNote() {
  const { due, elsewhere } = state;
  const first = resumes && due ? `${due} randomly drawn ${due === 1 ? "image" : "images"} to label one by one. Then the grid continues.` : "";
  const two = `“${outbox.me}” is also labelling in another window, which shows the same images. Close one window, or change the name.`;
  const moved = haveMoved() ? "Keys have changed: check them before you continue." : "";
  write("note", [moved, first, elsewhere ? two : ""].filter(Boolean).join(" "));
}

function drawTools() {
  $("suggest").hidden = areSeveral() || !state?.suggest;
  $("zoom").hidden = areSeveral();
  $("skip").hidden = review.isOpen() || map.isOpen();
  for (const id of ["dock-unsure", "dock-bad"]) $(id).hidden = map.isOpen();
  document.body.classList.toggle("reviewing", review.isOpen());
  document.body.classList.toggle("mapping", map.isOpen());
  $("map-button").setAttribute("aria-pressed", map.isOpen());
  $("review-button").setAttribute("aria-pressed", review.isOpen());
  $("grid-button").setAttribute("aria-pressed", isGrid());
}

function settled(entry, { undone, state: fresh }) {
  accept(fresh);
  if (grid.isOpen()) grid.load();
  if (review.isOpen()) review.renew((undone ?? entry.items).map(({ image }) => image));
  if (!undone) return say(`Saved: ${entry.text}`);
  const words = undone.map(({ action, label }) => (action === "label" ? named(label) : WORDS[action]));
  say(`Undone: ${words[0]}${words.length > 1 ? `, ${words.length} images` : ""}`);
  const images = undone.map(({ image }) => image);
  if (!entry.items.length && !review.isOpen()) bringBack(fresh.queue.filter((item) => images.includes(item.image)));
}

function refused(entry, reason) {
  if (!entry.text) say(`${reason[0].toUpperCase()}${reason.slice(1)}.`);
  past = past.filter(({ items }) => items !== entry.items);
  if (review.isOpen()) review.renew(entry.items.map(({ image }) => image));
  refresh();
}

async function refresh() {
  const fresh = await outbox.ask("/api/next", { grid: isGrid() });
  if (fresh) accept(fresh);
  else if (state && !queue.length && !grid.isOpen()) showNothing();
}

// ---- answers

function act(action, label = null) {
  if (map.isOpen()) return say("Draw around images to open them in the grid and label them.");
  const many = areSeveral(), items = review.isOpen() ? review.chosen() : many ? grid.chosen() : queue.slice(0, 1);
  if (!items.length) return say(many ? UNSELECTED : "There is no image to label.");
  if (items.length > MOST) return say(`Select at most ${MOST} images.`);
  if (action === "skip" && (review.isOpen() || (!many && items[0].again))) return pass(items);
  if (!many && ["label", "unsure"].includes(action) && !isSeen(items[0])) return say("The image has not loaded yet.");
  const seconds = Math.round(lookedFor() / items.length) / 1000;
  const settles = review.isOpen() ? review.settles() : Boolean(!many && items[0].settles);
  const actions = items.map(({ image }) => ({ action, image, label, seconds, guess, settles }));
  const text = (label === null ? WORDS[action] : named(label))
    + (items.length > 1 ? `, ${items.length} images` : ` (${items[0].name})`);
  say(`Saving: ${text} …`);
  const { key } = post("/api/actions", { ...(many ? { actions } : actions[0]), grid: isGrid() }, items, text);
  past.push({ items, key });
  queue = without(queue, items);
  if (review.isOpen()) review.answered(items, action, label);
  else if (many) grid.remove(items);
  show();
}

// Skipping an image that already has an answer keeps the answer.
function pass(items) {
  if (review.isOpen()) return say("The review shows all images: there is nothing to skip.");
  queue = without(queue, items);
  show();
  refresh();
}

// Show an image that already has an answer before the rest of the queue.
function lookAt(item) {
  closeAllBut(null);
  resumes = false;
  queue = [{ ...item, again: true }, ...without(queue, [item])];
  drawTools();
  show();
  say(item.settles ? "People disagree about this image: press a class's key to settle it, or Space to leave it." : "You answered this image before: press a class's key to change the label, or Space to keep it.");
}

function undo() {
  const { items, key } = past.pop() ?? { items: [] };
  say("Undoing …");
  const { done } = post("/api/undo", { grid: isGrid(), ...(key && { undoes: key }) }, items, "");
  if (key && !review.isOpen()) bringBack(items);
  else if (!key) undoing = done.then(() => { undoing = null; });
}

function bringBack(items) {
  queue = [...items, ...without(queue, items)];
  if (grid.isOpen()) grid.bringBack(items);
  show();
}

// Until the server says which image an undo brings back, a key would label an image that nobody has seen.
function run(deed) {
  if (!undoing) deed();
  else if (deed === undo) undoing.then(() => run(undo));
  else say("Undoing: please wait.");
}

async function showGuess() {
  if (areSeveral()) return say("Predictions are shown for single images: leave this view first.");
  if (!queue.length) return say("There is no image to predict.");
  const { image } = queue[0];
  const answer = await outbox.request(`/api/guess/${image}`).catch((error) => error);
  if (image !== shown?.image) return;
  guess = answer.label ?? null;
  const told = guess === null ? "" : `The model predicts ${named(guess)} (${percent(answer.probability)}).`;
  write("guess", told || "No prediction yet: the model needs more labels.");
  if (guess === null) return;
  drawChances(answer.proba ?? []);
  write("why", answer.why ?? "");
}

// ---- the image

function show() {
  restartClock();
  guess = null;
  write("guess", "");
  drawChances([]);
  if (areSeveral()) return;
  shown = queue[0] ?? null;
  zoomOut();
  if (shown) $("picture").replaceChildren(picture(shown));
  else showNothing();
  write("name", shown?.name ?? "");
  write("why", whyOf(shown));
  write("noted", shown?.note ?? "");
  afterPaint(prefetch);
}

function whyOf(item) {
  return item?.again ? "You answered this image before." : item?.why ?? "";
}

// Show full size; arrow keys, the wheel or a finger pan.
function zoom() {
  if (isZoomed()) return zoomOut();
  if (areSeveral()) return say("Zoom shows a single image: leave this view first.");
  if (!shown) return say("There is no image to zoom.");
  const frame = $("picture"), { name, width, height, image } = shown;
  const { naturalWidth, naturalHeight } = picture(shown);
  const fits = width <= frame.clientWidth && height <= frame.clientHeight;
  if (fits && width <= naturalWidth && height <= naturalHeight) return say("The image is already shown at full size.");
  const full = html("img", { src: outbox.picture("full", image), alt: `Image ${name} at full size`, width, height });
  full.addEventListener("error", () => {
    if (!full.isConnected) return;
    zoomOut();
    say("The image could not be loaded at full size.");
  });
  frame.classList.add("zoom");
  frame.classList.toggle("fits", fits);
  frame.replaceChildren(full);
  frame.tabIndex = 0;
  frame.focus();
  frame.scrollTo((width - frame.clientWidth) / 2, (height - frame.clientHeight) / 2);
}

function zoomOut() {
  if (!isZoomed()) return;
  $("picture").classList.remove("zoom", "fits");
  $("picture").removeAttribute("tabindex");
  if (shown) $("picture").replaceChildren(picture(shown));
}

const isZoomed = () => !grid.isOpen() && $("picture").classList.contains("zoom");

function showNothing() {
  const { finished, waiting_for: others } = state;
  let reason = "Choosing the next images …";
  if (outbox.isCutOff()) reason = "The next images appear when the connection is back.";
  else if (finished) return showEnd();
  else if (others.length) reason = `${others.join(" and ")} ${others.length === 1 ? "has" : "have"} the last images. This page continues automatically.`;
  if ($("picture").textContent !== reason) $("picture").replaceChildren(html("p", { role: "status" }, reason));
}

function showEnd() {
  const { n_bad, n_images, n_labeled, n_unsure, n_unreadable } = state;
  const rest = [[n_unsure, "unsure"], [n_bad, "bad"], [n_unreadable, "unreadable"]];
  const told = rest.filter(([n]) => n).map(([n, what]) => `, ${n} ${what}`).join("");
  const text = `No images left: ${n_labeled} of ${n_images} labelled${told}.`;
  if ($("picture").firstChild?.dataset?.text === text) return;
  $("picture").replaceChildren(html("div", { role: "status", "data-text": text },
    html("p", {}, text), html("p", {}, "You can close this page. Next, use “Export and train”, or the terminal:"),
    $("next").content.cloneNode(true)));
}

function picture(item) {
  if (pictures.has(item.image)) return pictures.get(item.image);
  const image = html("img", { alt: `Image ${item.name}`, width: item.width, height: item.height, decoding: "sync" });
  const isShown = () => !grid.isOpen() && item.image === shown?.image;
  image.addEventListener("load", () => { if (isShown()) restartClock(); });
  image.addEventListener("error", () => {
    pictures.delete(item.image);
    if (!isShown()) return;
    shown = null; // requested again with the next state
    image.replaceWith(html("p", {}, "The image could not be loaded. Wait, skip it, or mark it as bad."));
  });
  image.src = outbox.picture("images", item.image);
  image.decode().catch(() => {});
  pictures.set(item.image, image);
  return image;
}

const isSeen = ({ image }) => pictures.get(image)?.complete && pictures.get(image).naturalWidth > 0;

function prefetch() {
  const wanted = [...queue.slice(0, AHEAD + 1), ...past.slice(-2).flatMap(({ items }) => items.slice(0, 1))];
  wanted.forEach(picture);
  for (const number of pictures.keys()) if (!wanted.some((item) => item.image === number)) pictures.delete(number);
}

function restartClock() {
  [looked, since] = [0, performance.now()];
}

function lookedFor() {
  return looked + (document.hidden ? 0 : performance.now() - since); // ms, while the page was visible
}

// ---- keys, clicks, start

function closeAllBut(view) {
  for (const other of [grid, review, map]) if (other !== view && other.isOpen()) other.toggle();
}

function toggleGrid(among = []) {
  closeAllBut(grid);
  grid.limit(among);
  if (resumes) resumes = false;
  else grid.toggle();
  drawTools();
  drawNote();
  show();
}

function toggleView(view) {
  closeAllBut(view);
  resumes = false;
  view.toggle();
  drawTools();
  drawNote();
  if (!view.isOpen()) refresh();
  show();
}

const COMMANDS = {
  " ": () => act("skip"), u: () => act("unsure"), x: () => act("bad"), Backspace: undo, g: () => toggleGrid(), r: () => toggleView(review), m: () => toggleView(map), s: showGuess, z: zoom,
  "?": () => $("help").showModal(), "/": () => $("filter").focus(), who: () => $("who-dialog").showModal(),
  edit: () => editor.open(state), finish: finish.open,
  all: () => grid.selectAll(true), none: () => grid.selectAll(false),
};
const isLetter = (key) => /^\p{L}$/u.test(key);
const lower = (key) => (key.length > 2 ? key : key.normalize("NFC").toLowerCase()); // not "Enter", "F1" ...

// Use the key's position where the layout has another character there: AZERTY's digits, Greek letters.
function keyByPlace({ code, key, shiftKey }) {
  if (!shiftKey && /^Digit\d$/.test(code) && !/^\d$/.test(key)) return code.at(-1);
  if (/^\P{ASCII}$/u.test(key) && code.startsWith("Key") && (shiftKey || !areMany())) return code.at(-1).toLowerCase();
  return lower(key);
}

// Shift with a letter is always a command.
function classOf(event) {
  const key = lower(event.key);
  if (event.shiftKey && isLetter(key)) return undefined;
  return idOfKey(key) ?? idOfKey(keyByPlace(event));
}

// After keys were changed elsewhere, the first key press may be out of habit, so it only warns.
function labelByKey(id) {
  if (!haveMoved()) return act("label", id);
  seeMoved();
  drawNote();
  say("Nothing was labelled: keys have changed. Check them, then press again.");
}

const isShortcut = (event) => event.ctrlKey || event.metaKey; // left to the browser, except Ctrl-Z

function commandOf(event) {
  const key = keyByPlace(event), id = classOf(event);
  if (isShortcut(event)) return key === "z" ? undo : null;
  if (!$("use-keys").checked && key.length === 1) return null;
  if (id !== undefined) return () => labelByKey(id);
  if (areMany() && isLetter(key) && !event.shiftKey) return null; // typing a name begins
  if (isZoomed() && key === "Escape") return zoom;
  if (review.isOpen() && ["a", "Escape"].includes(key)) return () => review.selectAll(key === "a");
  if (grid.isOpen() && ["a", "Escape"].includes(key)) return key === "a" ? COMMANDS.all : COMMANDS.none;
  if ((key === "s" && !state?.suggest) || (key === "/" && !areMany())) return null;
  return key.length === 1 || key === "Backspace" ? COMMANDS[key] : null;
}

const beginsName = (event) =>
  areMany() && $("use-keys").checked && /^[\p{L}\p{N}]$/u.test(event.key) && !isShortcut(event)
  && !(event.shiftKey && isLetter(event.key));

document.addEventListener("keydown", (event) => {
  if (event.target.closest("dialog:not([open])")) event.target.blur(); // a closed dialog keeps the focus until the next frame
  if (!state || event.isComposing || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target === $("filter")) return filterKey(event, (id) => run(() => act("label", id)), sayChanged);
  if (event.target.closest("#filters, select")) return; // fields handle their own keys
  if (event.target.closest("button") && [" ", "Enter"].includes(event.key)) return; // buttons handle their own keys
  const command = commandOf(event);
  if (command) {
    event.preventDefault();
    if (!event.repeat) run(command); // holding a key down is one answer
  } else if (beginsName(event)) $("filter").focus(); // gets the letter
});

function sayChanged() {
  say("Nothing was labelled: the image changed while you typed.");
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button"), { id, command } = button?.dataset ?? {};
  if (state && id) {
    leaveFilter();
    seeMoved(); // a click shows that the button was read
    run(() => act("label", Number(id)));
  } else if (state && command) run(COMMANDS[command]);
  else if (state && event.target.closest("#picture img")) zoom();
  if (event.detail && !document.querySelector("dialog[open]")) button?.blur(); // after a click, Space skips instead of pressing the button again
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden) looked += performance.now() - since;
  since = performance.now();
});
$("close-help").addEventListener("click", () => $("help").close());
$("retry").addEventListener("click", refresh);

$("use-keys").checked = localStorage.getItem("keys") !== "off";
$("use-keys").addEventListener("change", ({ target }) => localStorage.setItem("keys", target.checked ? "on" : "off"));

write("who", outbox.me);
$("new-name").value = outbox.me;
$("close-who").addEventListener("click", () => $("who-dialog").close());
$("change-who").addEventListener("click", () => {
  const name = $("new-name").value.trim();
  if (pending().length) say("Wait until all answers are saved.");
  else if (name) location.search = new URLSearchParams({ as: name });
});
$("new-name").addEventListener("keydown", (event) => { if (event.key === "Enter") $("change-who").click(); });

const address = new URL(location);
if (address.searchParams.has("token")) { // else it ends up in copied links and bookmarks
  address.searchParams.delete("token");
  history.replaceState(null, "", address);
}
map.start(toggleGrid);
aimBy(() => (map.isOpen() ? "map" : review.isOpen() ? "review" : grid.isOpen() ? "grid" : shown?.image ?? null));
grid.start(accept);
review.start(lookAt);
$("recent").addEventListener("click", ({ target }) => {
  const image = Number(target.closest("button")?.dataset.image);
  const item = state?.recent.find((one) => one.image === image);
  if (item) run(() => lookAt(item));
});
editor.start((fresh) => accept(fresh, true));
outbox.start(settled, refused);
(async function poll() {
  if (!document.hidden && !pending().length) await (grid.isShort() ? grid.load(false) : refresh());
  setTimeout(poll, queue.length || state?.finished || state?.waiting_for.length || outbox.isCutOff() ? POLL : POLL_EMPTY);
})();
