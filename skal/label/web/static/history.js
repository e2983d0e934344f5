// The last answers, next to the image; a click goes back to one.

import { named } from "./classes.js";
import { $, html } from "./dom.js";
import { picture } from "./outbox.js";

const WORDS = { skip: "skipped", unsure: "unsure", bad: "bad image" };

let drawn = "";

export function drawRecent(recent) {
  const now = JSON.stringify(recent.map(({ image, action, label }) => [picture("thumbs", image), WORDS[action] ?? named(label)]));
  if (now === drawn) return;
  drawn = now;
  const buttons = recent.map(({ image, name, action, label }) => {
    const said = WORDS[action] ?? named(label);
    return html("button", { type: "button", "data-image": image, "aria-label": `${name}: ${said}`, title: `${name}: ${said}` },
      html("img", { src: picture("thumbs", image), alt: "", loading: "lazy" }), html("bdi", {}, said));
  });
  $("recent").replaceChildren(...buttons);
  $("history").hidden = !buttons.length;
}
