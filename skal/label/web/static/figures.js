// The progress of labelling, and the model's accuracy.

import { $, counted, percent, svg, write } from "./dom.js";

const ENOUGH = 10, PLENTY = 30; // test answers needed to show an estimate, and to show it before its interval
const DRAWN = "randomly drawn images that the model never trains on";
const INTERVAL = "The range is a 95% confidence interval.";
const UNKNOWN = "About every tenth image is drawn at random and held out as a test set. "
  + "The model's accuracy is measured on these images.";
const LEARNER = { idle: "", training: "The model is training. You can keep labelling." };

export function drawFigures(state) {
  const { done_in_round: done, n_images, n_labeled, round, round_size: size } = state;
  write("round", `${done} of ${size}, ${round ? `round ${round}` : "start"}`);
  write("total", `${n_labeled} of ${counted(n_images, "image")} labelled`);
  $("bar").max = size || 1;
  $("bar").value = done;
  const [figure, source] = estimate(state);
  write("accuracy", figure);
  write("source", source);
  const { enough } = state;
  write("enough", enough ? `Target ${share(enough.wanted)}: ${enough.text}.` : "");
  $("enough").classList.toggle("reached", enough?.is_reached ?? false);
  write("learner", LEARNER[state.learner] ?? `Training ${state.learner}. You can keep labelling; every answer is saved.`);
  drawUnreadable(state);
  drawPeople(state);
  const curve = state.n_test < ENOUGH ? [] : state.curve, drawn = JSON.stringify([curve, enough?.wanted]);
  if (drawn === $("curve").dataset.drawn) return;
  $("curve").dataset.drawn = drawn;
  $("curve").replaceChildren(...(curve.length ? [learningCurve(curve, enough?.wanted)] : []));
}

function drawPeople({ people, n_disputed: n }) {
  $("people").hidden = people.length < 2;
  const disputed = n ? [`${n} disputed: settle them in the review`] : [];
  write("answers", [...people.map(({ name, n: answers }) => `${name} ${answers}`), ...disputed].join(" · "));
}

const share = (wanted) => `${Number((100 * wanted).toPrecision(4))}%`;

function estimate({ accuracy, n_labeled, n_test }) {
  if (!accuracy && !n_test) return ["Not known yet", UNKNOWN];
  const n = accuracy?.n ?? n_test;
  if (!accuracy || n < ENOUGH) return ["Too early to say", `${n} of ${ENOUGH} answers so far to ${DRAWN}.`];
  const [value, low, high] = [accuracy.value, accuracy.low, accuracy.high].map(percent);
  const on = `Measured on ${counted(n, "answer")} to ${DRAWN}. It was trained on ${accuracy.n_known} of your ${counted(n_labeled, "label")}.`;
  if (n < PLENTY) return [`Between ${low} and ${high} correct`, `${INTERVAL} The estimate is ${value}. ${on}`];
  return [`${value} correct (${low} to ${high})`, `${on} ${INTERVAL}`];
}

function drawUnreadable({ n_unreadable: n, unreadable }) {
  const more = n > unreadable.length ? ", …" : "";
  $("unreadable").hidden = !n;
  write("unreadable", n ? `${n} ${n === 1 ? "file" : "files"} cannot be read: ${unreadable.join(", ")}${more}` : "");
}

function learningCurve(curve, wanted) {
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
  return svg("svg", { viewBox: "0 0 300 146", role: "img", "aria-label": `Learning curve: ${summary(points)}` },
    ...rules,
    ...(wanted > bottom ? [svg("line", { class: "wanted", x1: 34, x2: 290, y1: y(wanted), y2: y(wanted) })] : []),
    svg("polygon", { class: "band", points: `${path("high")} ${path("low", [...points].reverse())}` }),
    svg("polyline", { class: "line", points: path("value") }),
    ...points.map(({ n, value }) => svg("circle", { class: "dot", cx: x(n), cy: y(value), r: 2.5 })),
    text(x(first), 127, last > first ? "start" : "middle", String(first)),
    last > first
      ? text(290, 127, "end", String(last))
      : svg("line", { class: "line", x1: x(first), x2: x(first), y1: y(points[0].low), y2: y(points[0].high) }),
    text(162, 142, "middle", "labels"));
}

function summary(points) {
  const say = ({ n, value }) => `${percent(value)} at ${counted(n, "label")}`;
  const best = points.reduce((one, other) => (other.value > one.value ? other : one));
  if (points.length === 1) return say(best);
  return `first ${say(points[0])}, last ${say(points.at(-1))}, best ${say(best)}`;
}
