// Answers on their way to the server: sent in order, each kept until the server confirms that it is on disk.
// A request without a response is sent again with the same key, so that the server recognizes it.

import { $, say, write } from "./dom.js";

const RETRY = 1500, TIMEOUT = 10000, PATIENCE = 2000; // ms
const TRIES = 3; // server failures before an answer can be discarded
const GONE = "No connection to skal. Check that it is still running in the terminal.";
const SLOW = "skal is not responding yet.";
const ANEW = "skal no longer accepts this page: open the address that it printed in the terminal.";
const FOREIGN = "skal now serves another folder at this address. Close this page, or restart skal label for this folder.";

const project = document.documentElement.dataset.project;
export const me = document.documentElement.dataset.own || new URLSearchParams(location.search).get("as") || "me";
const STORE = `outbox of ${project}: ${me}`, COMPLAINTS = `complaints of ${project}: ${me}`;

let outbox = JSON.parse(sessionStorage.getItem(STORE) ?? "[]"); // outlives a reload
let complaints = JSON.parse(sessionStorage.getItem(COMPLAINTS) ?? "[]");
let settled, refused; // callbacks for the server's response
let pictures = ""; // the server's stamp of the image files
let sending = false, wake = null, posted = 0, lost = "";

// Kept across a reload, but not by a duplicated tab, which is another window with the same name.
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

// Browsers cache images by address: a new stamp makes them fetch again. Returns whether the stamp is new.
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

// Returns null without a response, or if it may be older than an answer posted meanwhile (which gets its own response).
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

// Returns the key, by which an undo refers to this answer, and a promise that resolves when it is done.
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
    if (entry !== outbox[0]) continue; // discarded meanwhile
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
  drop(outbox[0], "It was discarded, because skal failed to save it");
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
