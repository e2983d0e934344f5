// Colours of points: a qualitative palette (Okabe and Ito, then distant hues), and a sequential scale.

const SAFE = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#7b5fb0"];
const MOST = 12; // entries of a legend
const SURE = [86, 130, 190], UNSURE = [240, 120, 30];

const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });

// Return a colour in the memory layout of a canvas's pixels.
export function packed(colour) {
  canvas.fillStyle = colour.trim();
  canvas.fillRect(0, 0, 1, 1);
  return new Uint32Array(canvas.getImageData(0, 0, 1, 1).data.buffer)[0];
}

const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
const none = () => (isDark() ? "#59636b" : "#b3bbc1");
export const NONE = () => packed(none());

const ofClass = (place) => SAFE[place] ?? `hsl(${(place * 137.5) % 360} 65% ${isDark() ? 65 : 42}%)`;
const mixed = (share) => `rgb(${SURE.map((low, i) => Math.round(low + (UNSURE[i] - low) * share)).join(" ")})`;

// Return the colour of each value, and legend entries (text, colour, number of points).
export function colours(by, values, names) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  const known = [...counts.keys()].filter((value) => value >= 0).sort((a, b) => a - b);
  const rest = counts.has(-1) ? [["none", none(), counts.get(-1)]] : [];
  if (by === "unsure") {
    const list = new Map(known.map((value) => [value, packed(mixed(value / 100))]));
    return { list, legend: known.length ? [["sure", mixed(0)], ["unsure", mixed(1)], ...rest] : rest };
  }
  const name = typeof names === "function" ? names : (value) => names[value];
  const entries = known.map((value, place) => [name(value), ofClass(place), counts.get(value)]);
  const more = entries.length > MOST ? [[`and ${entries.length - MOST} more`, "transparent"]] : [];
  return { list: new Map(known.map((value, place) => [value, packed(ofClass(place))])), legend: [...entries.slice(0, MOST), ...more, ...rest] };
}
