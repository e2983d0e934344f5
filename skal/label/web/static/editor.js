// The dialog in which keys are chosen, and classes become one or go away.

import { $, html, say, write } from "./dom.js";
import * as outbox from "./outbox.js";

let rows = [];
let tell = () => {}; // who is told what the server says
export const start = (accept) => { tell = accept; };

export function open({ classes, counts }) {
  rows = classes.map((one) => row(one, classes, counts[one.id]));
  $("edit-rows").replaceChildren(...rows.map(({ node }) => node));
  write("edit-trouble", "");
  $("edit").showModal();
}

function row({ id, name, key, chosen }, classes, count) {
  const input = html("input", { "aria-label": `Key of ${name}`, value: chosen, placeholder: key, maxlength: 4,
    autocomplete: "off", autocapitalize: "none", spellcheck: "false" });
  const others = classes.filter((other) => other.id !== id);
  const select = html("select", { "aria-label": `What becomes of ${name}` }, html("option", { value: "" }, "stays"),
    ...others.map((other) => html("option", { value: other.id }, `becomes a part of ${other.name}`)),
    html("option", { value: "none" }, "is removed"));
  const node = html("tr", {}, html("th", { scope: "row" }, html("bdi", {}, name), html("span", {}, `${count} labelled`)),
    html("td", {}, input), html("td", {}, select));
  return { id, chosen, input, select, node };
}

async function save() {
  const keys = {}, into = {};
  for (const { id, chosen, input, select } of rows) {
    if (select.value) into[id] = select.value === "none" ? null : Number(select.value);
    else if (input.value.trim() !== chosen) keys[id] = input.value.trim();
  }
  if (outbox.pending().length) return write("edit-trouble", "Wait: not all is saved yet.");
  try {
    tell((await outbox.request("/api/classes", { keys, into, as: outbox.me, window: outbox.win })).state);
  } catch ({ message }) {
    return write("edit-trouble", `Nothing was changed: ${message}`);
  }
  $("edit").close();
  say("The classes are saved.");
}

$("save-edit").addEventListener("click", save);
$("close-edit").addEventListener("click", () => $("edit").close());
