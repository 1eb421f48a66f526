// What ipywidgets leave undone, for the explorer that this stands in: keys stay inside it, every control has a name.
const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

function set(node, name, value) {
  if (node && value && node.getAttribute(name) !== value) node.setAttribute(name, value); // or the observer never rests
}

// Arrow keys, Home and End move a row of toggle buttons as they move radio buttons.
function move(event) {
  const row = event.target.closest?.(".widget-toggle-buttons");
  const buttons = row ? [...row.querySelectorAll("button:not([disabled])")] : [];
  const here = buttons.indexOf(event.target);
  if (here < 0) return;
  const last = buttons.length - 1;
  const to = event.key === "Home" ? 0 : event.key === "End" ? last : here + (STEPS[event.key] ?? NaN);
  if (!(to >= 0 && to <= last)) return;
  event.preventDefault();
  buttons[to].focus();
  buttons[to].click();
}

function copy(event) {
  if (!event.target.closest?.(".ttq-copy")) return;
  const text = event.target.closest(".ttq-take").querySelector("textarea");
  text.select();
  navigator.clipboard?.writeText(text.value).catch(() => {}); // refused: what is selected can be copied by hand
}

function name(root) {
  const label = (node) => node.querySelector(".widget-label")?.innerText.trim();
  for (const one of root.querySelectorAll(".widget-hslider")) {
    set(one.querySelector("[role=slider]"), "aria-label", label(one));
    const readout = one.querySelector(".widget-readout");
    set(one.querySelector("[role=slider]"), "aria-valuetext", readout?.innerText.trim());
    if (readout && readout.getAttribute("contenteditable") === "true") {
      set(readout, "role", "textbox");
      set(readout, "aria-label", `${label(one)}, as a number`);
    }
  }
  for (const one of root.querySelectorAll(".widget-toggle-buttons")) {
    const box = one.querySelector(".widget-toggle-button")?.parentElement ?? one;
    set(box, "role", "group");
    set(box, "aria-label", label(one));
    for (const button of one.querySelectorAll("button")) {
      set(button, "aria-pressed", String(button.classList.contains("mod-active")));
    }
  }
  for (const one of root.querySelectorAll(".widget-text, .widget-textarea, .widget-upload")) {
    set(one.querySelector("input, textarea"), "aria-label", label(one));
  }
  const readout = root.querySelector(".ttq-readout");
  set(readout, "role", "status");
  for (const one of root.querySelectorAll("img")) {
    set(one, "alt", `A picture; in words: ${(readout?.innerText ?? "").trim() || "it is being drawn"}`);
  }
}

function dress(root) {
  root.setAttribute("data-lm-suppress-shortcuts", "true"); // else JupyterLab takes arrow keys for moves between cells
  root.addEventListener("keydown", move);
  root.addEventListener("click", copy);
  const changes = new MutationObserver(() => name(root));
  changes.observe(root, { subtree: true, childList: true, characterData: true, attributeFilter: ["class", "src"] });
  name(root);
  return () => changes.disconnect();
}

function render({ el }) {
  let undress, waiting;
  const look = () => {
    const root = el.closest(".ttq-explorer");
    if (root) undress = dress(root);
    else waiting = requestAnimationFrame(look); // it is put into the page a moment after it is made
  };
  look();
  return () => {
    cancelAnimationFrame(waiting);
    undress?.();
  };
}

export default { render };
