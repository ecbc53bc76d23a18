// The slider, live. Everything else works without JavaScript: the threshold is a field of the filter's form.
"use strict";
const slider = document.getElementById("threshold");
const cut = document.getElementById("cut");

function show() {
  const step = Number(slider.value);
  const texts = JSON.parse(slider.dataset.steps);
  for (const place of document.querySelectorAll("[data-step]")) {
    const name = place.dataset.step;
    place.textContent = name === "threshold" ? `${step}%` : texts[name][step];
  }
  slider.setAttribute("aria-valuetext", `${step}%`);
  if (cut) {
    const rows = [...document.querySelectorAll("tr[data-probability]")];
    const below = rows.find((row) => 100 * Number(row.dataset.probability) < step);
    cut.hidden = !below;
    if (below) below.before(cut);
  }
}

function keep() {
  for (const link of document.querySelectorAll("a[data-query]")) {
    const url = new URL(link.href);
    url.searchParams.set("threshold", slider.value);
    link.href = url.pathname + url.search;
  }
  for (const field of document.querySelectorAll("input[name=back]")) {
    const query = new URLSearchParams(field.value);
    query.set("threshold", slider.value);
    field.value = query.toString();
  }
}

slider.addEventListener("input", show);
slider.addEventListener("change", keep);
