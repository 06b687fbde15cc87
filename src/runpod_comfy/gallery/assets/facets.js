// The column at the left: states, and for each variable with few values a chip for each, with how many there are.

const FIRST_CHIPS = 10;
const STATE_LABELS = { all: "All", starred: "Starred", unrated: "Unrated", rejected: "Rejected", failed: "Failed" };
const facets = h("nav.facets", { "aria-label": "Filters" });
const facetNodes = { built: "", chips: [], states: {} };

function buildFacets(shown) {
  const signature = shown.map((column) => `${column.name} ${column.values.length} ${view.opened.has(column.name)}`).join("\n");
  if (facetNodes.built === signature) return;
  facetNodes.built = signature;
  facetNodes.chips = [];
  const states = h("div.chips.states", { role: "group", "aria-label": "State" });
  for (const [state, label] of Object.entries(STATE_LABELS)) {
    const chip = h("button.chip", { type: "button", textContent: label, onclick: () => { view.state = view.state === state ? "all" : state; refresh(); } });
    chip.dataset.state = state;
    facetNodes.states[state] = chip;
    states.append(chip);
  }
  facets.replaceChildren(states);
  for (const column of shown) {
    const ranks = column.ranks();
    const codes = column.values.map((_, code) => code).sort((a, b) => ranks[a] - ranks[b]);
    const few = view.opened.has(column.name) ? codes : codes.slice(0, FIRST_CHIPS);
    const isLong = column.lower.some((text) => text.length > 16);
    const chips = h(`div.chips${isLong ? ".rows" : ""}`, { role: "group", "aria-label": column.name });
    for (const code of few) {
      const chip = h("button.chip", { type: "button", textContent: column.text(code), title: column.text(code), dir: "auto", onclick: () => toggleFacet(column.name, code) });
      facetNodes.chips.push({ chip, column, code });
      chips.append(chip);
    }
    if (few.length < codes.length) chips.append(h("button.chip.more", { type: "button", textContent: `${codes.length - few.length} more`, onclick: () => { view.opened.add(column.name); refresh(); } }));
    facets.append(h("h2", { textContent: column.name }), chips);
  }
}

function toggleFacet(name, code) {
  const codes = view.facets.get(name) || view.facets.set(name, new Set()).get(name);
  if (!codes.delete(code)) codes.add(code);
  refresh();
}

function drawFacets(counts) {
  const shown = facetColumns();
  buildFacets(shown);
  for (const { chip, column, code } of facetNodes.chips) {
    const count = counts.get(column)[code];
    chip.dataset.count = count.toLocaleString("en");
    const isOn = Boolean(view.facets.get(column.name) && view.facets.get(column.name).has(code));
    chip.setAttribute("aria-pressed", isOn);
    chip.classList.toggle("none", count === 0 && !isOn);
  }
  drawStates();
}

function drawStates() {
  const counts = { all: items.length, starred: 0, unrated: 0, rejected: 0, failed: 0 };
  for (const item of items) {
    if (item.failure) counts.failed += 1;
    else { const stars = starsOf(item); counts[stars > 0 ? "starred" : stars < 0 ? "rejected" : "unrated"] += 1; }
  }
  for (const [state, chip] of Object.entries(facetNodes.states)) {
    chip.dataset.count = counts[state].toLocaleString("en");
    chip.setAttribute("aria-pressed", view.state === state);
    chip.hidden = state === "failed" && !counts.failed && view.state !== "failed";
  }
}
