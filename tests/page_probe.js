"use strict";
// Put at the head of a page: uses its controls as a person would, and tells the page around it what it saw.
(() => {
  const faults = [];
  addEventListener("error", (event) => faults.push(event.message || `not loaded: ${event.target.tagName}`), true);
  addEventListener("unhandledrejection", (event) => faults.push(String(event.reason)));
  document.addEventListener("securitypolicyviolation", (event) => faults.push(`against the policy: ${event.blockedURI}`));
  console.error = console.warn = (...words) => faults.push(words.join(" "));

  const all = (what) => [...document.querySelectorAll(what)];
  const one = (what) => document.querySelector(what);
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const colours = (canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size;
  };
  const seen = () => ({
    time: Number(one(".controls input").value),
    words: one("output").textContent,
    button: one(".play").textContent,
    colours: all("canvas").map(colours),
    shown: all(".film").map((film) => getComputedStyle(film).display !== "none"),
    marked: all(".film:not(.aside) .now").length,
  });
  const move = (time) => {
    one(".controls input").value = time;
    one(".controls input").dispatchEvent(new Event("input", { bubbles: true }));
    return seen();
  };

  addEventListener("load", async () => {
    await pause(100);
    const first = seen();
    await pause(1500);
    const later = seen();
    const start = move(0);
    const end = move(Number(one(".controls input").max));
    await pause(1000);
    const rested = seen();
    all(".choice input")[1].click();
    const second = seen();
    one(".play").click();
    await pause(900); // one frame takes 600 ms
    const playing = seen();
    one(".play").click();
    parent.postMessage({
      name: document.title,
      faults,
      pictures: all("img").length,
      broken: all("img").filter((image) => !image.complete || !image.naturalWidth).length,
      charts: all("svg.chart").map((chart) => chart.getBoundingClientRect().width),
      width: innerWidth,
      needs: document.documentElement.scrollWidth,
      paper: getComputedStyle(document.body).backgroundColor,
      ink: getComputedStyle(document.body).color,
      player: getComputedStyle(one(".player")).display,
      panels: all("canvas").map((canvas) => canvas.getBoundingClientRect().toJSON()),
      focusable: all("a, button, input, summary, [tabindex]").filter((element) => element.tabIndex < 0).length,
      first, later, start, end, rested, second, playing, stopped: seen(),
    }, "*");
  });
})();
