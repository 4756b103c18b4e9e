const figure = cell => cell.dataset.order === undefined ? NaN : Number(cell.dataset.order);
const compare = (a, b, up) => {
  const [x, y] = [figure(a), figure(b)];
  if (isNaN(x) && isNaN(y)) return up * a.textContent.localeCompare(b.textContent, undefined, {numeric: true});
  return isNaN(x) ? 1 : isNaN(y) ? -1 : up * (x - y);  // what has no figure comes last either way
};
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.parentElement, place = head.cellIndex, body = head.closest("table").tBodies[0];
  const up = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up > 0 ? "ascending" : "descending");
  body.append(...[...body.rows].sort((a, b) => compare(a.cells[place], b.cells[place], up)));
});
for (const field of document.querySelectorAll("input.filter")) field.addEventListener("input", () => {
  const words = field.value.toLowerCase().split(/\s+/);
  for (const row of field.closest(".table").querySelectorAll("tbody tr"))
    row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
});
