// Sorting, filtering, copying. Without it every row shows and nothing is lost.
"use strict";

(() => {
  // Sorting: every column, within each body of rows; what is missing comes last either way.
  const collator = new Intl.Collator("en", { numeric: true });

  function compare(kind) {
    return kind === "number"
      ? (one, other) => Number(one) - Number(other)
      : (one, other) => collator.compare(one, other);
  }

  function sort(table, heading, place) {
    const falling = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const order = compare(heading.dataset.kind);
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => row.cells.length > 1);
      const keys = new Map(rows.map((row) => [row, row.cells[place].dataset.sort]));
      rows.sort((a, b) => {
        const [one, other] = [keys.get(a), keys.get(b)];
        if (!one || !other) return (one ? 0 : 1) - (other ? 0 : 1);
        return (falling ? -1 : 1) * order(one, other);
      });
      body.append(...rows);
    }
  }

  for (const table of document.querySelectorAll("table.board")) {
    [...table.tHead.rows[0].cells].forEach((heading, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => sort(table, heading, place));
    });
  }

  // Filtering.
  const filters = document.getElementById("filters");
  if (filters) {
    const form = filters.querySelector("form");
    const fields = Object.fromEntries(
      [...form.querySelectorAll("[data-filter]")].map((field) => [field.dataset.filter, field]),
    );

    function wanted(row) {
      const words = fields.text.value.toLowerCase().split(/\s+/).filter(Boolean);
      const { device, grade, text } = row.dataset;
      return (
        words.every((word) => text.includes(word)) &&
        (!fields.device.value || device === fields.device.value) &&
        (!fields.grade.value || fields.grade.value.split(" ").includes(grade)) &&
        (fields.controls.checked || !row.parentElement.classList.contains("controls"))
      );
    }

    function apply() {
      let shown = 0;
      let all = 0;
      for (const section of document.querySelectorAll("section.data")) {
        const here = !fields.data.value || section.dataset.data === fields.data.value;
        let inSection = 0;
        for (const grid of section.querySelectorAll(".grid")) {
          let inGrid = 0;
          for (const body of grid.querySelectorAll("tbody")) {
            let inBody = 0;
            for (const row of body.querySelectorAll("tr[data-grade]")) {
              const model = row.dataset.model ?? grid.dataset.model;
              const met = !fields.model.value || model === fields.model.value;
              row.hidden = !(here && met && wanted(row));
              inBody += row.hidden ? 0 : 1;
              all += 1;
            }
            body.hidden = !inBody;
            inGrid += inBody;
          }
          grid.hidden = !inGrid;
          inSection += inGrid;
        }
        section.hidden = !inSection;
        shown += inSection;
      }
      document.getElementById("shown").textContent =
        shown === all ? `All ${all} rows are shown. A heading sorts its table.` : `${shown} of ${all} rows are shown.`;
      document.getElementById("nothing").hidden = shown > 0;
    }

    filters.hidden = false;
    const wide = matchMedia("(min-width: 40.01rem)"); // where there is room, they are open
    const unfold = () => (filters.open = wide.matches);
    wide.addEventListener("change", unfold);
    unfold();
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(apply));
    addEventListener("pageshow", apply); // a browser may bring back what was chosen before
  }

  // Copying a command.
  for (const box of document.querySelectorAll(".command")) {
    const text = box.querySelector("pre");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy the command");
    const said = document.createElement("span");
    said.className = "unseen";
    said.setAttribute("role", "status");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
        said.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text); // no clipboard here: Ctrl+C does the rest
        button.textContent = "Selected";
        said.textContent = "Selected; copy with Ctrl+C";
      }
    });
    box.append(button, said);
  }
})();
