"use strict";
(() => {
  const root = document.documentElement, button = document.getElementById("theme");
  const kept = () => { try { return localStorage.getItem("cellseg-theme"); } catch { return null; } };
  const keep = (name) => { try { localStorage.setItem("cellseg-theme", name); } catch { /* a page of a file may keep nothing */ } };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const paint = (name) => {
    root.dataset.theme = name;
    button.textContent = name === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", `Show in ${name === "dark" ? "light" : "dark"} colours`);
  };
  paint(kept() || (system.matches ? "dark" : "light"));
  system.addEventListener("change", () => { if (!kept()) paint(system.matches ? "dark" : "light"); });
  button.addEventListener("click", () => { const next = root.dataset.theme === "dark" ? "light" : "dark"; keep(next); paint(next); });

  for (const input of document.querySelectorAll(".views input"))
    input.addEventListener("change", () => { input.closest("[data-view]").dataset.view = input.value; });

  const dialog = document.getElementById("large");
  for (const stack of document.querySelectorAll("button.stack"))
    stack.addEventListener("click", () => {
      const copy = stack.cloneNode(true);
      copy.addEventListener("click", () => dialog.close());
      dialog.dataset.view = stack.closest("[data-view]").dataset.view;
      dialog.replaceChildren(copy);
      dialog.showModal();
    });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    const value = (row, i) => { const cell = row.cells[i]; return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v); };
    heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sign = down ? -1 : 1;
      const rows = [...body.rows].sort((a, b) => {
        const x = value(a, i), y = value(b, i);
        return sign * (typeof x === "number" ? x - y : x.localeCompare(y, undefined, { numeric: true }));
      });
      body.append(...rows);
    }));
    const holder = table.closest("[data-filtered]");
    if (!holder) continue;
    const text = holder.querySelector("input"), level = holder.querySelector("select"), count = holder.querySelector("output");
    const apply = () => {
      const wanted = text.value.toLowerCase(); let n = 0;
      for (const row of body.rows) {
        const shown = row.textContent.toLowerCase().includes(wanted) && (!level.value || row.dataset.level === level.value);
        row.hidden = !shown; n += shown;
      }
      count.textContent = `${n} of ${body.rows.length}`;
    };
    text.addEventListener("input", apply); level.addEventListener("change", apply); apply();
  }
})();
