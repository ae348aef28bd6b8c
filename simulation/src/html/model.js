// The recording as the page uses it: one list of items in order (lines, messages, changes of belief), and what was so at a
// given moment (beliefs, bands, branch trees).

/** Kinds in the order in which they are listed: what the recorder calls them, and the two that only this page has. */
const KINDS = ["finding", "failover", "fault", "client", "worker", "verdict", "shard", "link", "version", "message"];

/** Kinds that concern every workflow: they stay when the list is narrowed down to one. */
const COMMON = new Set(["finding", "failover", "fault", "version"]);

function buildModel(recording, seed) {
  const model = {
    title: recording.title || "untitled",
    seed,
    lanes: recording.lanes || [],
    bands: recording.bands || [],
    beliefs: recording.beliefs || [],
    messages: recording.messages || [],
    items: [],
    findings: [],
    end: recording.end || 0,
    steps: 0,
  };
  const lines = recording.lines || [];
  for (const line of lines) model.items.push(lineItem(model, line));
  // The recorder may tell a change of belief as a line, too: then that one is enough.
  const told = new Set(lines.filter((line) => line.kind === "failover" && line.text.startsWith("believes")).map((line) => `${line.region} ${line.at}`));
  for (const belief of model.beliefs) if (!told.has(`${belief.region} ${belief.at}`)) model.items.push(beliefItem(model, belief));
  for (const message of model.messages) model.items.push(messageItem(model, message));
  addFindings(model, recording.findings || []);
  nameFindings(model);
  // What happened first, then what was believed because of it, then what was sent.
  const rank = { line: 0, belief: 1, message: 2 };
  model.items.sort((a, b) => a.at - b.at || rank[a.type] - rank[b.type] || a.order - b.order);
  let step = 0;
  for (const [index, item] of model.items.entries()) {
    item.index = index;
    // A message or a belief belongs to the step in which it came about.
    if (item.step === null) item.step = step;
    step = Math.max(step, item.step);
    model.end = Math.max(model.end, item.at);
    item.gap = gapAround(model.items, index);
    item.search = [item.kind, item.text, item.where, item.workflows.join(" "), item.run || "", `#${item.step}`].join(" ").toLowerCase();
  }
  // Most steps leave no line: the recorder knows how many there were.
  model.steps = Math.max(step, recording.steps || 0);
  for (const finding of model.findings) finding.item.finding = finding;
  model.owners = owners(model);
  model.namespaces = [...new Set(model.beliefs.map((belief) => belief.namespace))];
  model.workflows = workflows(model, recording.trees || []);
  return model;
}

/** How far it is to the nearest other moment: so exactly an item's own is written. */
function gapAround(items, index) {
  const { at } = items[index];
  let before = index, after = index;
  while (before >= 0 && items[before].at === at) before--;
  while (after < items.length && items[after].at === at) after++;
  return Math.min(before < 0 ? MINUTE : at - items[before].at, after === items.length ? MINUTE : items[after].at - at);
}

let itemOrder = 0;

function item(fields) {
  return { workflows: [], run: null, region: null, step: null, finding: null, order: itemOrder++, ...fields };
}

function laneName(model, region) {
  return region === null || region === undefined ? "" : (model.lanes[region] || { name: `region ${region}` }).name;
}

function lineItem(model, line) {
  return item({
    type: "line",
    kind: line.kind,
    at: line.at,
    step: line.step,
    region: line.region,
    where: laneName(model, line.region),
    workflows: line.workflow === null ? [] : [line.workflow],
    run: line.run,
    text: line.text,
    tone: lineTone(model, line),
    source: line,
  });
}

/** Which dot a line gets. */
function lineTone(model, line) {
  if (line.kind === "verdict") return verdictTone(line.detail);
  if (line.kind !== "fault") return line.kind;
  const here = (band) => line.region === null || line.region === (band.kind === "crash" ? band.region : band.from);
  const ends = model.bands.some((band) => band.until === line.at && here(band));
  const begins = model.bands.some((band) => band.since === line.at && here(band));
  return ends && !begins ? "healed" : "fault";
}

/** What a message says beyond its kind. */
function content(message) {
  const { kind, text } = message;
  return text === kind ? "" : text.startsWith(kind + " ") ? text.slice(kind.length + 1) : text;
}

function messageItem(model, message) {
  const [from, to] = [laneName(model, message.from), laneName(model, message.to)];
  return item({
    type: "message",
    kind: "message",
    at: message.sent,
    region: message.from,
    where: from,
    workflows: message.workflows,
    text: `${message.kind} → ${to}${content(message) ? "  " + content(message) : ""}`,
    tone: "message",
    lost: message.fate === "dropped" || message.fate === "cut" || message.fate === "stale",
    source: message,
  });
}

function beliefItem(model, belief) {
  const { version, active, phase, namespace } = belief;
  return item({
    type: "belief",
    kind: "version",
    at: belief.at,
    region: belief.region,
    where: laneName(model, belief.region),
    text: `${namespace} @${version}: ${active} is ${phase}, ${belief.writable ? "writable here" : "read-only here"}`,
    tone: "version",
    source: belief,
  });
}

/** A finding is usually also a line; if it isn't, it becomes one, so that it stands at its moment. */
function addFindings(model, findings) {
  const lines = model.items.filter((candidate) => candidate.kind === "finding");
  for (const finding of findings) {
    let found = lines.find((line) => !line.finding && line.step === finding.step && line.text.includes(finding.text));
    if (!found) {
      const text = `${finding.oracle}: ${finding.text}`;
      found = item({ type: "line", kind: "finding", at: finding.at, step: finding.step, where: "", text, tone: "finding", source: finding });
      model.items.push(found);
    }
    const entry = { oracle: finding.oracle, text: finding.text, at: finding.at, step: finding.step, item: found };
    found.finding = entry;
    model.findings.push(entry);
  }
  for (const line of lines) {
    if (!line.finding) model.findings.push({ oracle: "finding", text: line.text, at: line.at, step: line.step, item: line });
  }
}

/** A finding may name a run in its sentence only: then it is about that run, and the filter finds it. */
function nameFindings(model) {
  const runs = new Map();
  for (const entry of model.items) if (entry.run && entry.workflows.length === 1) runs.set(entry.run, entry.workflows[0]);
  for (const entry of model.items) {
    if (entry.kind !== "finding" || entry.workflows.length > 0) continue;
    const named = [...entry.text.matchAll(/\b([0-9a-f]{8})(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/g)].map((match) => match[1]).filter((run) => runs.has(run));
    entry.workflows = [...new Set(named.map((run) => runs.get(run)))];
    if (new Set(named).size === 1) entry.run = named[0];
  }
}

/** How loud a verdict is: most are routine, and the others must be found at a glance. */
function verdictTone(detail) {
  if (!detail) return "verdict";
  if (detail.fork || detail.problem || detail.verdict === "Poison") return "alarm";
  if (detail.rebuild) return "rebuild";
  if (detail.verdict === "NewBranch") return "branch";
  if (detail.verdict === "NeedEvents") return "waiting";
  return "verdict";
}

/** Which lane minted a version: what the regions said, else the usual increment of ten. */
function owners(model) {
  const known = new Map();
  for (const belief of model.beliefs) {
    const lane = model.lanes.findIndex((candidate) => candidate.name === belief.active);
    if (lane >= 0 && model.lanes[lane].initial % 10 === belief.version % 10) known.set(belief.version, lane);
  }
  return (version) => known.has(version) ? known.get(version) : model.lanes.findIndex((lane) => lane.initial % 10 === version % 10);
}

/** Every workflow with its runs, its trees by region, and whether it ever had two branches. */
function workflows(model, trees) {
  const all = new Map();
  const workflow = (id) => {
    if (!all.has(id)) all.set(id, { id, items: 0, runs: new Map(), forked: false });
    return all.get(id);
  };
  const run = (id, name) => {
    const runs = workflow(id).runs;
    if (!runs.has(name)) runs.set(name, { name, items: 0, views: model.lanes.map(() => []) });
    return runs.get(name);
  };
  for (const entry of model.items) {
    for (const id of entry.workflows) workflow(id).items += 1;
    if (entry.run && entry.workflows.length === 1) run(entry.workflows[0], entry.run).items += 1;
  }
  for (const view of trees) {
    const entry = run(view.workflow, view.run);
    if (!entry.views[view.region]) entry.views[view.region] = [];
    entry.views[view.region].push(view);
    if (view.branches.length > 1) workflow(view.workflow).forked = true;
  }
  return new Map([...all].sort(([a], [b]) => a.localeCompare(b, undefined, { numeric: true })));
}

/** The items that pass the filter. */
function filtered(model, filter) {
  const terms = filter.text.toLowerCase().split(/\s+/).filter((term) => term !== "" && term !== "-");
  const [wanted, unwanted] = [terms.filter((term) => term[0] !== "-"), terms.filter((term) => term[0] === "-").map((term) => term.slice(1))];
  return model.items.filter((entry) => {
    if (filter.hidden.has(entry.kind)) return false;
    if (entry.type === "message" && filter.hidden.has("message:" + entry.source.kind)) return false;
    if (filter.workflow !== null) {
      const about = entry.workflows.length === 0 ? COMMON.has(entry.kind) : entry.workflows.includes(filter.workflow);
      if (!about && entry.kind !== "finding") return false;
      // A message doesn't say which runs it is about.
      if (filter.run !== null && entry.run && entry.kind !== "finding" && entry.run !== filter.run) return false;
    }
    return wanted.every((term) => entry.search.includes(term)) && !unwanted.some((term) => entry.search.includes(term));
  });
}

/** What a region believes about a namespace at an item. */
function beliefAt(model, region, namespace, at) {
  let found = null;
  for (const belief of model.beliefs) {
    if (belief.at > at) break;
    if (belief.region === region && belief.namespace === namespace) found = belief;
  }
  return found;
}

/** Is something so at a moment? */
function during(band, at) {
  return band.since <= at && (band.until === null || at < band.until);
}

/** The tree of a run in a region as of an item, and the one before, if this very step changed it. */
function treeAt(run, region, entry) {
  const views = run.views[region] || [];
  const next = firstIndex(views, (view) => view.step > entry.step || (view.step === entry.step && view.at > entry.at));
  if (next === 0) return null;
  const view = views[next - 1];
  const changed = view.step === entry.step;
  const before = changed ? views.slice(0, next).reverse().find((candidate) => candidate.step < entry.step) || null : null;
  return { view, changed, before };
}

/** Spans of a version history, as in `[1..2@1 3@12]`. */
function parseItems(text) {
  const spans = [];
  for (const [, first, last, version] of String(text || "").matchAll(/(?:(\d+)\.\.)?(\d+)@(-?\d+)/g)) {
    spans.push({ first: Number(first === undefined ? last : first), last: Number(last), version: Number(version) });
  }
  return spans;
}
