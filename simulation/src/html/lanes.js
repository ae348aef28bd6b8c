// The lanes: everything on the canvas above the overview. Later layers lie on earlier ones.

class Lanes extends View {
  draw() {
    if (!this.axis || !this.width) return;
    const { context } = this;
    this.rows = this.layout();
    this.hits = { dots: [], arrows: [], areas: [] };
    context.clearRect(0, 0, this.width, this.height);
    context.textBaseline = "middle";
    context.save();
    context.beginPath();
    context.rect(GUTTER, 0, this.width - GUTTER, this.rows.bottom);
    context.clip();
    if (this.axis.mode === "events") this.drawGaps();
    this.drawGround();
    this.drawTicks();
    this.drawBands();
    this.drawFindings();
    this.drawCursor();
    this.drawMessages();
    this.drawBeliefs();
    this.drawDots();
    this.drawHighlights();
    context.restore();
    this.drawGutter();
    this.drawOverview();
  }

  font(size, weight = 400, family = this.palette.sans) {
    this.context.font = `${weight} ${size}px ${family}`;
  }

  drawGround() {
    const { context, palette } = this;
    for (const [index, row] of this.rows.rows.entries()) {
      context.fillStyle = palette.rule;
      context.fillRect(GUTTER, Math.round(row.top), this.width, 1);
      context.globalAlpha = 0.55;
      context.fillStyle = palette.lane(index);
      context.fillRect(GUTTER, Math.round(row.life), this.width, 1);
      context.globalAlpha = 1;
    }
    context.fillStyle = palette.rule;
    context.fillRect(GUTTER, AXIS - 1, this.width, 1);
  }

  /** Where time was left out. */
  drawGaps() {
    const { context, palette } = this;
    context.fillStyle = palette.sunk;
    for (const gap of this.axis.gaps) {
      const [from, to] = [this.x(gap.from), this.x(gap.to)];
      if (to < GUTTER || from > this.width) continue;
      context.fillRect(from, AXIS, Math.max(1, to - from), this.rows.bottom - AXIS);
      this.hits.areas.push({ x0: from, x1: to, y0: 0, y1: this.rows.bottom, at: this.axis.time(gap.to), text: `${span(gap.pause)} in which nothing of this happened` });
    }
  }

  drawTicks() {
    const { context, palette, axis } = this;
    this.font(11);
    context.textAlign = "left";
    const cursor = this.selected ? this.cursorBox() : { left: -1, right: -1 };
    this.font(11);
    // From a minute on, the hours and minutes stand where they change, and at the left; the others say their seconds only.
    let shared = null, free = GUTTER;
    const tick = (x, at, gap, strong) => {
      context.fillStyle = palette.rule;
      context.globalAlpha = strong ? 1 : 0.6;
      context.fillRect(Math.round(x), AXIS - 6, 1, strong ? this.height : 6);
      context.globalAlpha = 1;
      const [head, rest] = momentParts(at, gap);
      const label = head === shared && rest !== "" ? rest : head + rest;
      const right = x + 10 + context.measureText(label).width;
      if (x < free || (x + 4 < cursor.right && right > cursor.left)) return;
      [shared, free] = [head, right];
      context.fillStyle = palette.soft;
      context.fillText(label, x + 4, AXIS / 2 + 1);
    };
    if (axis.mode === "time") {
      const step = roundStep((110 / this.scale) * MILLI);
      const first = Math.max(0, Math.floor(axis.time(this.left) / step));
      const last = Math.ceil(axis.time(this.unit(this.width)) / step);
      for (let n = first; n <= last && n * step <= this.model.end; n++) tick(this.timeX(n * step), n * step, step, true);
      return;
    }
    // By event: the length of pauses first, then as many moments as fit.
    const taken = [];
    for (const gap of axis.gaps) {
      const [from, to] = [this.x(gap.from), this.x(gap.to)];
      if (to < GUTTER || from > this.width) continue;
      const label = `+${span(gap.pause)}`;
      const width = context.measureText(label).width;
      if (to - from > width + 4 && (to < cursor.left || from > cursor.right)) {
        context.fillStyle = palette.faint;
        context.fillText(label, (from + to - width) / 2, AXIS / 2 + 1);
        taken.push([from, to]);
      }
    }
    const from = firstIndex(axis.moments, (moment) => this.timeX(moment.at) >= GUTTER);
    let next = GUTTER;
    for (let index = from; index < axis.moments.length; index++) {
      const { at } = axis.moments[index], x = this.timeX(at);
      if (x > this.width) break;
      if (x < next || taken.some(([low, high]) => x + 60 > low && x < high)) continue;
      const gap = Math.min(index > 0 ? at - axis.moments[index - 1].at : MILLI, index + 1 < axis.moments.length ? axis.moments[index + 1].at - at : MILLI);
      tick(x, at, Math.min(gap, MILLI), false);
      next = x + 92;
    }
  }

  hatch(colour) {
    if (!this.hatches) this.hatches = new Map();
    if (!this.hatches.has(colour)) {
      const tile = document.createElement("canvas");
      tile.width = tile.height = 6;
      const context = tile.getContext("2d");
      context.strokeStyle = colour;
      context.lineWidth = 1.2;
      context.beginPath();
      for (const shift of [-6, 0, 6]) {
        context.moveTo(shift, 6);
        context.lineTo(shift + 6, 0);
      }
      context.stroke();
      this.hatches.set(colour, this.context.createPattern(tile, "repeat"));
    }
    return this.hatches.get(colour);
  }

  /** A time in which something was so, over a row. */
  drawSpan(since, until, top, height, colour, label, full) {
    const { context, palette } = this;
    const x0 = this.timeX(since), x1 = Math.max(x0 + 2, until === null ? this.x(this.axis.to) : this.timeX(until));
    if (x1 < GUTTER || x0 > this.width) return;
    context.fillStyle = palette["red-tint"];
    context.fillRect(x0, top, x1 - x0, height);
    context.globalAlpha = full ? 0.4 : 0.5;
    context.fillStyle = this.hatch(colour);
    context.fillRect(x0, top, x1 - x0, height);
    context.globalAlpha = 1;
    context.fillStyle = colour;
    context.fillRect(x0, top, 1.5, height);
    if (until !== null) context.fillRect(x1 - 1.5, top, 1.5, height);
    this.font(10.5, 600);
    const left = Math.max(x0, GUTTER) + 6, width = context.measureText(label).width;
    if (x1 - left > width + 6) {
      // In a high band the dots are in the middle.
      const y = full ? top + 8 : top + height / 2;
      context.fillStyle = palette["red-tint"];
      context.fillRect(left - 3, y - 6, width + 6, 12);
      context.fillStyle = colour;
      context.textAlign = "left";
      context.fillText(label, left, y + 0.5);
    }
    this.hits.areas.push({ x0, x1, y0: top, y1: top + height, at: since, text: `${label}, ${moment(since)} … ${until === null ? "the end" : moment(until)}` + (until === null ? "" : ` (${span(until - since)})`) });
  }

  drawBands() {
    for (const band of this.model.bands) {
      if (band.kind === "crash") {
        const row = this.rows.rows[band.region];
        if (row) this.drawSpan(band.since, band.until, row.top + 25, row.cuts - row.top - 27, this.palette.red, `${laneName(this.model, band.region)} down`, true);
      } else if (band.kind === "cut") {
        const row = this.rows.rows[band.from];
        if (!row) continue;
        const index = this.cutRows[band.from].indexOf(band.to);
        this.drawSpan(band.since, band.until, row.cuts + index * 13, 12, this.palette.red, `cut → ${laneName(this.model, band.to)}`, false);
      }
    }
  }

  /** The namespace as each region sees it: in the colour of the owner of the version, full where it may write. */
  drawBeliefs() {
    const { context, palette, model } = this;
    for (const [region, row] of this.rows.rows.entries()) {
      const own = this.beliefsOf(region);
      for (const [index, belief] of own.entries()) {
        const until = index + 1 < own.length ? own[index + 1].at : null;
        const x0 = Math.max(this.timeX(belief.at), GUTTER - 2), x1 = until === null ? this.width + 2 : this.timeX(until);
        if (x1 < GUTTER || x0 > this.width || x1 <= x0) continue;
        const colour = palette.owner(model.owners(belief.version));
        context.fillStyle = colour;
        context.globalAlpha = belief.writable ? 0.3 : 0.1;
        context.fillRect(x0, row.strip, x1 - x0 - 1, 15);
        context.globalAlpha = 1;
        context.fillRect(x0, row.strip, 2, 15);
        this.font(10.5, 600, palette.mono);
        context.textAlign = "left";
        const left = Math.max(x0, GUTTER) + 6;
        const long = `@${belief.version} ${belief.active}${belief.phase === "active" ? "" : " " + belief.phase}${belief.writable ? " · writes" : ""}`;
        const label = [long, `@${belief.version} ${belief.active}`, `@${belief.version}`].find((text) => context.measureText(text).width < x1 - left - 4);
        if (label) {
          context.fillStyle = belief.writable ? palette.ink : palette.soft;
          context.fillText(label, left, row.strip + 8);
        }
        const text = `${laneName(model, region)} believes: ${belief.namespace} @${belief.version}, ${belief.active} ${belief.phase}, ${belief.writable ? "writable here" : "read-only here"}; since ${moment(belief.at)}`;
        this.hits.areas.push({ x0, x1, y0: row.strip, y1: row.strip + 15, at: belief.at, text, belief });
      }
    }
  }

  beliefsOf(region) {
    if (this.beliefNamespace !== this.namespace) {
      this.beliefNamespace = this.namespace;
      // A region that starts again says again what it believed before.
      const same = (a, b) => a && a.version === b.version && a.active === b.active && a.phase === b.phase && a.writable === b.writable;
      this.beliefs = this.model.lanes.map((_, lane) => this.model.beliefs.filter((belief) => belief.region === lane && belief.namespace === this.namespace).filter((belief, index, all) => !same(all[index - 1], belief)));
    }
    return this.beliefs[region];
  }

  drawFindings() {
    const { context, palette } = this;
    for (const finding of this.model.findings) {
      const x = this.timeX(finding.at);
      if (x < GUTTER - 2 || x > this.width + 2) continue;
      context.fillStyle = palette.red;
      context.fillRect(Math.round(x) - 0.5, AXIS, 1.5, this.rows.bottom - AXIS);
    }
  }

  drawCursor() {
    if (!this.selected) return;
    const { context, palette } = this;
    const x = Math.round(this.entryX(this.selected));
    context.fillStyle = palette.accent;
    context.globalAlpha = 0.1;
    context.fillRect(x - 5, AXIS, 11, this.rows.bottom - AXIS);
    context.globalAlpha = 0.75;
    context.fillRect(x, AXIS, 1, this.rows.bottom - AXIS);
    context.globalAlpha = 1;
  }

  /** Ends of an arrow, a little off the lifelines, so that dots stay readable. */
  ends(entry) {
    const message = entry.source;
    const [y0, y1] = [this.lifeY(message.from), this.lifeY(message.to)];
    const off = Math.sign(y1 - y0) * 5;
    const from = { x: this.entryX(entry), y: y0 + off };
    const to = { x: this.x(entry.unitArrived), y: y1 - off };
    if (y0 === y1) {
      from.y = y0 - 5;
      to.y = y1 - 14;
    }
    return { from, to };
  }

  drawMessages() {
    const { context, palette } = this;
    const shown = [];
    for (const entry of this.messages) {
      const { from, to } = this.ends(entry);
      if (Math.max(from.x, to.x) < GUTTER - 10 || Math.min(from.x, to.x) > this.width + 10) continue;
      shown.push({ entry, from, to });
    }
    const many = shown.length;
    const alpha = many < 330 ? clamp(90 / Math.max(many, 1), 0.28, 0.85) : Math.max(0.07, 92 / many);
    const related = this.related();
    for (const { entry, from, to } of shown) {
      const message = entry.source;
      const quiet = message.workflows.length === 0;
      // With something selected, what it sent and what brought it stand out.
      const pending = message.fate === "travelling";
      context.globalAlpha = related.has(entry) ? 1 : alpha * (quiet || pending ? 0.5 : 1);
      const width = related.has(entry) ? 1.9 : quiet || pending || many > 300 ? 1 : 1.3;
      const end = drawArrow(context, message, from, to, palette.lane(message.from), palette, width, many < 260);
      this.hits.arrows.push({ x0: from.x, y0: from.y, x1: end.x, y1: end.y, entry });
    }
    context.globalAlpha = 1;
    // Where there are few, there is room to say what each is.
    this.labelled = many <= 9 ? shown : [];
  }

  /** Messages that arrived or left where and when the selected line happened, or the selected message itself. */
  related() {
    const selected = this.selected;
    if (!selected) return new Set();
    if (selected.type === "message") return new Set([selected]);
    const { brought, sent } = messagesAround(this.model, selected);
    return new Set([...brought, ...sent]);
  }

  arrowLabel(entry, from, to, strong) {
    const { context, palette } = this;
    const message = entry.source;
    const label = strong ? `${message.kind}${content(message) ? " · " + content(message) : ""}` : message.kind;
    const length = Math.hypot(to.x - from.x, to.y - from.y);
    this.font(strong ? 11.5 : 10.5, strong ? 600 : 400);
    const text = label.length > 60 ? label.slice(0, 59) + "…" : label;
    const width = context.measureText(text).width;
    if (!strong && width > length * 0.6) return;
    const share = message.fate === "cut" ? 0.2 : message.fate === "dropped" ? 0.34 : 0.42;
    const x = clamp(from.x + (to.x - from.x) * share, GUTTER + width / 2 + 8, this.width - width / 2 - 10);
    const y = from.y + (to.y - from.y) * share;
    context.fillStyle = palette.panel;
    context.globalAlpha = strong ? 1 : 0.85;
    context.beginPath();
    context.roundRect(x - width / 2 - 5, y - 8, width + 10, 16, 4);
    context.fill();
    context.globalAlpha = 1;
    if (strong) {
      context.strokeStyle = palette.accent;
      context.lineWidth = 1;
      context.stroke();
    }
    context.fillStyle = strong ? palette.ink : palette.soft;
    context.textAlign = "center";
    context.fillText(text, x, y + 0.5);
    context.textAlign = "left";
  }

  drawDots() {
    const { context, palette } = this;
    const room = this.axis.mode === "events" ? this.scale : 12;
    const r = clamp(room * 0.3, 1.4, 5);
    for (const entry of this.items) {
      if (entry.type !== "line") continue;
      const x = this.entryX(entry);
      if (x < GUTTER - 8 || x > this.width + 8) continue;
      const y = this.lifeY(laneOf(this.model, entry));
      drawDot(context, entry.tone, x, y, entry.kind === "finding" ? Math.max(r, 5) : r, toneColour(palette, entry.tone, entry.region), palette.panel);
      this.hits.dots.push({ x, y, entry });
    }
  }

  drawHighlights() {
    const { context, palette } = this;
    for (const { entry, from, to } of this.labelled) if (entry !== this.selected) this.arrowLabel(entry, from, to, false);
    for (const [entry, colour] of [[this.hovered, palette.soft], [this.selected, palette.accent]]) {
      if (!entry) continue;
      if (entry.type === "message") {
        const { from, to } = this.ends(entry);
        drawArrow(context, entry.source, from, to, palette.lane(entry.source.from), palette, entry === this.selected ? 2.8 : 2.2, true);
        if (entry === this.selected) this.arrowLabel(entry, from, to, true);
      } else if (entry.type === "line") {
        context.beginPath();
        context.lineWidth = 2;
        context.strokeStyle = colour;
        context.arc(this.entryX(entry), this.lifeY(laneOf(this.model, entry)), 9, 0, 7);
        context.stroke();
      } else {
        const row = this.rows.rows[entry.region];
        if (!row) continue;
        context.strokeStyle = colour;
        context.lineWidth = 2;
        context.strokeRect(this.timeX(entry.at) - 1, row.strip - 1, 20, 17);
      }
    }
    if (this.selected) this.cursorLabel();
  }

  cursorBox() {
    const label = moment(this.selected.at, this.selected.gap);
    this.font(11, 600);
    const width = this.context.measureText(label).width + 12;
    const left = clamp(this.entryX(this.selected) - width / 2, GUTTER, this.width - width);
    return { label, left, width, right: left + width };
  }

  cursorLabel() {
    const { context, palette } = this;
    const { label, left, width } = this.cursorBox();
    context.fillStyle = palette.accent;
    context.beginPath();
    context.roundRect(left, 3, width, AXIS - 6, 4);
    context.fill();
    context.fillStyle = palette.panel;
    context.textAlign = "center";
    context.fillText(label, left + width / 2, AXIS / 2 + 0.5);
    context.textAlign = "left";
  }

  /** Names of the regions, and what each is at the selected moment. */
  drawGutter() {
    const { context, palette, model } = this;
    context.fillStyle = palette.panel;
    context.fillRect(0, 0, GUTTER, this.rows.bottom);
    context.fillStyle = palette.rule;
    context.fillRect(GUTTER - 1, AXIS, 1, this.rows.bottom - AXIS);
    context.textAlign = "left";
    if (this.world) {
      this.font(11);
      context.fillStyle = palette.soft;
      context.fillText("world", 14, this.rows.world);
    }
    const at = this.selected ? this.selected.at : 0;
    for (const [index, lane] of model.lanes.entries()) {
      const row = this.rows.rows[index];
      context.fillStyle = palette.rule;
      context.fillRect(0, Math.round(row.top), GUTTER, 1);
      context.fillStyle = palette.lane(index);
      context.fillRect(0, Math.round(row.top) + 1, 4, row.bottom - row.top - 1);
      this.font(13.5, 650);
      this.clipText(lane.name, 14, row.life, GUTTER - 20);
      const belief = beliefAt(model, index, this.namespace, at);
      const down = model.bands.some((band) => band.kind === "crash" && band.region === index && during(band, at));
      this.font(10.5, 400);
      context.fillStyle = down ? palette.red : palette.soft;
      const state = down ? "down" : belief ? `@${belief.version} ${belief.writable ? "writes" : "reads"}` : "";
      this.clipText(state, 14, row.life + 16, GUTTER - 20);
    }
  }

  clipText(text, x, y, width) {
    let shown = text;
    while (shown.length > 1 && this.context.measureText(shown).width > width) shown = shown.slice(0, -2) + "…";
    this.context.fillText(shown, x, y);
  }
}

/** Messages that arrived at a line's region in its moment, and those that left then. */
function messagesAround(model, entry) {
  if (entry.region === null || entry.region === undefined) return { brought: [], sent: [] };
  if (!model.arrivals) {
    model.arrivals = new Map();
    model.departures = new Map();
    const add = (map, region, at, item) => {
      const key = `${region} ${at}`;
      if (!map.has(key)) map.set(key, []);
      map.get(key).push(item);
    };
    for (const item of model.items) {
      if (item.type !== "message") continue;
      if (item.source.fate === "delivered" || item.source.fate === "stale") add(model.arrivals, item.source.to, item.source.arrived, item);
      add(model.departures, item.source.from, item.source.sent, item);
    }
  }
  const key = `${entry.region} ${entry.at}`;
  return { brought: model.arrivals.get(key) || [], sent: model.departures.get(key) || [] };
}

function distanceTo({ x0, y0, x1, y1 }, x, y) {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const share = clamp(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy || 1), 0, 1);
  return Math.hypot(x - x0 - share * dx, y - y0 - share * dy);
}

/** What hovering says: a head and a sentence. */
function tipLines(model, entry) {
  if (entry.type !== "message") return [[moment(entry.at, entry.gap), entry.where, entry.kind].filter(Boolean).join(" · "), entry.text];
  return [`${entry.source.kind} ${laneName(model, entry.source.from)} → ${laneName(model, entry.source.to)} · ${fateWords(entry.source)}`, content(entry.source)];
}

function fateWords(message) {
  const took = span(message.arrived - message.sent);
  const copy = message.copy ? "a second copy, " : "";
  switch (message.fate) {
    case "delivered":
      return `${copy}arrived after ${took}`;
    case "dropped":
      return `${copy}lost`;
    case "cut":
      return `${copy}met a cut`;
    case "stale":
      return `${copy}arrived after ${took}, when its stream had ended`;
    default:
      return `${copy}on its way at the end`;
  }
}
