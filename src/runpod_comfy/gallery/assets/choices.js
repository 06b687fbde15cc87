// Stars and rejections: kept in this browser under the run's id (pages from disk share one store), exported, imported.

const KEPT_AS = `runpod-comfy gallery ${DATA.run}`;
const choices = new Map();   // an item's id → 1 to 5 stars, or -1 for rejected
const undoable = [];

function readChoices() {
  choices.clear();
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT_AS) || "{}");
    for (const [id, stars] of Object.entries(kept)) if (Number.isInteger(stars) && stars >= -1 && stars <= 5) choices.set(id, stars);
  } catch (_) { /* no store, or not ours */ }
}
readChoices();

let keeping = 0;
function keepChoices() {
  keeping = 0;
  try {
    localStorage.setItem(KEPT_AS, JSON.stringify(Object.fromEntries(choices)));
  } catch (_) {
    toast("This browser keeps nothing for this page: export your selection before you close it.");
  }
}
/** At once, as long as that costs nothing: whoever closes the page next loses nothing. */
function keepSoon() {
  clearTimeout(keeping);
  if (choices.size < 2000) keepChoices();
  else keeping = setTimeout(keepChoices, 200);
}
addEventListener("storage", (event) => { if (event.key === KEPT_AS) { readChoices(); refresh(); } });
addEventListener("pagehide", () => { if (keeping) keepChoices(); });

const starsOf = (item) => choices.get(item.id) || 0;

function choose(item, stars, { undo = false } = {}) {
  if (!item || item.failure) return;
  if (!undo) undoable.push([item.id, starsOf(item)]);
  if (stars) choices.set(item.id, stars);
  else choices.delete(item.id);
  keepSoon();
  choiceChanged(item);
}

function undo() {
  const last = undoable.pop();
  if (!last) { toast("Nothing to undo."); return; }
  const item = itemsById.get(last[0]);
  if (item) { choose(item, last[1], { undo: true }); moveTo(item); }
}

const chosenItems = () => items.filter((item) => starsOf(item) !== 0);

function selection() {
  const images = chosenItems().map((item) => ({
    file: item.file, task: tasks[item.task].key, sample: item.sample,
    stars: Math.max(0, starsOf(item)), rejected: starsOf(item) < 0,
  }));
  return { schema: "selection/1", run: DATA.run_in_selection, images };
}

/** Text for a table: quoted where needed, and never a formula to a spreadsheet. */
function cell(value) {
  let text = value === null || value === undefined ? "" : String(value);
  if (typeof value !== "number" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

function selectionTable() {
  const shown = [...columns.values()].filter((column) => !column.isOwn);
  const lines = [["file", "row", "sample", "stars", "rejected", "seed", ...shown.map((column) => column.name)]];
  for (const item of chosenItems()) {
    const values = shown.map((column) => { const code = column.of(item); return code < 0 ? "" : column.values[code]; });
    lines.push([item.file, tasks[item.task].row, item.sample, Math.max(0, starsOf(item)), starsOf(item) < 0, item.seed, ...values]);
  }
  return `\ufeff${lines.map((line) => line.map(cell).join(",")).join("\r\n")}\r\n`;   // the mark that makes Excel read UTF-8
}

function download(name, text, type) {
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const selectionName = () => `selection-${new Date().toISOString().slice(0, 10)}`;

/** Add somebody's selection to this one: the most stars count, and what one rejects is rejected. */
async function importSelection(file) {
  let given;
  try { given = JSON.parse(await file.text()); } catch (_) { given = null; }
  if (!given || given.schema !== "selection/1" || !Array.isArray(given.images)) { toast(`${file.name} is no selection of a gallery.`); return; }
  if (given.run && DATA.run_in_selection && given.run !== DATA.run_in_selection) { toast(`${file.name} belongs to another dataset; nothing was taken from it.`); return; }
  let taken = 0;
  for (const each of given.images) {
    const task = tasks[taskNumbers.get(each.task)];
    const item = task && itemsById.get(`${padded(task.index, 6)}_${each.sample}`);
    if (!item) continue;
    taken += 1;
    const stars = each.rejected || starsOf(item) < 0 ? -1 : Math.max(starsOf(item), Math.min(5, Math.max(0, Math.trunc(each.stars) || 0)));
    if (stars !== starsOf(item)) { undoable.push([item.id, starsOf(item)]); if (stars) choices.set(item.id, stars); }
  }
  keepChoices();
  refresh();
  toast(`${taken} of ${given.images.length} choices taken from ${file.name}.`);
}

/** A word as a POSIX shell reads it back. */
const quoted = (word) => (/^[\w@%+=:,./-][\w@%+=:,./#-]*$/.test(word) ? word : `'${word.replace(/'/g, "'\\''")}'`);
const dashSafe = (folder) => (folder.startsWith("-") ? `./${folder}` : folder);
const rerunCommand = (item) => `runpod-comfy rerun ${quoted(`${dashSafe(DATA.folder)}#${item.failure ? padded(item.index, 6) : item.id}`)}`;
const pickCommand = () => `runpod-comfy pick ${quoted(dashSafe(DATA.folder))} ${selectionName()}.json`;

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch (_) {
    const field = h("textarea", { value: text, readOnly: true });
    document.body.append(field);
    field.select();
    const isCopied = document.execCommand("copy");
    field.remove();
    if (!isCopied) { prompt("Copy this:", text); return; }
  }
  toast(`${what} copied`);
}
