// Which items are shown, in which order: words, conditions, chips, state.

const OWN_FIELDS = {
  stars: (item) => Math.max(0, starsOf(item)),
  row: (item) => tasks[item.task].row,
  id: (item) => tasks[item.task].row,
  file: (item) => item.file || "",
  width: (item) => item.width,
  height: (item) => item.height,
  error: (item) => (item.failure ? `${item.failure.code} ${item.failure.message} ${item.failure.nodeType || ""}` : ""),
};
const STATES = {
  all: () => true,
  starred: (item) => starsOf(item) > 0,
  unrated: (item) => starsOf(item) === 0 && !item.failure,
  rejected: (item) => starsOf(item) < 0,
  failed: (item) => Boolean(item.failure),
};

/** `fox "a red" cfg>6 seed:123 -blurry` → terms. */
function parseQuery(text) {
  const terms = [];
  const pattern = /(-?)(?:([\p{L}_][\p{L}\p{N}_]*)(!=|>=|<=|[:=<>]))?(?:"([^"]*)"?|(\S+))/gu;
  for (const [, minus, name, operator, quoted, bare] of text.matchAll(pattern)) {
    const value = quoted !== undefined ? quoted : bare;
    if (value) terms.push({ not: minus === "-", name, operator, value, lower: value.toLowerCase() });
  }
  return terms;
}

function holds(term, value) {
  const text = String(value).toLowerCase();
  switch (term.operator) {
    case ":": return typeof value === "number" && !Number.isNaN(Number(term.value)) ? value === Number(term.value) : text.includes(term.lower);
    case "=": return typeof value === "number" ? value === Number(term.value) : text === term.lower;
    case "!=": return typeof value === "number" ? value !== Number(term.value) : text !== term.lower;
    default: {
      const other = typeof value === "number" ? Number(term.value) : term.value;
      if (Number.isNaN(other)) return false;
      const order = compareValues(value, other);
      return term.operator === ">" ? order > 0 : term.operator === "<" ? order < 0 : term.operator === ">=" ? order >= 0 : order <= 0;
    }
  }
}

/** A term as a function of an item; what depends on a row's values is worked out once for each distinct value. */
function compile(term) {
  let test;
  if (term.name && term.name === "is") {
    test = has(STATES, term.lower) ? STATES[term.lower] : () => false;
  } else if (term.name) {
    const name = [...columns.keys()].find((each) => each.toLowerCase() === term.name.toLowerCase());
    const field = has(OWN_FIELDS, term.name.toLowerCase()) && OWN_FIELDS[term.name.toLowerCase()];
    if (name !== undefined) {
      const column = columns.get(name);
      const hits = column.values.map((value) => holds(term, value));
      test = (item) => { const code = column.of(item); return code >= 0 && hits[code]; };
    } else if (field) {
      test = (item) => holds(term, field(item));
    } else {
      return null;
    }
  } else {
    const hitTasks = new Uint8Array(tasks.length);
    for (let number = 0; number < tasks.length; number++) if (tasks[number].lower.includes(term.lower)) hitTasks[number] = 1;
    const own = [];
    for (const column of columns.values()) {
      const hits = new Uint8Array(column.lower.length);
      let isHit = false;
      for (let code = 0; code < hits.length; code++) if (column.lower[code].includes(term.lower)) { hits[code] = 1; isHit = true; }
      if (!isHit) continue;
      if (column.isOwn) { if (column.name !== "sample") own.push([column, hits]); }
      else for (let number = 0; number < tasks.length; number++) if (hits[column.codes[number]]) hitTasks[number] = 1;
    }
    test = (item) => hitTasks[item.task] === 1 || item.id.includes(term.lower)
      || own.some(([column, hits]) => hits[column.of(item)] === 1)
      || Boolean(item.failure) && OWN_FIELDS.error(item).toLowerCase().includes(term.lower);
  }
  return term.not ? (item) => !test(item) : test;
}

/** Return the items that the view shows, the counts for the chips, and names that nothing has. */
function select(view) {
  const unknown = [];
  const tests = [];
  for (const term of parseQuery(view.query)) {
    const test = compile(term);
    if (test) tests.push(test);
    else unknown.push(term.name);
  }
  if (view.state !== "all") tests.push(STATES[view.state]);
  const chips = [...view.facets].filter(([name, codes]) => codes.size && columns.has(name)).map(([name, codes]) => [columns.get(name), codes]);
  const counted = facetColumns().map((column) => ({ column, count: new Int32Array(column.values.length) }));
  const passes = (item) => { for (const test of tests) if (!test(item)) return false; return true; };
  const found = [];
  for (const item of items) {
    if (!passes(item)) continue;
    let missed = null;
    let misses = 0;
    for (const [column, codes] of chips) if (!codes.has(column.of(item))) { missed = column; misses += 1; }
    // A variable's own chips count what would be shown if only they changed.
    if (misses <= 1) {
      for (const { column, count } of counted) {
        const code = column.of(item);
        if (code >= 0 && (misses === 0 || missed === column)) count[code] += 1;
      }
    }
    if (misses === 0) found.push(item);
  }
  return { found: sorted(found, view), counts: new Map(counted.map(({ column, count }) => [column, count])), unknown };
}

const facetColumns = () => varying().filter((column) => column.values.length <= 60 && column.name !== "seed");

const SORTS = {
  stars: (a, b) => starsOf(a) - starsOf(b),
  size: (a, b) => a.width * a.height - b.width * b.height,
  "file size": (a, b) => a.bytes - b.bytes,
  time: (a, b) => (tasks[a.task].execution || 0) - (tasks[b.task].execution || 0),
};

function sorted(found, view) {
  const by = [];
  const byColumn = (name, sign) => {
    if (!columns.has(name)) return;
    const column = columns.get(name);
    const ranks = column.ranks();
    by.push((a, b) => {
      const [p, q] = [column.of(a), column.of(b)];
      return p < 0 || q < 0 ? (p < 0) - (q < 0) : sign * (ranks[p] - ranks[q]);   // what has no value comes last
    });
  };
  if (view.group) byColumn(view.group, 1);
  const sign = view.descending ? -1 : 1;
  if (has(SORTS, view.sort)) by.push((a, b) => sign * SORTS[view.sort](a, b));
  else if (view.sort) byColumn(view.sort, sign);
  else if (view.descending) by.push((a, b) => b.index - a.index || b.sample - a.sample);
  if (!by.length) return found;
  return found.sort((a, b) => {
    for (const compare of by) { const order = compare(a, b); if (order) return order; }
    return a.index - b.index || a.sample - b.sample;
  });
}
