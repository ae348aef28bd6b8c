// The chart as a whole: the lanes, the overview of the run below them, and the pointer. What is selected is told to it.

class Chart extends Lanes {
  constructor(...parts) {
    super(...parts);
    this.bindPointer();
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
      // A page that scrolls must not end at the chart.
      if (this.callbacks.stacked() && !event.ctrlKey && !event.shiftKey) return;
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
