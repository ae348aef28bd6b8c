// The list of events: only the rows in view exist, so that its length doesn't matter.

const ROW = 26;

class List {
  constructor(scroller, rows, model, palette, select) {
    Object.assign(this, { scroller, rows, model, palette, select });
    this.items = [];
    this.selected = null;
    // Rows that exist, by position. Most stay when the list moves on by one.
    this.shown = new Map();
    scroller.addEventListener("scroll", () => this.draw());
    rows.addEventListener("click", (event) => {
      const row = event.target.closest("[data-index]");
      if (row) this.select(this.model.items[Number(row.dataset.index)]);
    });
  }

  show(items) {
    this.items = items;
    this.shown.clear();
    // A pause that is long for this run is marked where it ends.
    const pauses = items.slice(1).map((entry, index) => entry.at - items[index].at).filter((pause) => pause > 0).sort((a, b) => a - b);
    this.timeWidth(items);
    this.long = Math.max((pauses[Math.floor(pauses.length / 2)] || 0) * 20, 200 * MILLI);
    this.rows.style.height = items.length * ROW + "px";
    this.draw();
  }

  /** The column of times is as wide as the longest one, and not wider. */
  timeWidth(items) {
    const longest = items.reduce((most, entry) => Math.max(most, moment(entry.at, entry.gap).length), 8);
    this.rows.style.setProperty("--time", `${Math.ceil(longest * 6.3 + 14)}px`);
  }

  /** Position of an item among the visible ones, or of the next one. */
  position(entry) {
    return firstIndex(this.items, (candidate) => candidate.index >= entry.index);
  }

  reveal(entry) {
    const top = this.position(entry) * ROW, { scrollTop, clientHeight } = this.scroller;
    const margin = Math.min(3 * ROW, clientHeight / 4);
    if (top < scrollTop + margin) this.scroller.scrollTop = top - (top < scrollTop - clientHeight ? clientHeight / 2 : margin);
    else if (top + ROW > scrollTop + clientHeight - margin) {
      this.scroller.scrollTop = top + ROW - clientHeight + (top > scrollTop + 2 * clientHeight ? clientHeight / 2 : margin);
    }
  }

  draw() {
    const { scrollTop, clientHeight } = this.scroller;
    const first = Math.max(0, Math.floor(scrollTop / ROW) - 4);
    const last = Math.min(this.items.length, Math.ceil((scrollTop + clientHeight) / ROW) + 4);
    const shown = new Map();
    for (let index = first; index < last; index++) shown.set(index, this.shown.get(index) || this.row(index));
    for (const [index, row] of this.shown) if (!shown.has(index)) row.remove();
    for (const [index, row] of shown) {
      const entry = this.items[index], selected = entry === this.selected;
      row.classList.toggle("selected", selected);
      row.classList.toggle("together", Boolean(this.selected) && entry.at === this.selected.at);
      row.setAttribute("aria-selected", String(selected));
      if (!this.shown.has(index)) this.rows.append(row);
    }
    if (this.shown.size === 0) this.rows.replaceChildren(...shown.values());
    this.shown = shown;
    if (this.items.length === 0) this.rows.append(el("p", { class: "nothing" }, this.model.items.length === 0 ? "Nothing was recorded." : "Nothing passes the filter."));
    this.scroller.setAttribute("aria-activedescendant", this.selected ? `row-${this.selected.index}` : "");
  }

  row(index) {
    const entry = this.items[index], before = this.items[index - 1];
    const repeated = before && before.at === entry.at && before.step === entry.step;
    const [head, rest] = momentParts(entry.at, entry.gap);
    const pause = before && entry.at - before.at > this.long ? entry.at - before.at : 0;
    const classes = ["row", entry.kind === "finding" && "bad", pause && "late", entry.type === "message" && "wire", entry.lost && "lost"];
    return el(
      "div",
      {
        class: classes.filter(Boolean).join(" "),
        style: `top:${index * ROW}px`,
        id: `row-${entry.index}`,
        role: "option",
        "data-index": entry.index,
        "aria-posinset": index + 1,
        "aria-setsize": this.items.length,
        title: pause ? `${span(pause)} after the one before` : null,
      },
      el("span", { class: "time" + (repeated ? " repeated" : "") }, el("span", { class: before && momentParts(before.at)[0] === head ? "shared" : null }, head), rest),
      el("span", { class: "step" + (repeated ? " repeated" : "") }, `#${entry.step}`),
      el("span", { class: "where", style: entry.region === null || entry.region === undefined ? null : `color:${this.palette.lane(entry.region)}` }, entry.where),
      kindCell(this.palette, entry),
      el("span", { class: "text" }, entry.text),
      el("span", { class: "tail" }, tail(entry)),
    );
  }
}

function kindCell(palette, entry) {
  const colour = toneColour(palette, entry.tone, entry.region);
  return el("span", { class: "kind" }, dotGlyph(entry.tone, colour, palette.panel), entry.kind);
}

/** What stands at the end of a row: how a message ended, or the workflow. */
function tail(entry) {
  if (entry.type === "message") return [entry.source.copy && el("i", { class: "pill" }, "copy"), entry.lost ? el("i", { class: "pill red" }, entry.source.fate) : entry.source.fate === "travelling" ? "on its way" : span(entry.source.arrived - entry.at)];
  if (entry.tone === "alarm") return [el("i", { class: "pill red" }, "alarm"), entry.workflows[0] || ""];
  if (entry.tone === "rebuild") return [el("i", { class: "pill amber" }, "switches"), entry.workflows[0] || ""];
  if (entry.tone === "branch") return [el("i", { class: "pill amber" }, "new branch"), entry.workflows[0] || ""];
  return entry.workflows[0] || "";
}
