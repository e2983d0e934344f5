// All images as points, similar ones close together; drawing around some opens them in the grid.

import { named } from "./classes.js";
import { $, counted, html, say, write } from "./dom.js";
import { me, picture, request, win } from "./outbox.js";
import { colours, NONE, packed } from "./palette.js";

const AGAIN = 1000; // ms between polls of the computation
const REST = 200; // ms without a key press before the images in the circle are counted
const NEAR = 12; // px from the pointer at which a point is hovered
const MOST = 5000; // images to open in the grid
const STEP = 0.1, ZOOM = 1.3; // share of the map's width, and zoom factor, per key press
const SHARE = 1 / 6; // radius of the keyboard's circle, as a share of the smaller side
const WHY = { start: "picked before there was a model", strategy: "picked by the strategy", doubt: "the model is uncertain", chance: "drawn at random", test: "drawn at random to measure accuracy" };

let points = { images: [], x: [], y: [], label: [], guess: [], unsure: [], why: [], kinds: [] };
let view = { x: 0, y: 0, scale: 1 }, size = { width: 0, height: 0, dpr: 1 };
let colour = new Uint32Array(), order = new Uint32Array(), pixels = null;
let drag = null, path = [], watching = null, resting = null, frame = 0, dirty = false;
let open = () => {}; // opens images in the grid
const canvas = $("points"), pen = canvas.getContext("2d", { alpha: false });

export const isOpen = () => !$("map").hidden;
export const start = (openGrid) => { open = openGrid; };

export function toggle() {
  const opens = !isOpen();
  $("map").hidden = !opens;
  $("single").hidden = opens;
  clearTimeout(watching);
  if (!opens) return;
  load(true);
  request("/api/layout", { as: me, window: win }).then(watch, () => {});
}

async function load(isFirst = false) {
  const answer = await request("/api/map").catch((error) => error);
  if (!isOpen()) return;
  if (answer instanceof Error) return write("map-state", `The map could not be loaded: ${answer.message}.`);
  const isOther = answer.method !== points.method || answer.images.length !== points.images.length;
  points = { ...points, ...answer };
  tell(answer);
  paint();
  if (isFirst || isOther) whole();
  if (isFirst) canvas.focus();
  if (!answer.images.length) watching = setTimeout(load, AGAIN, true);
}

async function watch() {
  const answer = await request("/api/map?state=").catch(() => null);
  if (!answer || !isOpen()) return;
  tell({ ...points, ...answer });
  if (answer.state === "computing") watching = setTimeout(watch, AGAIN);
  else if (answer.state === "ready") load();
}

function tell({ state, method, images }) {
  const far = { computing: "computing a better map …", ready: "", none: "" }[state] ?? state;
  const what = method ? `${counted(images.length, "image")}, by ${method}` : "Computing embeddings of the images …";
  write("map-state", [what, far].filter(Boolean).join(" · "));
}

// ---- colours

function paint() {
  const by = $("colour-by").value, of = points[by] ?? [];
  const { list, legend } = colours(by, of, by === "why" ? points.kinds.map((kind) => WHY[kind] ?? kind) : named);
  colour = Uint32Array.from(of, (value) => list.get(value) ?? NONE());
  // draw points with a value on top
  order = Uint32Array.from([...colour.keys()].sort((a, b) => (of[a] < 0 ? 0 : 1) - (of[b] < 0 ? 0 : 1)));
  $("legend").replaceChildren(...legend.map(([text, rgb, n]) => {
    const mark = html("span", { class: "mark" });
    mark.style.background = rgb;
    return html("li", {}, mark, `${text}${n === undefined ? "" : ` ${n}`}`);
  }));
  redraw();
}

// ---- drawing

function redraw() {
  dirty = true;
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    if (dirty && isOpen()) draw();
  });
}

function measure() {
  const { clientWidth, clientHeight } = canvas, dpr = devicePixelRatio || 1;
  const [width, height] = [Math.max(1, Math.round(clientWidth * dpr)), Math.max(1, Math.round(clientHeight * dpr))];
  if (pixels && width === size.width && height === size.height) return;
  [canvas.width, canvas.height] = [width, height];
  size = { width, height, dpr };
  pixels = pen.createImageData(width, height);
}

function draw() {
  dirty = false;
  measure();
  const { width, height, dpr } = size, buffer = new Uint32Array(pixels.data.buffer);
  buffer.fill(packed(getComputedStyle($("map")).getPropertyValue("--mat")));
  const side = Math.max(2, Math.round(dpr * Math.min(9, (points.images.length < 3000 ? 5 : 2.2) + Math.log2(1 + view.scale * 20))));
  const { x, y } = points, half = side >> 1;
  for (const i of order) {
    const left = Math.round((x[i] - view.x) * view.scale * dpr + width / 2) - half;
    const top = Math.round((y[i] - view.y) * view.scale * dpr + height / 2) - half;
    if (left < 0 || top < 0 || left + side > width || top + side > height) continue;
    for (let row = top * width + left, end = row + side * width; row < end; row += width) buffer.fill(colour[i], row, row + side);
  }
  pen.putImageData(pixels, 0, 0);
  pen.strokeStyle = getComputedStyle(canvas).color;
  pen.lineWidth = 2 * dpr;
  pen.beginPath();
  path.forEach(([left, top]) => pen.lineTo(left * dpr, top * dpr));
  if (!path.length && canvas.matches(":focus-visible")) pen.arc(width / 2, height / 2, SHARE * Math.min(width, height), 0, 7);
  pen.stroke();
}

const onScreen = (i) => [
  (points.x[i] - view.x) * view.scale + size.width / size.dpr / 2, (points.y[i] - view.y) * view.scale + size.height / size.dpr / 2];

// ---- pan and zoom

function whole() {
  const side = Math.min(canvas.clientWidth, canvas.clientHeight) || 1;
  view = { x: 5000, y: 5000, scale: (0.94 * side) / 10000 };
  looked();
}

function zoom(times, [left, top] = [canvas.clientWidth / 2, canvas.clientHeight / 2]) {
  const scale = Math.min(20, Math.max(0.005, view.scale * times));
  const [dx, dy] = [left - canvas.clientWidth / 2, top - canvas.clientHeight / 2];
  view = { x: view.x + dx / view.scale - dx / scale, y: view.y + dy / view.scale - dy / scale, scale };
  looked();
}

function pan(dx, dy) {
  view = { ...view, x: view.x - dx / view.scale, y: view.y - dy / view.scale };
  looked();
}

function looked() {
  $("map-card").hidden = true;
  redraw();
}

// ---- selecting

function inside(corners) {
  const [lefts, tops] = [corners.map(([left]) => left), corners.map(([, top]) => top)];
  const [low, high] = [Math.min(...lefts), Math.max(...lefts)], [top, bottom] = [Math.min(...tops), Math.max(...tops)];
  return indices().filter((i) => {
    const [px, py] = onScreen(i);
    if (px < low || px > high || py < top || py > bottom) return false;
    let is = false;
    for (let a = 0, b = corners.length - 1; a < corners.length; b = a++) {
      const [[ax, ay], [bx, by]] = [corners[a], corners[b]];
      if (ay > py !== by > py && px < ((bx - ax) * (py - ay)) / (by - ay) + ax) is = !is;
    }
    return is;
  });
}

const indices = () => Array.from(points.images.keys());

function inCircle() {
  const [left, top] = [canvas.clientWidth / 2, canvas.clientHeight / 2], radius = SHARE * 2 * Math.min(left, top);
  return indices().filter((i) => {
    const [px, py] = onScreen(i);
    return (px - left) ** 2 + (py - top) ** 2 <= radius ** 2;
  });
}

// Those nearest to the centre first: they are the most similar.
function openOn(found) {
  if (!found.length) return say("There is no image in this area.");
  const mean = (of) => found.reduce((sum, i) => sum + of[i], 0) / found.length;
  const [x, y] = [mean(points.x), mean(points.y)];
  const far = (i) => (points.x[i] - x) ** 2 + (points.y[i] - y) ** 2;
  open(found.sort((a, b) => far(a) - far(b)).slice(0, MOST).map((i) => points.images[i]));
}

function count() {
  if (isOpen()) say(`${counted(inCircle().length, "image")} in the circle: Enter opens them in the grid.`);
}

function nearest(left, top) {
  let best = -1, least = NEAR ** 2;
  for (const i of order) {
    const [px, py] = onScreen(i), far = (px - left) ** 2 + (py - top) ** 2;
    if (far <= least) [best, least] = [i, far];
  }
  return best;
}

function hover(left, top) {
  const i = nearest(left, top), card = $("map-card");
  card.hidden = i < 0;
  if (i < 0) return;
  const src = picture("thumbs", points.images[i]), image = card.querySelector("img");
  if (image.getAttribute("src") !== src) image.src = src;
  const said = [points.label[i] >= 0 ? named(points.label[i]) : "no label", points.why[i] >= 0 ? `queued: ${WHY[points.kinds[points.why[i]]]}` : ""];
  card.querySelector("figcaption").textContent = said.filter(Boolean).join(" · ");
  const [px, py] = onScreen(i), room = canvas.clientWidth - card.offsetWidth;
  card.style.left = `${Math.max(0, Math.min(px + 14, room))}px`;
  card.style.top = `${py > canvas.clientHeight / 2 ? Math.max(0, py - card.offsetHeight - 14) : py + 14}px`;
}

// ---- pointer and keys

const moves = (event) => event.shiftKey || event.button === 1 || $("map-move").getAttribute("aria-pressed") === "true";
const at = ({ offsetX, offsetY }) => [offsetX, offsetY];

canvas.addEventListener("pointerdown", (event) => {
  if (event.button > 1) return;
  canvas.setPointerCapture(event.pointerId);
  drag = { moves: moves(event), from: at(event) };
  path = drag.moves ? [] : [at(event)];
});
canvas.addEventListener("pointermove", (event) => {
  if (!drag) return hover(...at(event));
  const [left, top] = at(event);
  if (drag.moves) pan(left - drag.from[0], top - drag.from[1]);
  else path.push([left, top]);
  drag.from = [left, top];
  redraw();
});
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, () => {
    const around = path, wasLasso = drag && !drag.moves && end === "pointerup";
    [drag, path] = [null, []];
    redraw();
    if (wasLasso && around.length > 3) openOn(inside(around));
  });
}
canvas.addEventListener("pointerleave", () => { if (!drag) $("map-card").hidden = true; });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(ZOOM ** (-event.deltaY / 100), at(event));
}, { passive: false });

const across = () => STEP * canvas.clientWidth;
const KEYS = {
  ArrowLeft: () => pan(across(), 0), ArrowRight: () => pan(-across(), 0), ArrowUp: () => pan(0, across()), ArrowDown: () => pan(0, -across()),
  "+": () => zoom(ZOOM), "=": () => zoom(ZOOM), "-": () => zoom(1 / ZOOM), Home: whole, Enter: () => openOn(inCircle()),
};
canvas.addEventListener("keydown", (event) => {
  const deed = KEYS[event.key];
  if (!deed || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  event.stopPropagation();
  deed();
  clearTimeout(resting);
  if (event.key !== "Enter") resting = setTimeout(count, REST); // not while a key is held down
});
for (const event of ["focus", "blur"]) canvas.addEventListener(event, redraw);
new ResizeObserver(() => { if (isOpen()) redraw(); }).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (isOpen()) paint(); });
$("colour-by").addEventListener("change", paint);
$("map-in").addEventListener("click", () => zoom(ZOOM ** 2));
$("map-out").addEventListener("click", () => zoom(ZOOM ** -2));
$("map-whole").addEventListener("click", whole);
$("map-move").addEventListener("click", ({ currentTarget: button }) => {
  button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
});
