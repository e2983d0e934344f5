// How far the labelling is, and how good the model.

import { $, percent, svg, write } from "./dom.js";

const KNOWN = "answers, to images drawn at random from all and never trained on. "
  + "In brackets: where the true figure lies with 95% certainty.";
const UNKNOWN = "About every tenth image is drawn at random from all, and its answer is kept for testing. "
  + "The figure comes from those, once there is a model.";
const LEARNER = { idle: "", training: "The model is training; you can go on." };

export function drawFigures({ accuracy, curve, done_in_round, learner, n_images, n_labeled, round, round_size }) {
  write("round", `${done_in_round} of ${round_size}, ${round ? `round ${round}` : "starting round"}`);
  write("total", `${n_labeled} of ${n_images} images labelled`);
  $("bar").max = round_size || 1;
  $("bar").value = done_in_round;
  const [value, low, high] = accuracy ? [accuracy.value, accuracy.low, accuracy.high].map(percent) : [];
  write("accuracy", accuracy ? `${value} right (${low} to ${high})` : "Not known yet");
  write("source", accuracy ? `On ${accuracy.n} ${KNOWN}` : UNKNOWN);
  write("learner", LEARNER[learner] ?? `Training ${learner}. You can go on; every answer is saved.`);
  const drawn = JSON.stringify(curve);
  if (drawn === $("curve").dataset.drawn) return;
  $("curve").dataset.drawn = drawn;
  $("curve").replaceChildren(...(curve.length ? [learningCurve(curve)] : []));
}

function learningCurve(curve) {
  const points = curve.map(({ n_labeled, accuracy, low, high }) => ({ n: n_labeled, value: accuracy, low, high }));
  const first = points[0].n, last = points.at(-1).n;
  const bottom = Math.min(0.9, Math.floor(10 * Math.min(...points.map((point) => point.low))) / 10);
  const x = (n) => 34 + (last > first ? (256 * (n - first)) / (last - first) : 128);
  const y = (share) => 112 - (104 * (share - bottom)) / (1 - bottom);
  const path = (name, list = points) => list.map((point) => `${x(point.n)},${y(point[name])}`).join(" ");
  const text = (left, top, anchor, content) => svg("text", { x: left, y: top, "text-anchor": anchor }, content);
  const rules = [bottom, (1 + bottom) / 2, 1].flatMap((share) => [
    svg("line", { class: "rule", x1: 34, x2: 290, y1: y(share), y2: y(share) }),
    text(30, y(share) + 4, "end", percent(share))]);
  const said = points.map(({ n, value }) => `${percent(value)} at ${n} labels`).join(", ");
  return svg("svg", { viewBox: "0 0 300 146", role: "img", "aria-label": `Learning curve: ${said}` },
    ...rules,
    svg("polygon", { class: "band", points: `${path("high")} ${path("low", [...points].reverse())}` }),
    svg("polyline", { class: "line", points: path("value") }),
    ...points.map(({ n, value }) => svg("circle", { class: "dot", cx: x(n), cy: y(value), r: 2.5 })),
    text(x(first), 127, last > first ? "start" : "middle", String(first)),
    last > first
      ? text(290, 127, "end", String(last))
      : svg("line", { class: "line", x1: x(first), x2: x(first), y1: y(points[0].low), y2: y(points[0].high) }),
    text(162, 142, "middle", "labels"));
}
