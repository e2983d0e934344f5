// The dialog that exports labels and trains the final network; it shows first what goes where.

import { $, html, say, write } from "./dom.js";
import * as outbox from "./outbox.js";

const AGAIN = 500; // ms between polls of the job

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
    return write("finish-told", `The server did not answer: ${answer.message}.`);
  }
  draw(answer);
}

function draw({ n_labeled: n, things: fresh, doing, told, failed }) {
  if (JSON.stringify(things) !== JSON.stringify(fresh)) $("things").replaceChildren(...fresh.map(row));
  things = fresh;
  write("finish-count", `${n} image${n === 1 ? " has a label" : "s have a label"}.`);
  $("make").disabled = Boolean(doing) || !n;
  const result = failed ? `Failed: ${told}` : told && `Done. ${told}`;
  write("finish-told", doing ? `Working on ${doing} …` : result);
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
  if (outbox.pending().length) return write("finish-told", "Wait until all answers are saved.");
  const { what, where } = things.find((one) => one.what === chosen) ?? {};
  const answer = await outbox.request("/api/make", { what, where }).catch((error) => error);
  if (!(answer instanceof Error)) return draw(answer);
  await look();
  write("finish-told", `Failed: ${answer.message}`);
}

$("things").addEventListener("change", ({ target }) => { chosen = target.value; });
$("make").addEventListener("click", make);
$("close-finish").addEventListener("click", () => $("finish").close());
