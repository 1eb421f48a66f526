// Dots of measured plans over their bytes, and a table of the same plans. Every dot and every row can be reached by
// mouse and by keyboard, says what it is, and opens its plan.
const NS = "http://www.w3.org/2000/svg";
const HEIGHT = 340, LEFT = 62, RIGHT = 14, TOP = 16, BOTTOM = 48;
const MARKS = { measured: circle, interpolated: diamond, predicted: triangle };

function make(tag, attributes = {}, parent = null, text = null) {
  const node = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== null) node.textContent = text;
  parent?.appendChild(node);
  return node;
}

function html(tag, attributes = {}, parent = null, text = null) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== null) node.textContent = text;
  parent?.appendChild(node);
  return node;
}

function circle(x, y, size) {
  return make("circle", { cx: x, cy: y, r: size });
}

function diamond(x, y, size) {
  const s = size * 1.25;
  return make("path", { d: `M${x} ${y - s}L${x + s} ${y}L${x} ${y + s}L${x - s} ${y}Z` });
}

function triangle(x, y, size) {
  const s = size * 1.2;
  return make("path", { d: `M${x} ${y - s}L${x + s} ${y + s * 0.8}L${x - s} ${y + s * 0.8}Z` });
}

function bytes(value) {
  return value >= 1e6 ? `${+(value / 1e6).toPrecision(3)} MB` : `${+(value / 1e3).toPrecision(3)} kB`;
}

// Where numbers stand: bytes by their logarithm, percent linearly from 12 points under the dense model; what is worse
// stands on the lower edge.
function scales(model, width) {
  const here = model.get("here"), beside = model.get("beside"), dense = model.get("goal").dense;
  const sizes = [...model.get("points").map((point) => point.x), here.x, beside.x].filter(Boolean).map(Math.log10);
  const [low, high] = [Math.min(...sizes) - 0.08, Math.max(...sizes) + 0.08];
  const best = Math.max(dense, ...model.get("points").map((point) => point.y)) + 0.8;
  const worst = dense - 12;
  return {
    x: (value) => LEFT + ((Math.log10(value) - low) / (high - low)) * (width - LEFT - RIGHT),
    y: (value) => TOP + ((best - Math.max(value, worst)) / (best - worst)) * (HEIGHT - TOP - BOTTOM),
    low, high, best, worst,
  };
}

function axes(svg, model, at, width) {
  const paper = make("g", { class: "ttq-axes", "aria-hidden": "true" }, svg);
  for (let power = Math.floor(at.low); power <= at.high; power++) {
    for (const digit of width > 560 ? [1, 2, 5] : [1, 3]) {
      const value = digit * 10 ** power, x = at.x(value);
      if (Math.log10(value) < at.low || Math.log10(value) > at.high) continue;
      make("line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }, paper);
      make("text", { x, y: HEIGHT - BOTTOM + 17, "text-anchor": "middle" }, paper, bytes(value));
    }
  }
  for (let value = Math.ceil(at.worst); value <= at.best; value += 2) {
    make("line", { x1: LEFT, x2: width - RIGHT, y1: at.y(value), y2: at.y(value) }, paper);
    make("text", { x: LEFT - 6, y: at.y(value) + 4, "text-anchor": "end" }, paper, value);
  }
  make("text", { x: (LEFT + width) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, paper, "bytes on disk");
  const middle = (TOP + HEIGHT - BOTTOM) / 2;
  make("text", { transform: `translate(16 ${middle}) rotate(-90)`, "text-anchor": "middle" }, paper,
    `${model.get("name")}, %`);
  const dense = model.get("goal").dense;
  for (const [points, label] of [[0, "dense"], [1, "1 point less"]]) {
    const y = at.y(dense - points);
    make("line", { x1: LEFT, x2: width - RIGHT, y1: y, y2: y, class: "ttq-goal" }, paper);
    make("text", { x: LEFT + 4, y: y - 3 }, paper, label);
  }
}

function plan(svg, model, at, width, which, label) {
  const place = model.get(which);
  if (!place.x) return;
  const x = at.x(place.x), group = make("g", { class: `ttq-${which}`, "aria-hidden": "true" }, svg);
  make("line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }, group);
  const left = x > width - 90; // no room on the right
  make("text", { x: left ? x - 4 : x + 4, y: HEIGHT - BOTTOM - (which === "here" ? 22 : 8),
    "text-anchor": left ? "end" : "start" }, group, label);
  if (place.y === null || place.y === undefined) return;
  const y = at.y(place.y);
  if (place.error) {
    make("line", { x1: x, x2: x, y1: at.y(place.y + place.error), y2: at.y(place.y - place.error), class: "ttq-error" },
      group);
  }
  if (MARKS[place.mark]) group.appendChild(MARKS[place.mark](x, y, place.mark === "measured" ? 11 : 8));
}

function render({ model, el }) {
  const root = html("div", { class: "ttq-picture" }, el);
  const frame = html("div", { class: "ttq-frame" }, root);
  const told = html("div", { class: "ttq-told", role: "status" }, root);
  const scroll = html("div", { class: "ttq-scroll", tabindex: "0", role: "region", "aria-label": "measured plans" }, root);
  let sorted = { column: 0, up: true }, at = 0;

  const open = (number) => {
    at = number;
    model.set("clicked", [number, model.get("clicked")[1] + 1]);
    model.save_changes();
  };
  const tell = (number) => {
    told.textContent = number === null ? "Point at a dot, or step through the dots with the arrow keys: this line says " +
      "what it is. A click or Enter opens its plan." : model.get("points")[number].told;
  };

  function dots(svg, scale) {
    const group = make("g", { role: "group", "aria-label": "measured plans, by size" }, svg);
    const order = model.get("points").map((_, number) => number);
    at = Math.min(at, order.length - 1);
    const made = order.map((number) => {
      const point = model.get("points")[number];
      const dot = make("circle", {
        cx: scale.x(point.x), cy: scale.y(point.y), r: 6, role: "button", "aria-label": point.told,
        class: point.trial ? "ttq-trial" : "ttq-measured", tabindex: number === at ? "0" : "-1",
      }, group);
      make("title", {}, dot, point.told);
      dot.addEventListener("mouseenter", () => tell(number));
      dot.addEventListener("focus", () => { tell(number); at = number; });
      dot.addEventListener("click", () => open(number));
      dot.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(number); return; }
        const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
        const to = event.key === "Home" ? 0 : event.key === "End" ? order.length - 1 : number + (step ?? NaN);
        if (!made[to]) return;
        event.preventDefault();
        dot.setAttribute("tabindex", "-1");
        made[to].setAttribute("tabindex", "0");
        made[to].focus();
      });
      return dot;
    });
    return made;
  }

  function draw() {
    const focused = frame.contains(document.activeElement);
    frame.replaceChildren();
    const points = model.get("points");
    root.style.display = points.length ? "" : "none";
    if (!points.length) return;
    const width = Math.max(300, Math.min(900, el.clientWidth || 640));
    const svg = make("svg", { width, height: HEIGHT, role: "group", "aria-label": `${model.get("name")} over bytes` }, frame);
    const scale = scales(model, width);
    axes(svg, model, scale, width);
    plan(svg, model, scale, width, "beside", "put beside");
    plan(svg, model, scale, width, "here", "this plan");
    const made = dots(svg, scale);
    if (focused) made[at]?.focus();
  }

  function table() {
    const focused = document.activeElement?.closest?.("[data-key]")?.dataset.key;
    scroll.replaceChildren();
    const points = model.get("points"), here = html("table", { class: "ttq-table" }, scroll);
    const head = html("tr", {}, html("thead", {}, here));
    html("td", {}, head);
    model.get("columns").forEach((label, column) => {
      const cell = html("th", { scope: "col" }, head);
      if (sorted.column === column) cell.setAttribute("aria-sort", sorted.up ? "ascending" : "descending");
      const sign = sorted.column === column ? (sorted.up ? " ▲" : " ▼") : "";
      const button = html("button", { type: "button", "data-key": `sort ${column}` }, cell, label + sign);
      button.addEventListener("click", () => {
        sorted = { column, up: sorted.column === column ? !sorted.up : true };
        table();
      });
    });
    const body = html("tbody", {}, here), by = (number) => points[number].keys[sorted.column];
    const order = points.map((_, number) => number);
    order.sort((one, other) => ((by(one) > by(other)) - (by(one) < by(other))) * (sorted.up ? 1 : -1));
    for (const number of order) {
      const line = html("tr", {}, body), cell = html("td", {}, line);
      const button = html("button", { type: "button", "data-key": `open ${number}` }, cell, "open");
      button.setAttribute("aria-label", `open ${points[number].told}`);
      button.addEventListener("click", () => open(number));
      points[number].cells.forEach((text) => html("td", {}, line, text));
      line.addEventListener("mouseenter", () => tell(number));
    }
    if (focused) scroll.querySelector(`[data-key="${focused}"]`)?.focus();
  }

  const both = () => { draw(); table(); };
  let width = 0;
  const room = new ResizeObserver(() => {
    if (Math.abs(el.clientWidth - width) > 4) { width = el.clientWidth; draw(); } // a scroll bar changes it a little
  });
  room.observe(el);
  model.on("change:points change:columns", both);
  model.on("change:here change:beside change:goal", draw);
  tell(null);
  both();
  return () => room.disconnect();
}

export default { render };
