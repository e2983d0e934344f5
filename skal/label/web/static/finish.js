// The dialog that writes the labels out and trains the final network: what and where is said before.

import { $, html, say, write } from "./dom.js";
import * as outbox from "./outbox.js";

const AGAIN = 500; // ms between looks at what is being made

let things = [], chosen = "folder", watching = null, wasDoing = "";

export function open() {
  write("finish-told", "");
  $("finish").showModal();
  look();
}

async function look() {
  clearTimeout(watching);
  const answer = await outbox.request("/api/finish").catch((error) => error);
  if (answer instanceof Error) {
    if (wasDoing) watching = setTimeout(look, AGAIN);
    return write("finish-told", `No answer: ${answer.message}.`);
  }
  draw(answer);
}

function draw({ n_labeled: n, things: fresh, doing, told, failed }) {
  if (JSON.stringify(things) !== JSON.stringify(fresh)) $("things").replaceChildren(...fresh.map(row));
  things = fresh;
  write("finish-count", `${n} image${n === 1 ? " has a label" : "s have a label"}.`);
  $("make").disabled = Boolean(doing) || !n;
  const result = failed ? `Nothing was made: ${told}` : told && `Done. ${told}`;
  write("finish-told", doing ? `Making: ${doing} …` : result);
  if (doing || result) $("finish-told").scrollIntoView({ block: "nearest" });
  if (wasDoing && !doing && !$("finish").open) say(result);
  wasDoing = doing;
  if (doing) watching = setTimeout(look, AGAIN);
}

function row({ what, summary, where }) {
  const input = html("input", { type: "radio", name: "thing", value: what });
  input.checked = what === chosen;
  return html("label", {}, input, html("span", {}, html("b", {}, what), `: ${summary}`, html("code", {}, where)));
}

async function make() {
  if (outbox.pending().length) return write("finish-told", "Wait: not all is saved yet.");
  const { what, where } = things.find((one) => one.what === chosen) ?? {};
  const answer = await outbox.request("/api/make", { what, where }).catch((error) => error);
  if (!(answer instanceof Error)) return draw(answer);
  await look();
  write("finish-told", `Nothing was made: ${answer.message}`);
}

$("things").addEventListener("change", ({ target }) => { chosen = target.value; });
$("make").addEventListener("click", make);
$("close-finish").addEventListener("click", () => $("finish").close());
