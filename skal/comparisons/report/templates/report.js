"use strict";
(() => {
  const plots = [...document.querySelectorAll("script[data-plot]")].map((script) => ({
    place: document.getElementById(script.dataset.plot),
    ...JSON.parse(script.textContent),
  }));

  // the page's colours, which differ between light mode, dark mode and print
  const colors = () => {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    const axis = (name) => ({ [`${name}.gridcolor`]: of("--line"), [`${name}.linecolor`]: of("--faint") });
    return {
      "font.color": of("--text"),
      "modebar.color": of("--faint"),
      "modebar.activecolor": of("--text"),
      "hoverlabel.bgcolor": of("--panel"),
      "hoverlabel.font.color": of("--text"),
      ...axis("xaxis"),
      ...axis("yaxis"),
    };
  };
  const relayout = (changes) => plots.forEach(({ place }) => Plotly.relayout(place, changes));
  const settings = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  for (const { place, data, layout } of plots) {
    Plotly.newPlot(place, data, layout, settings);
  }
  relayout(colors());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => relayout(colors()));
  matchMedia("print").addEventListener("change", (event) => {
    // fit the paper width
    relayout({ ...colors(), width: event.matches ? 640 : undefined, autosize: !event.matches });
  });
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });

  document.getElementById("seed")?.addEventListener("change", (event) => {
    for (const part of document.querySelectorAll("[data-seed]")) {
      part.hidden = part.dataset.seed !== event.target.value;
    }
  });
})();
