// Two pictures: side by side, one after the other, a line between them, or their difference.

const MODES = { two: "Side by side", blink: "Blink", swipe: "Swipe", difference: "Difference" };
let comparing = null;

/** The first of two to be compared is pinned, the second opens the comparison. */
function pin(item) {
  if (!item || item.kind !== "image") { toast("Only pictures can be compared."); return; }
  const first = view.pinned && itemsById.get(view.pinned);
  if (first && first !== item) { view.pinned = null; openCompare(first, item); }
  else if (first) { view.pinned = null; toast("Not pinned any more."); }
  else { view.pinned = item.id; toast("Pinned as A. Go to another and press c."); }
  pool.allMarks();
}

function openCompare(a, b) {
  closeViewer();
  closeCompare();
  const layers = [h("div.layer.a", {}, h("img", { alt: "A", draggable: false })), h("div.layer.b", {}, h("img", { alt: "B", draggable: false }))];
  const handle = h("div.handle", { role: "slider", tabIndex: 0, "aria-label": "Line between A and B", "aria-valuemin": 0, "aria-valuemax": 100 });
  const host = h("div.stage", {}, ...layers, handle, h("span.tag.a", { textContent: "A" }), h("span.tag.b", { textContent: "B" }));
  const bar = h("header.bar");
  const side = h("div.side");
  const dialog = h("dialog.compare.detailed", { "aria-label": "Compare" }, bar, h("div.body", {}, host, side));
  comparing = { dialog, a, b, layers, host, bar, side, handle, stage: new Stage(host, layers), line: 50, gain: 4, blinking: 0 };
  handle.addEventListener("pointerdown", (event) => {
    handle.setPointerCapture(event.pointerId);
    handle.onpointermove = (moved) => { const box = host.getBoundingClientRect(); setLine(((moved.clientX - box.left) / box.width) * 100); };
    handle.onpointerup = () => { handle.onpointermove = null; };
  });
  dialog.addEventListener("cancel", closeCompare);
  document.body.append(dialog);
  dialog.showModal();
  setMode(settings.compare in MODES ? settings.compare : "two");
  setLine(50);
}

function closeCompare() {
  if (!comparing) return;
  const { dialog, blinking, stage } = comparing;
  comparing = null;
  clearInterval(blinking);
  leave(dialog, stage);
}

function setLine(percent) {
  comparing.line = Math.min(100, Math.max(0, percent));
  comparing.handle.style.left = `${comparing.line}%`;
  comparing.handle.setAttribute("aria-valuenow", Math.round(comparing.line));
  comparing.layers[1].style.clipPath = comparing.host.dataset.mode === "swipe" ? `inset(0 0 0 ${comparing.line}%)` : "";
}

function setMode(mode) {
  settings.compare = mode;
  keepSettings();
  comparing.host.dataset.mode = mode;
  clearInterval(comparing.blinking);
  comparing.blinking = 0;
  comparing.host.classList.remove("showing-b");
  setLine(comparing.line);
  drawCompare();
}

function drawCompare() {
  const { a, b, layers, bar, side, host } = comparing;
  showFull(layers[0].firstChild, a);
  showFull(layers[1].firstChild, b);
  comparing.stage.apply();
  const { mode } = host.dataset;
  const tools = [];
  if (mode === "blink") {
    tools.push(h("button.plain", { type: "button", textContent: comparing.blinking ? "Stop" : "Alternate", onclick: alternate }), h("span.hint", { textContent: "hold b for B" }));
  }
  if (mode === "difference") {
    tools.push(h("label.field", {}, h("span", {}, "Brighter"), h("input", { type: "range", min: 1, max: 16, value: comparing.gain, "aria-label": "Brighter", oninput: (event) => { comparing.gain = Number(event.target.value); brighten(); } })));
  }
  brighten();
  bar.replaceChildren(
    h("span.segments", { role: "group", "aria-label": "How" }, ...Object.entries(MODES).map(([each, label]) => h("button", { type: "button", id: `mode-${each}`, textContent: label, "aria-pressed": each === mode, onclick: () => setMode(each) }))),
    ...tools, h("span.grow"), h("span.tag.a", { textContent: "A" }), starButtons(a), h("span.tag.b", { textContent: "B" }), starButtons(b),
    button("Exchange A and B (s)", "swap", exchange), button("Close (Esc)", "close", closeCompare));
  side.replaceChildren(differences(a, b));
}

const brighten = () => { comparing.host.style.filter = comparing.host.dataset.mode === "difference" ? `brightness(${comparing.gain})` : ""; };

function exchange() {
  [comparing.a, comparing.b] = [comparing.b, comparing.a];
  drawCompare();
}

function alternate() {
  if (comparing.blinking) { clearInterval(comparing.blinking); comparing.blinking = 0; comparing.host.classList.remove("showing-b"); }
  else comparing.blinking = setInterval(() => comparing.host.classList.toggle("showing-b"), 600);
  drawCompare();
}

/** Runs of words with what they are: only in A, only in B, or in both. */
function wordDifference(a, b) {
  const [p, q] = [a.match(/\S+/g) || [], b.match(/\S+/g) || []];
  if (p.length * q.length > 1e6) return [["only-a", a], ["only-b", b]];
  const common = Array.from({ length: p.length + 1 }, () => new Uint16Array(q.length + 1));
  for (let i = p.length - 1; i >= 0; i--) {
    for (let j = q.length - 1; j >= 0; j--) common[i][j] = p[i] === q[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
  }
  const runs = [];
  const add = (kind, word) => { const last = runs[runs.length - 1]; if (last && last[0] === kind) last[1] += ` ${word}`; else runs.push([kind, word]); };
  let [i, j] = [0, 0];
  while (i < p.length || j < q.length) {
    if (i < p.length && j < q.length && p[i] === q[j]) { add("both", p[i]); i += 1; j += 1; }
    else if (j >= q.length || (i < p.length && common[i + 1][j] >= common[i][j + 1])) { add("only-a", p[i]); i += 1; }
    else { add("only-b", q[j]); j += 1; }
  }
  return runs;
}

function differences(a, b) {
  const panel = h("aside.details", { "aria-label": "Parameters" });
  const rows = [...columns.values()].filter((column) => column.name !== "node").map((column) => [column.name, column.of(a) < 0 ? "–" : column.text(column.of(a)), column.of(b) < 0 ? "–" : column.text(column.of(b))]);
  rows.unshift(["row", tasks[a.task].row, tasks[b.task].row]);
  const differ = rows.filter(([, p, q]) => p !== q);
  const same = rows.filter(([, p, q]) => p === q && p !== "–");
  panel.append(h("h2", { textContent: differ.length === 1 ? "1 parameter differs" : `${differ.length || "No"} parameters differ` }));
  for (const [name, p, q] of differ) {
    const values = h("div.pair");
    if (p.length + q.length > 60) {
      const words = h("p.words", { dir: "auto" });
      for (const [kind, text] of wordDifference(p, q)) words.append(kind === "both" ? text : h(kind === "only-a" ? "del" : "ins", { textContent: text }), " ");
      values.append(words);
    } else {
      values.append(h("b.a", { textContent: p, dir: "auto" }), h("b.b", { textContent: q, dir: "auto" }));
    }
    panel.append(h("div.differs", {}, h("span.name", { textContent: name }), values));
  }
  if (same.length) {
    const list = h("dl");
    for (const [name, value] of same) fact(list, name, value);
    panel.append(h("details", {}, h("summary", { textContent: `${same.length} the same` }), list));
  }
  return panel;
}

function compareKey(key) {
  if (comparing.stage.key(key)) return true;
  const modes = Object.keys(MODES);
  if (key === "m") setMode(modes[(modes.indexOf(comparing.host.dataset.mode) + 1) % modes.length]);
  else if (key === "s") exchange();
  else if (key === "b") comparing.host.classList.add("showing-b");
  else if (key === "ArrowLeft" || key === "ArrowRight") {
    if (document.activeElement === comparing.handle) { setLine(comparing.line + (key === "ArrowRight" ? 2 : -2)); return true; }
    const shown = visible().found.filter((item) => item.kind === "image");
    const at = shown.indexOf(comparing.b);
    const next = shown[Math.min(shown.length - 1, Math.max(0, at + (key === "ArrowRight" ? 1 : -1)))];
    if (next) { comparing.b = next; drawCompare(); }
  } else return false;
  return true;
}
