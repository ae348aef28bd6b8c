// Version histories as bars, and the branch tree of a run: which branches there are, where they part, why one is current, and
// every event of each.

/** Room for a number of events: cells with their ids while there are few, a plain scale when there are many. */
function eventScale(width, most) {
  const cell = width / Math.max(most, 1);
  return { cell: Math.min(cell, 30), x: (id) => (id - 1) * Math.min(cell, 30) };
}

/** One bar: a rectangle a version, with the version in it where there is room. */
function bar(model, palette, spans, scale, y, height, options = {}) {
  const parts = [];
  for (const { first, last, version } of spans) {
    const x0 = scale.x(first), width = scale.x(last + 1) - x0;
    const colour = palette.owner(model.owners(version));
    parts.push(svg("rect", { x: x0 + 0.5, y, width: Math.max(1, width - 1), height, rx: 2.5, fill: colour, "fill-opacity": options.faded ? 0.22 : 0.75, stroke: colour, "stroke-opacity": options.faded ? 0.8 : 0, "stroke-dasharray": options.faded ? "3 2" : null }));
    const label = `@${version}`, wide = first === last ? `${last}@${version}` : `${first}..${last}@${version}`;
    const text = [wide, label].find((candidate) => candidate.length * 6.3 + 6 < width);
    if (text) parts.push(svg("text", { x: x0 + width / 2, y: y + height / 2 + 3.6, "text-anchor": "middle", class: options.faded ? "bar-text faded" : "bar-text" }, text));
  }
  return parts;
}

/** Several histories below each other to one scale, with a mark behind the event that they share. */
function historyBars(model, palette, rows, ancestor, width) {
  const label = 74, parsed = rows.map((row) => ({ ...row, spans: parseItems(row.items) }));
  const most = Math.max(1, ...parsed.flatMap((row) => row.spans.map((part) => part.last)));
  const scale = eventScale(width - label - 4, most);
  const height = parsed.length * 24 + 4;
  const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, class: "bars", role: "img", "aria-label": parsed.map((row) => `${row.name} ${row.items}`).join(", ") });
  const group = svg("g", { transform: `translate(${label} 0)` });
  for (const [index, row] of parsed.entries()) {
    drawing.append(svg("text", { x: 0, y: index * 24 + 15, class: "bar-label" }, row.name));
    group.append(...bar(model, palette, row.spans, scale, index * 24 + 3, 17, {}));
  }
  const shared = parseItems(ancestor)[0];
  if (shared) {
    const x = scale.x(shared.last + 1);
    group.append(svg("line", { x1: x, x2: x, y1: 0, y2: height, class: "shared" }));
  }
  drawing.append(group);
  return drawing;
}

const END = { step: Infinity, at: Infinity, region: null };

/** Where a run's trees are looked at: in an item's moment, or, before any region has the run, at the end. */
function treeMoment(run, entry) {
  return run.views.some((_, region) => treeAt(run, region, entry)) ? entry : END;
}

/** The trees of a run in all regions as of an item; regions that agree share one. */
function treeSection(model, palette, run, entry, chosen, width, choose) {
  const groups = [];
  const without = [];
  for (const [region, lane] of model.lanes.entries()) {
    const found = treeAt(run, region, entry);
    if (!found) {
      without.push(lane.name);
      continue;
    }
    const { view } = found;
    const key = JSON.stringify([view.state, view.current_run, view.branches.map((branch) => [branch.chain, branch.current])]);
    const group = groups.find((candidate) => candidate.key === key);
    if (group) group.regions.push({ region, ...found });
    else groups.push({ key, regions: [{ region, ...found }] });
  }
  const regions = groups.reduce((sum, group) => sum + group.regions.length, 0);
  const parts = [];
  if (groups.length > 1) parts.push(el("p", { class: "soft" }, `The regions differ: there are ${groups.length} views of this run.`));
  else if (regions > 1) parts.push(el("p", { class: "good" }, without.length === 0 ? "All regions agree." : "The regions that have it agree."));
  parts.push(...groups.map((group) => treeGroup(model, palette, group, entry, chosen, width, choose, groups)));
  if (without.length > 0) parts.push(el("p", { class: "soft" }, `${without.join(", ")}: nothing stored yet.`));
  return parts;
}

function treeGroup(model, palette, group, entry, chosen, width, choose, groups) {
  const { view } = group.regions[0];
  const names = group.regions.map(({ region }) => el("b", { style: `color:${palette.lane(region)}` }, laneName(model, region)));
  const facts = [view.state, view.current_run ? "owns the workflow id" : "does not own the workflow id", count(view.branches.length, "branch", "branches")];
  const changed = group.regions.filter((part) => part.changed).map(({ region }) => laneName(model, region));
  // The selected branch is shown once, in the first group that has it.
  const regionOfItem = group.regions.some(({ region }) => region === entry.region);
  const mine = chosen && group.regions.some(({ region }) => region === chosen.region) ? view.branches.find((branch) => branch.chain === chosen.chain) : null;
  const selected = mine || (chosen ? null : regionOfItem || groups.length === 1 ? view.branches[0] : null);
  const region = group.regions[0].region;
  const parts = [
    el("p", { class: "tree-head" }, interleave(names, " "), el("span", { class: "soft" }, facts.join(" · ")), changed.length > 0 && el("i", { class: "pill blue" }, changed.length === group.regions.length ? "changed by this step" : `changed in ${changed.join(", ")} by this step`)),
    branchDrawing(model, palette, view, selected, width, (branch) => choose({ region, chain: branch.chain })),
  ];
  if (selected) parts.push(branchFacts(model, palette, view, selected, group.regions, entry, (branch) => choose({ region, chain: branch.chain })));
  return el("div", { class: "tree" }, parts);
}

function interleave(parts, between) {
  return parts.flatMap((part, index) => (index === 0 ? [part] : [between, part]));
}

/** The current branch on top, the others where they part from it. */
function branchDrawing(model, palette, view, selected, width, choose) {
  const most = Math.max(1, ...view.branches.flatMap((branch) => parseItems(branch.items).map((part) => part.last)));
  const scale = eventScale(width - 8, most), pitch = 40;
  const height = view.branches.length * pitch + 2;
  const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, class: "branches" });
  for (const [index, branch] of view.branches.entries()) {
    const y = index * pitch + 17;
    const fork = branch.current ? null : parseItems(branch.fork)[0];
    const after = fork ? fork.last : 0;
    const spans = parseItems(branch.items).filter((part) => part.last > after).map((part) => ({ ...part, first: Math.max(part.first, after + 1) }));
    const group = svg("g", {
      class: "branch" + (branch === selected ? " chosen" : ""),
      tabindex: 0,
      role: "button",
      "aria-label": `${branch.current ? "current branch" : "branch"} ${branch.items}`,
      onclick: () => choose(branch),
      onkeydown: (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          event.stopPropagation();
          choose(branch);
        }
      },
    });
    const x0 = scale.x(after + 1);
    group.append(svg("rect", { x: 0, y: index * pitch + 1, width, height: pitch - 1, class: "branch-ground", rx: 5 }));
    if (fork) {
      // From the end of the shared event on the current branch down to this one.
      const x = scale.x(after + 1) - Math.min(scale.cell / 2, 6);
      group.append(svg("path", { d: `M ${x} ${17 + 16} V ${y + 2} Q ${x} ${y + 8} ${x + 5} ${y + 8} H ${x0 + 1}`, class: "fork" }));
    }
    group.append(...bar(model, palette, spans, scale, y, 16, { faded: !branch.current }));
    const label = branch.current ? "current" : `parts after ${branch.fork || "nothing"}`;
    const words = `${label}  ${branch.items}`;
    const size = words.length * 6.1;
    // The label begins where the branch does, unless it would leave the drawing.
    group.append(svg("text", { x: clamp(x0 + 1, 5, Math.max(5, width - size)), y: y - 4, class: branch.current ? "branch-label current" : "branch-label" }, words));
    group.append(svg("title", {}, `${branch.why}\nchain ${branch.chain}`));
    drawing.append(group);
  }
  return drawing;
}

/** What is to be known about a branch, and its events. */
function branchFacts(model, palette, view, branch, regions, entry, choose) {
  const facts = el("dl", { class: "facts" });
  const fact = (name, ...value) => facts.append(el("dt", {}, name), el("dd", {}, ...value));
  fact(branch.current ? "won" : "lost", branch.why);
  if (!branch.current) fact("fork", branch.fork ? `after ${branch.fork}, the last event shared with the current branch` : "shares nothing with the current branch");
  fact("chain", el("code", {}, branch.chain));
  const known = new Set();
  // What the step added is marked where this region had a tree before.
  const before = regions.length === 1 || regions[0].changed ? regions[0].before : null;
  for (const old of before ? before.branches : []) for (const event of old.events) known.add(`${event.id}@${event.version}`);
  const forks = new Map();
  if (branch.current) {
    for (const other of view.branches) {
      if (other === branch || !other.fork) continue;
      if (!forks.has(other.fork)) forks.set(other.fork, []);
      forks.get(other.fork).push(other);
    }
  }
  const rows = el("ol", { class: "history" });
  if (!branch.current && branch.fork) {
    const current = view.branches.find((candidate) => candidate.current);
    rows.append(el("li", { class: "elsewhere" }, el("button", { type: "button", class: "plain", onclick: () => current && choose(current) }, `… ${branch.fork} and what is before: on the current branch`)));
  }
  const shown = branch.events.length > 400 ? branch.events.slice(-400) : branch.events;
  if (shown.length < branch.events.length) {
    const rest = branch.events.slice(0, -400);
    const more = el("li", { class: "elsewhere" }, el("button", { type: "button", class: "plain", onclick: () => more.replaceWith(...rest.map(eventRow)) }, `show the ${grouped(rest.length)} events before`));
    rows.append(more);
  }
  rows.append(...shown.map(eventRow).flat());
  return el("div", { class: "branch-facts" }, facts, rows);

  function eventRow(event) {
    const name = `${event.id}@${event.version}`;
    const fresh = before && !known.has(name);
    const row = el("li", { class: fresh ? "fresh" : null }, el("code", { style: `color:${palette.owner(model.owners(event.version))}` }, name), el("span", {}, event.kind), fresh && el("i", { class: "pill blue" }, "new"));
    for (const other of forks.get(name) || []) row.append(el("button", { type: "button", class: "plain parts", onclick: () => choose(other) }, `↳ here parts ${other.items}`));
    return row;
  }
}
