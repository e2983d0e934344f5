// The dialog that changes keys and names, and adds, merges and removes classes.

import { $, html, say, write } from "./dom.js";
import * as outbox from "./outbox.js";

let rows = [];
let tell = () => {}; // takes the server's state
export const start = (accept) => { tell = accept; };

export function open({ classes, counts }) {
  rows = classes.map((one) => row(one, classes, counts[one.id]));
  $("edit-rows").replaceChildren(...rows.map(({ node }) => node));
  $("new-classes").value = "";
  write("edit-trouble", "");
  $("edit").showModal();
}

function row({ id, name, key, chosen }, classes, count) {
  const called = html("input", { "aria-label": `Name of ${name}`, value: name, maxlength: 100, class: "name",
    autocomplete: "off", autocapitalize: "none", spellcheck: "false" });
  const input = html("input", { "aria-label": `Key of ${name}`, value: chosen, placeholder: key, maxlength: 4,
    autocomplete: "off", autocapitalize: "none", spellcheck: "false" });
  const others = classes.filter((other) => other.id !== id);
  const select = html("select", { "aria-label": `Change ${name}` }, html("option", { value: "" }, "keep"),
    ...others.map((other) => html("option", { value: other.id }, `merge into ${other.name}`)),
    html("option", { value: "none" }, "remove"));
  const node = html("tr", {}, html("th", { scope: "row" }, called, html("span", {}, `${count} labelled`)),
    html("td", {}, input), html("td", {}, select));
  return { id, name, chosen, called, input, select, node };
}

async function save() {
  const keys = {}, into = {}, names = {};
  for (const { id, name, chosen, called, input, select } of rows) {
    if (select.value) into[id] = select.value === "none" ? null : Number(select.value);
    else {
      if (input.value.trim() !== chosen) keys[id] = input.value.trim();
      if (called.value.trim() !== name) names[id] = called.value;
    }
  }
  const fresh = $("new-classes").value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (outbox.pending().length) return write("edit-trouble", "Wait until all answers are saved.");
  try {
    tell((await outbox.request("/api/classes", { keys, into, names, new: fresh, as: outbox.me, window: outbox.win })).state);
  } catch ({ message }) {
    return write("edit-trouble", `No class was changed: ${message}`);
  }
  $("edit").close();
  say("Classes saved.");
}

$("save-edit").addEventListener("click", save);
$("close-edit").addEventListener("click", () => $("edit").close());
