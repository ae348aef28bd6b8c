// What part of the run the chart shows, and where in it things stand: zoom and pan, rows, positions.

const GUTTER = 116, AXIS = 24, WORLD = 26, OVERVIEW = 34;

class View {
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

  /** Height below which lanes would lie on each other. */
  leastHeight() {
    const rows = Math.max(0, ...this.cutRows.map((row) => row.length));
    return AXIS + (this.world ? WORLD : 0) + this.model.lanes.length * (68 + rows * 13) + OVERVIEW;
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
    const lane = laneOf(this.model, entry);
    entry.room = this.axis.mode === "events" ? 1 : this.axis.room(entry.at, lane);
    if (entry.type === "line") entry.beside = entry.dot || 0;
    if (entry.type === "message") {
      entry.beside = Math.max(0, this.axis.dots(entry.at, lane) - 1);
      entry.unitArrived = this.axis.at(entry.source.arrived);
    }
  }

  entryX(entry) {
    this.place(entry);
    // By event every dot has its unit. To scale, dots of one moment stand side by side only as far as nothing else is there.
    const pitch = this.axis.mode === "events" ? this.scale : Math.min(7, entry.room * this.scale);
    return this.x(entry.unit) + entry.beside * pitch;
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
}
