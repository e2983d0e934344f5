// What was pressed, on its way to the server: in order, each until the server has answered that it is on the disk.
// A request that got no answer is sent again under its key, by which the server knows it again.

import { $, say, write } from "./dom.js";

const RETRY = 1500, TIMEOUT = 10000, PATIENCE = 2000; // ms
const TRIES = 3; // of an answer that the server fails at, before it can be set aside
const GONE = "No connection to skal. Is it still running in the terminal?";
const SLOW = "skal does not answer yet.";
const ANEW = "skal does not know this page any more: open the address that it printed in the terminal.";
const FOREIGN = "skal now labels another folder at this address. Close this page, or start skal label for its own again.";

const project = document.documentElement.dataset.project;
export const me = document.documentElement.dataset.own || new URLSearchParams(location.search).get("as") || "me";
const STORE = `outbox of ${project}: ${me}`, COMPLAINTS = `complaints of ${project}: ${me}`;

let outbox = JSON.parse(sessionStorage.getItem(STORE) ?? "[]"); // outlives a reload
let complaints = JSON.parse(sessionStorage.getItem(COMPLAINTS) ?? "[]");
let settled, refused; // what to do with an answer
let pictures = ""; // the stamp of the server's
let sending = false, wake = null, posted = 0, lost = "";

// Kept from a reload, but not by a copy of this page, which is another window under the same name.
export const win = sessionStorage.getItem("window") ?? crypto.getRandomValues(new Uint32Array(2)).join("-");
sessionStorage.removeItem("window");
addEventListener("pagehide", () => {
  sessionStorage.setItem("window", win);
  request("/api/leave", { as: me, window: win }, true).catch(() => {}); // outlives the page
});
addEventListener("pageshow", () => sessionStorage.removeItem("window"));

export const pending = () => outbox.flatMap((entry) => entry.items);
export const isCutOff = () => lost !== "";
export const picture = (kind, image) => `/${kind}/${image}?project=${project}&pictures=${pictures}`;

// A browser keeps pictures by their address; under another stamp they are fetched again. Tells whether it is another.
export function stamped(stamp) {
  const isOther = stamp !== pictures;
  pictures = stamp;
  return isOther;
}

export function start(whenSettled, whenRefused) {
  [settled, refused] = [whenSettled, whenRefused];
  banner();
  send();
}

export async function request(path, body, keepalive = false) {
  const headers = { "Content-Type": "application/json", "X-Skal-Project": project };
  const post = body && { method: "POST", body: JSON.stringify(body), keepalive };
  const response = await fetch(path, { ...post, headers, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT) });
  if (response.ok) return response.json();
  const { error, foreign } = await response.json().catch(() => ({}));
  throw Object.assign(new Error(error ?? `the server answered ${response.status}`), { status: response.status, foreign });
}

// null if there is no answer, or one that may be older than what was pressed: then that one's own answer comes
export async function ask(path, body) {
  const before = posted, wasSent = !outbox.length;
  try {
    const answer = await request(path, { ...body, as: me, window: win });
    if (lost && !outbox.length) say("The connection is back.");
    if (!outbox.length) lost = "";
    banner();
    return wasSent && before === posted ? answer : null;
  } catch (error) {
    trouble(error);
    return null;
  }
}

// Returns the key, by which an undo names what it takes back, and a promise of the end.
export function post(path, body, items, text) {
  const key = [...crypto.getRandomValues(new Uint32Array(4))].map((part) => part.toString(36)).join("-");
  const entry = { path, body: { ...body, as: me, window: win, key }, items, text };
  posted += 1;
  outbox.push(entry);
  keep();
  const done = new Promise((resolve) => { entry.done = resolve; });
  banner();
  send();
  return { key, done };
}

function keep() {
  sessionStorage.setItem(STORE, JSON.stringify(outbox));
  sessionStorage.setItem(COMPLAINTS, JSON.stringify(complaints));
}

async function send() {
  if (sending) return;
  sending = true;
  while (outbox.length) {
    const entry = outbox[0];
    const slow = setTimeout(() => { lost ||= SLOW; banner(); }, PATIENCE);
    const answer = await request(entry.path, entry.body, true).catch((error) => error); // outlives the page
    clearTimeout(slow);
    if (entry !== outbox[0]) continue; // set aside meanwhile
    if (answer instanceof Error && !isRefusal(answer)) {
      if (answer.status >= 500) entry.failures = (entry.failures ?? 0) + 1;
      trouble(answer);
      await new Promise((resolve) => { wake = resolve; setTimeout(resolve, RETRY); });
      continue;
    }
    lost = "";
    if (answer instanceof Error) drop(entry, answer.message);
    else {
      take(entry);
      settled(entry, answer);
    }
    banner();
    entry.done?.();
  }
  sending = false;
}

function take(entry) {
  outbox = outbox.filter((other) => other !== entry);
  keep();
}

function drop(entry, reason) {
  if (entry.text) complaints.push(`Not saved: ${entry.text}. ${reason}.`);
  take(entry);
  refused(entry, reason);
}

function isRefusal({ status, foreign }) {
  return status >= 400 && status < 500 && ![401, 403].includes(status) && !foreign;
}

function trouble({ status, message, foreign }) {
  if (foreign) lost = FOREIGN;
  else if (!status) lost = GONE;
  else lost = [401, 403].includes(status) ? ANEW : `skal failed: ${message}.`;
  banner();
}

function banner() {
  $("banner").hidden = !lost && !complaints.length;
  $("retry").hidden = !lost;
  $("aside").hidden = !lost || (outbox[0]?.failures ?? 0) < TRIES;
  $("dismiss").hidden = !complaints.length;
  const unsaved = outbox.reduce((sum, { items }) => sum + (items.length || 1), 0);
  const kept = lost && unsaved ? `Not saved yet: ${unsaved}. This page keeps trying; leave it open.` : "";
  write("trouble", [lost, kept, ...complaints].filter(Boolean).join(" "));
}

$("retry").addEventListener("click", () => wake?.());
$("aside").addEventListener("click", () => {
  drop(outbox[0], "It was set aside, because skal fails at it");
  banner();
  wake?.();
});
$("dismiss").addEventListener("click", () => {
  complaints = [];
  keep();
  banner();
});
addEventListener("online", () => wake?.());
addEventListener("beforeunload", (event) => { if (outbox.length) event.preventDefault(); });
