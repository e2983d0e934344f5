// What was pressed, on its way to the server: in order, each until the server has answered that it is on the disk.
// A request that got no answer is sent again under its key, by which the server knows it again.

import { $, say, write } from "./dom.js";

const RETRY = 1500, TIMEOUT = 10000; // ms
const STORE = `outbox of ${location.search}: ${document.title}`;
const GONE = "No connection to skal. Is it still running in the terminal?";
const ANEW = "skal was started anew: open the address that it printed in the terminal.";

export const me = new URLSearchParams(location.search).get("as") || "me";

let outbox = JSON.parse(sessionStorage.getItem(STORE) ?? "[]"); // outlives a reload
let settled, refused; // what to do with an answer
let sending = false, wake = null, posted = 0, lost = "", complaints = [];

export const pending = () => outbox.flatMap((entry) => entry.items);

export function start(whenSettled, whenRefused) {
  [settled, refused] = [whenSettled, whenRefused];
  send();
}

export async function request(path, body) {
  const headers = { "Content-Type": "application/json" };
  const post = body && { method: "POST", headers, body: JSON.stringify(body), keepalive: true }; // outlives the page
  const response = await fetch(path, { ...post, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT) });
  if (response.ok) return response.json();
  const { error } = await response.json().catch(() => ({}));
  throw Object.assign(new Error(error ?? `the server answered ${response.status}`), { status: response.status });
}

// null if there is no answer, or one that is older than what was pressed meanwhile
export async function ask(path) {
  const before = posted;
  try {
    const answer = await request(path);
    if (lost) say("The connection is back.");
    lost = "";
    banner();
    return before === posted && !outbox.length ? answer : null;
  } catch (error) {
    trouble(error);
    return null;
  }
}

export function post(path, body, items, text) {
  const key = Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("-");
  const entry = { path, body: { as: me, key, ...body }, items, text };
  const done = new Promise((resolve) => { entry.done = resolve; });
  posted += 1;
  outbox.push(entry);
  keep();
  banner();
  send();
  return done;
}

function keep() {
  sessionStorage.setItem(STORE, JSON.stringify(outbox));
}

async function send() {
  if (sending) return;
  sending = true;
  while (outbox.length) {
    const entry = outbox[0];
    const answer = await request(entry.path, entry.body).catch((error) => error);
    if (answer instanceof Error && !isRefusal(answer)) {
      trouble(answer);
      await new Promise((resolve) => { wake = resolve; setTimeout(resolve, RETRY); });
      continue;
    }
    outbox.shift();
    keep();
    lost = "";
    if (!(answer instanceof Error)) settled(entry, answer);
    else {
      if (entry.text) complaints.push(`Not saved: ${entry.text}. ${answer.message}.`);
      refused(entry, answer);
    }
    banner();
    entry.done?.();
  }
  sending = false;
}

function isRefusal({ status }) {
  return status >= 400 && status < 500 && ![401, 403].includes(status);
}

function trouble({ status, message }) {
  if (!status) lost = GONE;
  else lost = [401, 403].includes(status) ? ANEW : `skal failed: ${message}.`;
  banner();
}

function banner() {
  $("banner").hidden = !lost && !complaints.length;
  $("retry").hidden = !lost;
  $("dismiss").hidden = !complaints.length;
  const unsaved = outbox.reduce((sum, { items }) => sum + (items.length || 1), 0);
  const kept = lost && unsaved ? `Not saved yet: ${unsaved}. This page keeps trying; leave it open.` : "";
  write("trouble", [lost, kept, ...complaints].filter(Boolean).join(" "));
}

$("retry").addEventListener("click", () => wake?.());
$("dismiss").addEventListener("click", () => { complaints = []; banner(); });
addEventListener("online", () => wake?.());
addEventListener("beforeunload", (event) => { if (outbox.length) event.preventDefault(); });
