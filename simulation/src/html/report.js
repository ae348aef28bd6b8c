// The page: reads the recording, keeps what is selected and filtered, and tells the parts to draw.

(function start() {
  const recording = JSON.parse(byId("recording").textContent);
  if (recording.error) {
    document.body.replaceChildren(el("p", { class: "nothing" }, `The recording could not be written: ${recording.error}`));
    return;
  }
  const model = buildModel(recording, document.documentElement.dataset.seed);
  const palette = readPalette();
  // Where the window is narrow the parts stand below each other, and the page scrolls.
  const stacked = matchMedia("(max-width: 1000px)");
  const state = { filter: { workflow: null, run: null, text: "", hidden: new Set() }, items: [], selected: null, mode: "events" };

  const chart = new Chart(byId("canvas"), byId("tip"), model, palette, { select: (entry) => select(entry, "chart"), seek, redraw, stacked: () => stacked.matches });
  const list = new List(byId("list"), byId("rows"), model, palette, (entry) => select(entry, "list"));
  const detail = new Detail(byId("detail"), model, palette, {
    select,
    workflow: () => state.filter.workflow,
    filter: (id) => narrow(state.filter.workflow === id ? null : id, null),
  });

  header();
  findings();
  legend();
  filters();
  keys();
  sizes();
  const hash = readHash();
  state.mode = hash.axis === "time" ? "time" : "events";
  byId("search").value = state.filter.text = hash.find || "";
  if (hash.workflow && model.workflows.has(hash.workflow)) [state.filter.workflow, state.filter.run] = [hash.workflow, hash.run || null];
  state.selected = model.items[Number(hash.event)] || (model.findings[0] && model.findings[0].item) || model.items[0] || null;
  refilter();
  keepPlace();

  // ---- What the reader does ------------------------------------------------------------------------------------------

  /** What was clicked is in view where it was clicked, and must not move under the pointer. */
  function select(entry, clicked = null) {
    if (!entry) return redraw();
    state.selected = entry;
    chart.select(entry);
    list.selected = entry;
    if (clicked !== "chart") chart.reveal(entry);
    if (clicked !== "list") list.reveal(entry);
    list.draw();
    detail.show(entry);
    position();
    writeHash();
    redraw();
  }

  /** The first item at or after a moment, else the last. */
  function seek(at) {
    const index = firstIndex(state.items, (entry) => entry.at >= at);
    const [before, after] = [state.items[index - 1], state.items[index]];
    select(before && (!after || at - before.at < after.at - at) ? before : after, "chart");
  }

  function step(by) {
    if (state.items.length === 0) return;
    const here = state.selected ? list.position(state.selected) : 0;
    const exactly = state.items[here] === state.selected;
    // From an item that the filter hides, the next one forward is already the one at its place.
    const target = by > 0 && !exactly ? here + by - 1 : here + by;
    select(state.items[clamp(target, 0, state.items.length - 1)]);
  }

  /** The next visible item of some kind, around the end. */
  function jump(by, test) {
    const from = state.selected ? state.selected.index : -1;
    const fitting = state.items.filter(test);
    if (fitting.length === 0) return;
    const next = by > 0 ? fitting.find((entry) => entry.index > from) || fitting[0] : fitting.findLast((entry) => entry.index < from) || fitting[fitting.length - 1];
    select(next);
  }

  function narrow(workflow, run) {
    state.filter.workflow = workflow;
    state.filter.run = run;
    refilter();
    keepPlace();
  }

  function refilter() {
    state.items = filtered(model, state.filter);
    chart.show(state.items, buildAxis(model, state.items, state.mode));
    chart.clampView();
    list.show(state.items);
    byId("reset").hidden = !(state.filter.workflow || state.filter.text || state.filter.hidden.size > 0);
    byId("workflow").value = state.filter.workflow === null ? "" : JSON.stringify([state.filter.workflow, state.filter.run]);
    for (const chip of byId("kinds").children) chip.setAttribute("aria-pressed", String(!state.filter.hidden.has(chip.dataset.kind)));
    byId("axis-events").setAttribute("aria-pressed", String(state.mode === "events"));
    byId("axis-time").setAttribute("aria-pressed", String(state.mode === "time"));
    position();
  }

  /** After the axis changed: the same zoom habits, the selected item in view. If it is filtered away, the nearest is selected. */
  function keepPlace() {
    chart.comfortable();
    if (state.selected && state.items.length > 0 && state.items[list.position(state.selected)] !== state.selected) step(0);
    else select(state.selected);
  }

  function axis(mode) {
    state.mode = mode;
    refilter();
    keepPlace();
  }

  function clear() {
    state.filter = { workflow: null, run: null, text: "", hidden: new Set() };
    byId("search").value = "";
    refilter();
    keepPlace();
  }

  // ---- Drawing when there is time ------------------------------------------------------------------------------------

  function redraw() {
    if (state.planned) return;
    state.planned = true;
    requestAnimationFrame(() => {
      state.planned = false;
      chart.draw();
    });
  }

  function position() {
    const here = state.selected ? list.position(state.selected) : 0;
    const total = state.items.length;
    byId("position").textContent = total === 0 ? "nothing" : `${grouped(Math.min(here + 1, total))} of ${grouped(total)}`;
    byId("step-back").disabled = byId("step-first").disabled = here <= 0;
    byId("step-on").disabled = byId("step-last").disabled = here >= total - 1;
  }

  // ---- The address keeps the place, so that a reload or a bookmark comes back to it -----------------------------------

  function readHash() {
    return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  }

  function writeHash() {
    const parts = new URLSearchParams();
    if (state.selected) parts.set("event", state.selected.index);
    if (state.mode === "time") parts.set("axis", "time");
    if (state.filter.workflow) parts.set("workflow", state.filter.workflow);
    if (state.filter.run) parts.set("run", state.filter.run);
    if (state.filter.text) parts.set("find", state.filter.text);
    clearTimeout(state.hashTimer);
    // Browsers refuse too many changes in a short time, and some refuse all for a local file: it is only a convenience.
    state.hashTimer = setTimeout(() => {
      try {
        history.replaceState(null, "", "#" + parts);
      } catch (error) {
        void error;
      }
    }, 250);
  }

  // ---- Parts of the page ---------------------------------------------------------------------------------------------

  function header() {
    byId("title").textContent = model.title;
    const facts = [model.title === `seed ${model.seed}` ? null : `seed ${model.seed}`, count(model.lanes.length, "region"), count(model.steps, "step"), `${span(model.end)} of virtual time`, count(model.messages.length, "message"), count(model.items.filter((entry) => entry.kind === "verdict").length, "verdict")];
    byId("summary").replaceChildren(facts.filter(Boolean).join(" · ") + " · ", el("b", { class: model.findings.length > 0 ? "red" : "good" }, model.findings.length === 0 ? "no findings" : count(model.findings.length, "finding")));
    byId("axis-events").onclick = () => axis("events");
    byId("axis-time").onclick = () => axis("time");
    byId("zoom-in").onclick = () => zoom(1.6);
    byId("zoom-out").onclick = () => zoom(1 / 1.6);
    byId("zoom-fit").onclick = fit;
    byId("step-first").onclick = () => select(state.items[0]);
    byId("step-last").onclick = () => select(state.items[state.items.length - 1]);
    byId("step-back").onclick = () => step(-1);
    byId("step-on").onclick = () => step(1);
    byId("reset").onclick = clear;
    if (model.namespaces.length > 1) {
      const choice = el("select", { "aria-label": "Namespace in the strips", onchange: () => {
        chart.namespace = choice.value;
        redraw();
      } }, model.namespaces.map((name) => el("option", { value: name }, name)));
      byId("legend-open").before(choice);
    }
  }

  function zoom(factor) {
    const x = state.selected ? chart.entryX(state.selected) : undefined;
    chart.zoom(factor, x !== undefined && x > GUTTER && x < chart.width ? x : undefined);
    redraw();
  }

  function fit() {
    chart.fit();
    redraw();
  }

  function findings() {
    const box = byId("findings");
    box.hidden = model.findings.length === 0;
    const jump = (finding) => {
      state.filter.hidden.delete("finding");
      if (!state.items.includes(finding.item)) clear();
      select(finding.item);
    };
    // One line each; what follows the first line of the text is shown on demand, here and beside the list.
    const row = (finding) => {
      const words = el("span", { class: "words" }, finding.text.split("\n", 1)[0]);
      const fold = el("button", { type: "button", class: "fold", "aria-expanded": "false", "aria-label": "Show the whole finding", title: "Show all of it", onclick: () => {
        const open = fold.getAttribute("aria-expanded") !== "true";
        fold.setAttribute("aria-expanded", String(open));
        words.textContent = open ? finding.text : finding.text.split("\n", 1)[0];
        words.classList.toggle("open", open);
        layout();
      } });
      return el("div", { class: "finding" }, fold, el("button", { type: "button", class: "jump", title: "Jump to its moment", onclick: () => jump(finding) }, el("b", {}, finding.oracle), words, el("span", { class: "when" }, `step ${grouped(finding.step)} · ${moment(finding.at)}`)));
    };
    const rows = model.findings.map(row);
    box.replaceChildren(...rows.slice(0, 3));
    if (rows.length > 3) {
      const more = el("button", { type: "button", class: "finding more", onclick: () => {
        more.replaceWith(...rows.slice(3));
        layout();
      } }, `${grouped(rows.length - 3)} more`);
      box.append(more);
    }
  }

  function filters() {
    const select = byId("workflow");
    select.append(el("option", { value: "" }, model.workflows.size === 0 ? "no workflows" : `all workflows (${model.workflows.size})`));
    for (const workflow of model.workflows.values()) {
      select.append(el("option", { value: JSON.stringify([workflow.id, null]) }, `${workflow.id} (${workflow.items})${workflow.forked ? " · branches" : ""}`));
      if (workflow.runs.size < 2) continue;
      for (const run of workflow.runs.values()) select.append(el("option", { value: JSON.stringify([workflow.id, run.name]) }, `\u2003${workflow.id} / ${run.name}`));
    }
    select.onchange = () => {
      narrow(...(select.value === "" ? [null, null] : JSON.parse(select.value)));
      // The arrow keys step again.
      select.blur();
    };
    const search = byId("search");
    search.oninput = () => {
      state.filter.text = search.value;
      refilter();
      keepPlace();
    };
    const counts = new Map();
    for (const entry of model.items) counts.set(entry.kind, (counts.get(entry.kind) || 0) + 1);
    // Messages have kinds of their own: where there are several, each has a chip.
    const sorts = new Map();
    for (const message of model.messages) sorts.set(message.kind, (sorts.get(message.kind) || 0) + 1);
    const chip = (kind, label, number, tone) => el("button", { type: "button", class: "chip", "aria-pressed": "true", "data-kind": kind, title: "Click hides or shows, double click shows it alone", onclick: () => toggle(kind), ondblclick: () => alone(kind) }, tone && dotGlyph(tone, toneColour(palette, tone, null), palette.panel, 15), label, el("small", {}, grouped(number)));
    const chips = [...KINDS, ...[...counts.keys()].filter((kind) => !KINDS.includes(kind))].filter((kind) => counts.has(kind)).map((kind) => chip(kind, kind, counts.get(kind), kind));
    if (sorts.size > 1) chips.push(...[...sorts].sort().map(([kind, number]) => chip("message:" + kind, "→ " + kind, number, null)));
    byId("kinds").replaceChildren(...chips);
  }

  function toggle(kind) {
    const { hidden } = state.filter;
    if (!hidden.delete(kind)) hidden.add(kind);
    refilter();
    keepPlace();
  }

  function alone(kind) {
    const wanted = new Set([kind, kind.startsWith("message:") ? "message" : kind]);
    state.filter.hidden = new Set([...byId("kinds").children].map((chip) => chip.dataset.kind).filter((other) => !wanted.has(other) && !(kind === "message" && other.startsWith("message:"))));
    refilter();
    keepPlace();
  }

  function keys() {
    const forward = { ArrowRight: 1, ArrowDown: 1, j: 1, PageDown: 20, ArrowLeft: -1, ArrowUp: -1, k: -1, PageUp: -20 };
    const verdicts = (entry) => entry.kind === "verdict";
    const finding = (entry) => entry.kind === "finding";
    const branching = (entry) => ["branch", "rebuild", "alarm"].includes(entry.tone);
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const typing = event.target.matches("input, select, textarea");
      if (event.key === "Escape") {
        if (!byId("legend").hidden) openLegend(false);
        else if (typing) event.target.blur();
        else clear();
        return;
      }
      if (typing) {
        if (event.key === "Enter") event.target.blur();
        return;
      }
      const actions = {
        Home: () => select(state.items[0]),
        End: () => select(state.items[state.items.length - 1]),
        n: () => jump(1, finding),
        N: () => jump(-1, finding),
        v: () => jump(1, verdicts),
        V: () => jump(-1, verdicts),
        b: () => jump(1, branching),
        B: () => jump(-1, branching),
        t: () => axis(state.mode === "time" ? "events" : "time"),
        f: fit,
        "+": () => zoom(1.6),
        "=": () => zoom(1.6),
        "-": () => zoom(1 / 1.6),
        "/": () => byId("search").focus(),
        "?": () => openLegend(byId("legend").hidden),
      };
      if (event.key in forward) step(forward[event.key]);
      else if (event.key in actions) actions[event.key]();
      else return;
      event.preventDefault();
    });
  }

  function legend() {
    const dot = (tone, region = 0) => glyph(30, 18, (context) => drawDot(context, tone, 15, 9, 5, toneColour(palette, tone, region), palette.panel));
    const arrow = (fields) => glyph(46, 18, (context) => drawArrow(context, { fate: "delivered", copy: false, ...fields }, { x: 4, y: 9 }, { x: 42, y: 9 }, palette.lane(0), palette, 1.6, true));
    const swatch = (text, style) => el("span", { class: "swatch", style }, text);
    const row = (mark, ...words) => el("li", {}, mark, el("span", {}, ...words));
    const key = (name, words) => el("li", {}, el("kbd", {}, name), el("span", {}, words));
    const tint = palette.lane(0);
    byId("legend").replaceChildren(
      el("div", {}, el("h2", {}, "Events"), el("ul", {}, row(dot("client"), "a client's call and its answer"), row(dot("worker"), "a worker's poll or completion"), row(dot("verdict"), "a verdict on what was replicated"), row(dot("branch"), "a verdict that adds a branch or changes the current one"), row(dot("waiting"), "a verdict that waits for missing events"), row(dot("shard"), "what a shard did"), row(dot("link"), "a stream that begins or ends"), row(dot("failover"), "a failover"), row(dot("fault", null), "a fault"), row(dot("healed", null), "the end of a fault"), row(dot("finding", null), "a finding"))),
      el("div", {}, el("h2", {}, "Messages"), el("ul", {}, row(arrow({}), "arrived, in the colour of the sender"), row(arrow({ copy: true }), "a second copy"), row(arrow({ fate: "cut" }), "met a cut"), row(arrow({ fate: "dropped" }), "was lost"), row(arrow({ fate: "stale" }), "arrived when its stream had ended"), row(arrow({ fate: "travelling" }), "on its way at the end")), el("h2", {}, "Lanes"), el("ul", {}, row(swatch("@1 writes", `background:color-mix(in srgb, ${tint} 30%, transparent);border-left:2px solid ${tint}`), "what the region believes: version in its owner's colour; darker where it may write"), row(swatch("down", `color:${palette.red};background:${palette["red-tint"]}`), "the region is down"), row(swatch("cut → west", `color:${palette.red};background:${palette["red-tint"]}`), "one direction is cut"))),
      el("div", {}, el("h2", {}, "Keys"), el("ul", {}, key("← →", "a step back, on"), key("PgUp PgDn", "twenty steps"), key("Home End", "first, last"), key("n N", "next finding, the one before"), key("v V", "next verdict"), key("b B", "next verdict about branches"), key("t", "axis by event or by time"), key("+ − f", "zoom; fit"), key("/", "filter by words"), key("Esc", "clear the filter"), key("?", "this legend")), el("p", { class: "soft" }, "Wheel: zoom (with Ctrl where the page scrolls). Drag: pan. The strip below the lanes is the whole run.")),
    );
    byId("legend-open").onclick = () => openLegend(byId("legend").hidden);
    byId("legend").onclick = () => openLegend(false);
  }

  function openLegend(open) {
    byId("legend").hidden = !open;
    byId("legend-open").setAttribute("aria-expanded", String(open));
  }

  // ---- Sizes and colours ---------------------------------------------------------------------------------------------

  function layout() {
    chart.resize();
    list.draw();
    detail.draw();
    redraw();
  }

  function sizes() {
    const area = byId("chart");
    const most = () => (stacked.matches ? window.innerHeight * 0.7 : byId("chart").parentElement.clientHeight - 160);
    const room = stacked.matches ? chart.leastHeight() : Math.min(most(), window.innerHeight * 0.5);
    area.style.height = clamp(chart.wantedHeight(), 150, Math.max(150, room)) + "px";
    chart.resize();
    const splitter = byId("splitter");
    splitter.addEventListener("pointerdown", (event) => {
      splitter.setPointerCapture(event.pointerId);
      const [from, height] = [event.clientY, area.clientHeight];
      const move = (moved) => {
        area.style.height = clamp(height + moved.clientY - from, 120, most()) + "px";
        layout();
      };
      splitter.addEventListener("pointermove", move);
      splitter.addEventListener("pointerup", () => splitter.removeEventListener("pointermove", move), { once: true });
    });
    window.addEventListener("resize", layout);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      Object.assign(palette, readPalette());
      chart.hatches = null;
      filters();
      legend();
      refilter();
      layout();
    });
  }
})();
