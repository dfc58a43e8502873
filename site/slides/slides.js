// Shows one slide at a time, scaled to the window; without it the slides stand below each other.
"use strict";
const slides = [...document.querySelectorAll(".slide")];
const root = document.documentElement;
const isSpeaker = location.search === "?speaker";
let current = 0;
let peer = isSpeaker ? window.opener : null;
root.classList.add("shown");
root.classList.toggle("speaker", isSpeaker);

function fit() {
  const room = document.querySelector("main").getBoundingClientRect();
  const height = isSpeaker ? 720 / 0.62 : 720;
  const scale = Math.min(room.width / 1280, room.height / height);
  for (const slide of slides) {
    const left = (room.width - 1280 * scale) / 2;
    const top = isSpeaker ? 0 : (room.height - 720 * scale) / 2;
    slide.style.transform = `translate(${left}px, ${top}px) scale(${scale})`;
  }
}

function show(number, tell = true) {
  current = Math.min(Math.max(number, 0), slides.length - 1);
  slides.forEach((slide, i) => slide.classList.toggle("current", i === current));
  history.replaceState(null, "", `#${current + 1}`);
  if (tell && peer) peer.postMessage({ slide: current }, "*");
}

const fromAddress = () => (parseInt(location.hash.slice(1), 10) || 1) - 1;
const actions = {
  next: () => show(current + 1),
  previous: () => show(current - 1),
  notes: () => root.classList.toggle("with-notes"),
  speaker: () => {
    peer = window.open(`${location.pathname}?speaker#${current + 1}`, "speaker", "width=1000,height=840");
  },
  full: () => (document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen()),
  first: () => show(0),
  last: () => show(slides.length - 1),
};
const keys = {
  ArrowRight: "next", ArrowDown: "next", PageDown: "next", " ": "next",
  ArrowLeft: "previous", ArrowUp: "previous", PageUp: "previous", Backspace: "previous",
  Home: "first", End: "last", n: "notes", s: "speaker", f: "full",
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const onControl = /^(BUTTON|A)$/.test(event.target.tagName) && event.key === " ";
  const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action || onControl) return;
  event.preventDefault();
  actions[action]();
});
for (const name of ["previous", "next", "notes", "speaker"]) {
  document.getElementById(name).addEventListener("click", () => actions[name]());
}
let touched = null;
addEventListener("touchstart", (event) => { touched = event.changedTouches[0].clientX; });
addEventListener("touchend", (event) => {
  const moved = event.changedTouches[0].clientX - touched;
  if (Math.abs(moved) > 60) (moved < 0 ? actions.next : actions.previous)();
});
addEventListener("message", (event) => {
  if (peer && event.source === peer && Number.isInteger(event.data.slide)) {
    show(event.data.slide, false);
  }
});
addEventListener("resize", fit);
addEventListener("hashchange", () => show(fromAddress()));
document.addEventListener("fullscreenchange", () => {
  root.classList.toggle("full", Boolean(document.fullscreenElement));
  fit();
});
if (isSpeaker) {
  const clock = document.createElement("span");
  clock.className = "clock";
  document.querySelector("nav").append(clock);
  const began = Date.now();
  setInterval(() => {
    const seconds = Math.floor((Date.now() - began) / 1000);
    clock.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }, 1000);
}

// Called when all formulas are set. A slide that holds more than fits is marked, for the tests.
window.slidesReady = () => {
  for (const slide of slides) {
    const sheet = slide.querySelector(".sheet");
    const text = slide.querySelector(".text");
    const figure = slide.querySelector("figure");
    const low = figure && !slide.classList.contains("side") && figure.clientHeight < 150;
    const bottom = text.offsetTop + text.scrollHeight > sheet.clientHeight + 2;
    if (low || bottom || text.scrollWidth > text.clientWidth + 2 && !slide.classList.contains("side")) {
      slide.dataset.overflow = "true";
    }
  }
  root.dataset.ready = "true";
};
fit();
show(fromAddress(), false);
