"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data-json").textContent);

  const make = (tag, text, parent) => {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  };

  const shot = (row, parent) => {
    const known = data.rows[row];
    const figure = make("figure", "", parent);
    if (known) figure.title = known[0];
    if (!known) {
      make("figcaption", "row " + row, figure);
      return figure;
    }
    const [path, label, source] = known;
    if (source) {
      const image = make("img", "", figure);
      image.src = source;
      image.alt = (label || "no label") + ": " + path;
    } else {
      make("div", "no picture", figure).className = "gone";
    }
    const caption = make("figcaption", "", figure);
    make("bdi", label, make("b", "", caption));
    make("bdi", path, make("small", "", caption));
    return figure;
  };

  // A field of a confusion matrix shows its pictures below the matrix; once more, it hides them.
  const open = (button, cell) => {
    const place = document.getElementById(button.getAttribute("aria-controls"));
    const again = button.getAttribute("aria-expanded") === "true";
    for (const other of place.parentElement.querySelectorAll("button[aria-expanded]")) {
      other.setAttribute("aria-expanded", "false");
    }
    place.replaceChildren();
    place.hidden = again;
    if (again) return;
    button.setAttribute("aria-expanded", "true");
    const [label, answer, count, rows] = cell;
    const few = rows.length < count ? ", " + rows.length + " of them here" : "";
    make("h4", count + " labelled " + label + ", answered " + answer + few, place);
    const crowd = make("div", "", place);
    crowd.className = "crowd";
    for (const row of rows) shot(row, crowd);
    place.scrollIntoView({ block: "nearest" });
  };
  for (const button of document.querySelectorAll("button[data-cell]")) {
    const [n, i, j] = button.dataset.cell.split(",").map(Number);
    button.addEventListener("click", () => open(button, data.cells[n][i][j]));
  }
  for (const button of document.querySelectorAll("button[data-pair]")) {
    const [n, k] = button.dataset.pair.split(",").map(Number);
    button.addEventListener("click", () => open(button, data.pairs[n][k]));
  }

  // A map: the point under the pointer, or the one that arrow keys went to, shows its picture.
  for (const map of document.querySelectorAll(".map")) {
    const key = map.dataset.map;
    const spot = map.querySelector(".spot");
    const points = [];
    data.points[key].forEach((rows, group) => {
      const drawn = map.querySelectorAll("#" + key + "-points-" + group + " use");
      drawn.forEach((use, place) => points.push({ use, row: rows[place] }));
    });
    let here = null;
    const show = (point) => {
      if (here) here.use.classList.remove("here");
      here = point;
      spot.hidden = !point;
      if (!point) return;
      point.use.classList.add("here");
      spot.classList.toggle("left", x(point) > 180);
      spot.replaceChildren();
      shot(point.row, spot);
    };
    const x = (point) => Number(point.use.getAttribute("x"));
    const y = (point) => Number(point.use.getAttribute("y"));
    for (const point of points) {
      point.use.addEventListener("pointerenter", () => show(point));
      point.use.addEventListener("click", () => show(point));
    }
    map.addEventListener("pointerleave", () => show(null));
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    map.addEventListener("keydown", (event) => {
      if (event.key === "Escape") show(null);
      const way = ways[event.key];
      if (!way || !points.length) return;
      event.preventDefault();
      if (!here) return show(points[0]);
      let best = null;
      let least = Infinity;
      for (const point of points) {
        const [dx, dy] = [x(point) - x(here), y(point) - y(here)];
        const ahead = dx * way[0] + dy * way[1];
        const aside = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
        if (point !== here && ahead > 0.01 && ahead + 2 * aside < least) {
          [best, least] = [point, ahead + 2 * aside];
        }
      }
      if (best) show(best);
    });
  }

  // On paper everything is open.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details.matrix:not([open])")];
    for (const details of closed) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of closed) details.open = false;
  });
})();
