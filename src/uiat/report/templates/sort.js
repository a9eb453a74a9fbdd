"use strict";
document.querySelectorAll("table.sortable").forEach(table => {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const key = (row, i) => row.cells[i].dataset.sort;
  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.title = "Sort by " + head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      // Numbers first from the largest, text first from A.
      const numeric = [...body.rows].every(row => key(row, i) !== "" && isFinite(key(row, i)));
      const before = head.getAttribute("aria-sort");
      const up = before ? before === "descending" : !numeric;
      const rows = [...body.rows].sort((a, b) => {
        const [p, q] = [key(a, i), key(b, i)];
        return (up ? 1 : -1) * (numeric ? p - q : p.localeCompare(q, undefined, { numeric: true }));
      });
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...rows);
    });
  });
});
