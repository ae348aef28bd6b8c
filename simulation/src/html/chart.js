// The chart: lanes over virtual time on a canvas, with an overview of the whole run below. It knows how to draw, to zoom and
// pan, and what is under the pointer; what is selected is told to it.

const GUTTER = 116, AXIS = 24, WORLD = 26, OVERVIEW = 34;

class Chart {
  constructor(canvas, tip, model, palette, callbacks) {
    Object.assign(this, { canvas, tip, model, palette, callbacks });
    this.context = canvas.getContext("2d");
    this.items = [];
    this.axis = null;
    this.selected = null;
    this.hovered = null;
    this.namespace = model.namespaces[0];
    // The first unit that is visible, and the pixels of a unit.
    this.left = 0;
    this.scale = 1;
    this.world = model.items.some((entry) => entry.type === "line" && laneOf(model, entry) === model.lanes.length);
    this.cutRows = model.lanes.map((_, from) => [...new Set(model.bands.filter((band) => band.kind === "cut" && band.from === from).map((band) => band.to))].sort());
    this.bindPointer();
  }

  // ---- What is shown -------------------------------------------------------------------------------------------------

  show(items, axis) {
    this.items = items;
    this.axis = axis;
    this.messages = items.filter((entry) => entry.type === "message");
    this.density = null;
  }

  select(entry) {
    this.selected = entry;
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas.parentElement;
    this.width = clientWidth;
    this.height = clientHeight;
    this.canvas.width = Math.round(clientWidth * ratio);
    this.canvas.height = Math.round(clientHeight * ratio);
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.density = null;
    this.clampView();
  }

  /** Height at which the lanes have the room they like. */
  wantedHeight() {
    const rows = Math.max(0, ...this.cutRows.map((row) => row.length));
    return AXIS + (this.world ? WORLD : 0) + this.model.lanes.length * (96 + rows * 13) + OVERVIEW + 8;
  }

  // ---- Zoom and pan --------------------------------------------------------------------------------------------------

  get plot() {
    return Math.max(50, this.width - GUTTER - 12);
  }

  fitScale() {
    return this.plot / Math.max(this.axis.to - this.axis.from, 1e-9);
  }

  /** All of it, but dots not wider apart than they are easy to follow. */
  fit() {
    this.left = this.axis.from;
    this.scale = this.fitScale();
    this.clampView();
  }

  /** The scale at which one reads: dots a finger apart, or, to scale, about forty moments in view. */
  comfortable() {
    const fit = this.fitScale();
    this.left = this.axis.from;
    if (this.axis.mode === "events") this.scale = Math.max(fit, 17);
    else this.scale = Math.max(fit, Math.min(fit * Math.max(1, this.axis.moments.length / 60), this.plot / 0.1));
    this.clampView();
  }

  zoom(factor, x = GUTTER + this.plot / 2) {
    const anchor = this.unit(x);
    this.scale *= factor;
    this.clampScale();
    this.left = anchor - (x - GUTTER) / this.scale;
    this.clampView();
  }

  pan(pixels) {
    this.left += pixels / this.scale;
    this.clampView();
  }

  clampScale() {
    const fit = this.fitScale();
    const most = this.axis.mode === "events" ? Math.max(fit, 140) : Math.max(fit, 5e5);
    this.scale = clamp(this.scale, fit, most);
  }

  clampView() {
    if (!this.axis || !this.width) return;
    this.clampScale();
    this.left = clamp(this.left, this.axis.from, Math.max(this.axis.from, this.axis.to - this.plot / this.scale));
  }

  /** Moves as little as needed to bring an item into view. */
  reveal(entry) {
    if (!entry || !this.axis) return;
    const [x, margin] = [this.entryX(entry), Math.min(120, this.plot / 4)];
    const [low, high] = [GUTTER + margin, GUTTER + this.plot - margin];
    if (x < low || x > high) {
      // A step over the edge scrolls by a page, so that the eye finds its place again; a jump lands in the middle.
      const far = x < GUTTER - this.plot || x > GUTTER + 2 * this.plot;
      this.left += (x - (far ? (low + high) / 2 : x > high ? low : high)) / this.scale;
      this.clampView();
    }
  }

  x(position) {
    return GUTTER + (position - this.left) * this.scale;
  }

  unit(x) {
    return this.left + (x - GUTTER) / this.scale;
  }

  timeX(at) {
    return this.x(this.axis.at(at));
  }

  /** Looks up where an item stands on the axis, once for each axis. A message leaves behind the last dot of its moment. */
  place(entry) {
    if (entry.axis === this.axis) return;
    entry.axis = this.axis;
    entry.unit = this.axis.at(entry.at);
    entry.beside = 0;
    if (entry.type === "line") entry.beside = entry.dot || 0;
    if (entry.type === "message") {
      entry.beside = Math.max(0, this.axis.dots(entry.at, entry.region) - 1);
      entry.unitArrived = this.axis.at(entry.source.arrived);
    }
  }

  entryX(entry) {
    this.place(entry);
    return this.x(entry.unit) + entry.beside * (this.axis.dotUnits ? this.scale : 7);
  }

  // ---- Rows ----------------------------------------------------------------------------------------------------------

  layout() {
    const top = AXIS + (this.world ? WORLD : 0);
    const bottom = this.height - OVERVIEW;
    const lane = Math.max(56, (bottom - top) / Math.max(1, this.model.lanes.length));
    const rows = this.model.lanes.map((_, index) => {
      const y = top + index * lane;
      const cuts = this.cutRows[index].length * 13;
      return { top: y, bottom: y + lane, strip: y + 7, life: y + 23 + (lane - 23 - cuts) / 2, cuts: y + lane - cuts - 3 };
    });
    return { rows, world: AXIS + WORLD / 2, top, bottom, overview: bottom };
  }

  lifeY(region) {
    const rows = this.rows.rows;
    return rows[region] ? rows[region].life : this.rows.world;
  }

  // ---- Drawing -------------------------------------------------------------------------------------------------------

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
    const tick = (x, label, strong) => {
      context.fillStyle = palette.rule;
      context.globalAlpha = strong ? 1 : 0.6;
      context.fillRect(Math.round(x), AXIS - 6, 1, strong ? this.height : 6);
      context.globalAlpha = 1;
      if (x + 4 < cursor.right && x + 10 + context.measureText(label).width > cursor.left) return;
      context.fillStyle = palette.soft;
      context.fillText(label, x + 4, AXIS / 2 + 1);
    };
    if (axis.mode === "time") {
      const step = roundStep((110 / this.scale) * MILLI);
      const first = Math.max(0, Math.floor(axis.time(this.left) / step));
      const last = Math.ceil(axis.time(this.unit(this.width)) / step);
      for (let n = first; n <= last && n * step <= this.model.end; n++) tick(this.timeX(n * step), span(n * step), true);
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
    let free = GUTTER;
    for (let index = from; index < axis.moments.length; index++) {
      const x = this.timeX(axis.moments[index].at);
      if (x > this.width) break;
      if (x < free || taken.some(([low, high]) => x + 60 > low && x < high)) continue;
      tick(x, span(axis.moments[index].at), false);
      free = x + 92;
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
      context.fillStyle = palette["red-tint"];
      context.fillRect(left - 3, top + height / 2 - 6, width + 6, 12);
      context.fillStyle = colour;
      context.textAlign = "left";
      context.fillText(label, left, top + height / 2 + 0.5);
    }
    this.hits.areas.push({ x0, x1, y0: top, y1: top + height, at: since, text: `${label}, ${span(since)} … ${until === null ? "the end" : span(until)}` + (until === null ? "" : ` (${span(until - since)})`) });
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
        const text = `${laneName(model, region)} believes: ${belief.namespace} @${belief.version}, ${belief.active} ${belief.phase}, ${belief.writable ? "writable here" : "read-only here"}; since ${span(belief.at)}`;
        this.hits.areas.push({ x0, x1, y0: row.strip, y1: row.strip + 15, at: belief.at, text, belief });
      }
    }
  }

  beliefsOf(region) {
    if (this.beliefNamespace !== this.namespace) {
      this.beliefNamespace = this.namespace;
      this.beliefs = this.model.lanes.map((_, lane) => this.model.beliefs.filter((belief) => belief.region === lane && belief.namespace === this.namespace));
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
      context.globalAlpha = related.has(entry) ? 1 : alpha * (quiet ? 0.5 : 1);
      const width = related.has(entry) ? 1.9 : quiet || many > 300 ? 1 : 1.3;
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
    const room = this.axis.dotUnits ? this.scale : 12;
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
    const label = span(this.selected.at);
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

  // ---- The overview --------------------------------------------------------------------------------------------------

  overviewX(position) {
    return GUTTER + ((position - this.axis.from) / (this.axis.to - this.axis.from)) * this.plot;
  }

  drawOverview() {
    const { context, palette, axis } = this;
    const top = this.rows.overview, height = OVERVIEW;
    context.fillStyle = palette.ground;
    context.fillRect(0, top, this.width, height);
    context.fillStyle = palette.rule;
    context.fillRect(0, top, this.width, 1);
    this.font(11);
    context.fillStyle = palette.soft;
    context.fillText("whole run", 14, top + height / 2);
    // A line a lane: full where it is down, faint where something from it is cut.
    const pitch = Math.min(5, (height - 8) / Math.max(1, this.model.lanes.length));
    for (const band of this.model.bands) {
      const x0 = this.overviewX(axis.at(band.since)), x1 = band.until === null ? GUTTER + this.plot : this.overviewX(axis.at(band.until));
      context.fillStyle = palette.red;
      context.globalAlpha = band.kind === "crash" ? 0.75 : 0.3;
      context.fillRect(x0, top + 4 + pitch * (band.kind === "crash" ? band.region : band.from), Math.max(1.5, x1 - x0), Math.max(1, pitch - 1));
    }
    context.globalAlpha = 0.45;
    context.fillStyle = palette.soft;
    for (const [pixel, weight] of this.densities().entries()) {
      if (weight > 0) context.fillRect(GUTTER + pixel, top + height - 5 - weight, 1, weight);
    }
    context.globalAlpha = 1;
    for (const finding of this.model.findings) {
      context.fillStyle = palette.red;
      context.fillRect(this.overviewX(axis.at(finding.at)) - 1, top + 3, 2.5, height - 6);
    }
    if (this.selected) {
      context.fillStyle = palette.accent;
      context.fillRect(this.overviewX(axis.at(this.selected.at)) - 0.5, top + 3, 1.5, height - 6);
    }
    const x0 = this.overviewX(this.left), x1 = this.overviewX(this.left + this.plot / this.scale);
    if (x1 - x0 < this.plot - 1) {
      context.strokeStyle = palette.accent;
      context.lineWidth = 1.5;
      context.fillStyle = palette.accent;
      context.globalAlpha = 0.1;
      context.fillRect(x0, top + 3, Math.max(6, x1 - x0), height - 6);
      context.globalAlpha = 1;
      context.strokeRect(x0, top + 3, Math.max(6, x1 - x0), height - 6);
    }
  }

  /** Heights of the overview's columns: how much happens there, by logarithm. */
  densities() {
    if (this.density) return this.density;
    const columns = new Array(Math.ceil(this.plot) + 1).fill(0);
    for (const entry of this.items) columns[clamp(Math.round(this.overviewX(this.axis.at(entry.at)) - GUTTER), 0, columns.length - 1)] += 1;
    const most = Math.log(1 + Math.max(1, ...columns));
    this.density = columns.map((weight) => (weight === 0 ? 0 : 2 + ((OVERVIEW - 14) * Math.log(1 + weight)) / most));
    return this.density;
  }

  // ---- The pointer ---------------------------------------------------------------------------------------------------

  /** What is under a point: a dot before an arrow before a strip or band. */
  under(x, y) {
    if (!this.hits || x < GUTTER || y > this.rows.overview) return null;
    let best = null;
    const offer = (distance, limit, found) => {
      if (distance < limit && (!best || distance < best.distance)) best = { ...found, distance };
    };
    for (const dot of this.hits.dots) offer(Math.hypot(dot.x - x, dot.y - y), 9, { entry: dot.entry });
    if (best) return best;
    for (const arrow of this.hits.arrows) offer(distanceTo(arrow, x, y), 6, { entry: arrow.entry });
    if (best) return best;
    // The last drawn is the topmost.
    return this.hits.areas.findLast((area) => x >= area.x0 && x <= area.x1 && y >= area.y0 && y <= area.y1) || null;
  }

  bindPointer() {
    const { canvas } = this;
    let press = null;
    const point = (event) => {
      const box = canvas.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    const seek = (x) => {
      const position = this.axis.from + ((x - GUTTER) / this.plot) * (this.axis.to - this.axis.from);
      this.left = position - this.plot / this.scale / 2;
      this.clampView();
      this.callbacks.redraw();
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      const { x, y } = point(event);
      press = { x, y, last: x, moved: false, overview: y > this.rows.overview };
      canvas.setPointerCapture(event.pointerId);
      if (press.overview) seek(x);
    });
    canvas.addEventListener("pointermove", (event) => {
      const { x, y } = point(event);
      if (!press) return this.hover(x, y);
      if (press.overview) return seek(x);
      if (Math.abs(x - press.x) > 4) press.moved = true;
      if (press.moved) {
        this.pan(press.last - x);
        this.hideTip();
        canvas.classList.add("dragging");
        this.callbacks.redraw();
      }
      press.last = x;
    });
    canvas.addEventListener("pointerup", (event) => {
      const { x, y } = point(event);
      const click = press && !press.moved && !press.overview;
      press = null;
      canvas.classList.remove("dragging");
      if (!click) return;
      const found = this.under(x, y);
      if (found && found.entry) this.callbacks.select(found.entry);
      else if (found) this.callbacks.seek(found.at);
      else if (x > GUTTER) this.callbacks.seek(this.axis.time(this.unit(x)));
    });
    canvas.addEventListener("pointerleave", () => {
      this.hovered = null;
      this.hideTip();
      this.callbacks.redraw();
    });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const { x } = point(event);
      if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.pan(event.deltaX || event.deltaY);
      else this.zoom(Math.exp(-clamp(event.deltaY, -120, 120) * 0.004), Math.max(x, GUTTER));
      this.hideTip();
      this.callbacks.redraw();
    }, { passive: false });
    canvas.addEventListener("dblclick", (event) => {
      const { x } = point(event);
      this.zoom(2.5, Math.max(x, GUTTER));
      this.callbacks.redraw();
    });
  }

  hover(x, y) {
    const found = this.under(x, y);
    const entry = found && found.entry ? found.entry : null;
    if (entry !== this.hovered) {
      this.hovered = entry;
      this.callbacks.redraw();
    }
    this.canvas.classList.toggle("pointing", Boolean(found));
    if (!found) return this.hideTip();
    const lines = entry ? tipLines(this.model, entry) : ["", found.text];
    this.tip.replaceChildren(lines[0] ? el("b", {}, lines[0]) : "", el("span", {}, lines[1]));
    this.tip.hidden = false;
    const width = this.tip.offsetWidth, height = this.tip.offsetHeight;
    this.tip.style.left = clamp(x + 14, 4, Math.max(4, this.width - width - 4)) + "px";
    this.tip.style.top = (y + 20 + height > this.height ? y - height - 12 : y + 18) + "px";
  }

  hideTip() {
    this.tip.hidden = true;
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
  if (entry.type !== "message") return [[span(entry.at), entry.where, entry.kind].filter(Boolean).join(" · "), entry.text];
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
