// The panel beside the list: the selected event in full, what was so in its moment, and the branches of its run.

class Detail {
  constructor(panel, model, palette, callbacks) {
    Object.assign(this, { panel, model, palette, callbacks });
    // The run that was shown last: it stays when an event names none, or when the reader wants it to. The branch clicked.
    this.run = this.firstRun();
    this.keep = false;
    this.branch = null;
    this.entry = null;
  }

  show(entry) {
    this.entry = entry;
    this.draw();
  }

  get width() {
    return Math.max(240, this.panel.clientWidth - 36);
  }

  draw() {
    const { entry } = this;
    if (!entry) {
      this.panel.replaceChildren(el("p", { class: "nothing" }, "Select an event."));
      return;
    }
    const parts = [this.head(entry)];
    if (entry.type === "message") parts.push(this.message(entry));
    if (entry.source.detail) parts.push(this.verdict(entry.source.detail));
    parts.push(this.neighbours(entry), this.branches(entry), this.state(entry));
    // Who has scrolled down to the branches wants to see them change while stepping: what they look at stays where it is.
    const anchor = this.panel.scrollTop > 0 ? [...this.panel.children].find((part) => part.offsetTop + part.offsetHeight > this.panel.scrollTop + 40) : null;
    const title = anchor && anchor.dataset.title, shift = anchor && anchor.offsetTop - this.panel.scrollTop;
    this.panel.replaceChildren(...parts.filter(Boolean));
    const same = title && [...this.panel.children].find((part) => part.dataset.title === title);
    this.panel.scrollTop = same ? same.offsetTop - shift : 0;
  }

  section(title, ...children) {
    return el("section", { "data-title": title }, el("h2", {}, title), ...children);
  }

  head(entry) {
    const colour = entry.region === null || entry.region === undefined ? null : `color:${this.palette.lane(entry.region)}`;
    return el(
      "section",
      { class: "event" + (entry.kind === "finding" ? " bad" : "") },
      el("p", { class: "where-when" }, kindCell(this.palette, entry), entry.where && el("b", { style: colour }, entry.where), el("span", { class: "soft" }, `step ${grouped(entry.step)}`), el("code", { class: "soft", title: "Virtual time since the beginning" }, exact(entry.at))),
      // A verdict's report says all that its sentence says.
      !this.reported(entry) && el("p", { class: "sentence" }, entry.type === "message" ? this.messageSentence(entry.source) : entry.text.split("\n", 1)[0]),
      entry.type !== "message" && this.lines(entry.text),
      entry.workflows.length > 0 && el("p", { class: "about" }, entry.workflows.slice(0, 12).map((id) => this.workflowButton(id, entry.run)), entry.workflows.length > 12 && el("span", { class: "soft" }, `and ${entry.workflows.length - 12} more`)),
    );
  }

  /** What follows the first line of a text, in lines of its own. */
  lines(text) {
    const lines = text.split("\n").slice(1);
    return lines.length > 0 && el("div", { class: "lines" }, lines.map((line) => el("p", {}, line.trim())));
  }

  reported(entry) {
    const { detail } = entry.source;
    return Boolean(detail && detail.verdict && detail.reason && entry.text.startsWith(detail.verdict));
  }

  workflowButton(id, run) {
    return el("button", { type: "button", class: "chip", title: "Show only this workflow", onclick: () => this.callbacks.filter(id) }, run ? `${id} / ${run}` : id);
  }

  messageSentence(message) {
    const name = (region) => el("b", { style: `color:${this.palette.lane(region)}` }, laneName(this.model, region));
    return [`${message.kind} `, name(message.from), " → ", name(message.to), content(message) ? `: ${content(message)}` : ""];
  }

  message(entry) {
    const message = entry.source;
    const facts = el("dl", { class: "facts" });
    const fact = (name, ...value) => facts.append(el("dt", {}, name), el("dd", {}, ...value));
    fact("sent", el("code", {}, exact(message.sent)));
    if (message.fate === "delivered" || message.fate === "stale") fact("arrived", el("code", {}, exact(message.arrived)), ` after ${span(message.arrived - message.sent)}`);
    fact("fate", el("span", { class: entry.lost ? "red" : null }, fateWords(message)));
    if (message.copy) fact("copy", "the network delivered this message twice");
    return this.section("Message", facts);
  }

  /** A verdict's own report. What this page doesn't know is shown as it is. */
  verdict(detail) {
    if (typeof detail !== "object" || detail === null || detail.verdict === undefined) {
      return this.section("Detail", el("pre", {}, JSON.stringify(detail, null, 2)));
    }
    const tone = verdictTone(detail);
    const parts = [el("p", { class: "verdict-line" }, el("span", { class: `badge ${tone}` }, detail.verdict), detail.reason || "")];
    if (detail.fork) parts.push(el("p", { class: "alarm" }, "One owner wrote equal event ids and versions twice."));
    if (detail.problem) parts.push(el("p", { class: "alarm" }, detail.problem));
    const bars = [["incoming", detail.incoming], ["stored", detail.local], ["afterwards", detail.winner]].filter(([, items]) => items);
    if (bars.length > 0) {
      const rows = bars.map(([name, items]) => ({ name, items }));
      parts.push(historyBars(this.model, this.palette, rows, detail.ancestor, this.width));
    }
    const facts = el("dl", { class: "facts" });
    const fact = (name, ...value) => facts.append(el("dt", {}, name), el("dd", {}, ...value));
    if (detail.incoming) fact("incoming", el("code", {}, detail.incoming), detail.incoming_chain && el("code", { class: "soft chain" }, `chain ${detail.incoming_chain}`));
    if (detail.state) fact("state", detail.state, detail.incoming_chain && el("code", { class: "soft chain" }, `chain ${detail.incoming_chain}`));
    if (detail.local) fact("stored", el("code", {}, detail.local));
    if (detail.ancestor) fact("ancestor", el("code", {}, detail.ancestor), el("span", { class: "soft" }, " last event shared by content"));
    if (detail.arithmetic && detail.arithmetic.length > 0) fact("by the lists", el("ol", { class: "arithmetic" }, detail.arithmetic.map((step) => el("li", {}, step))));
    if (detail.asks) fact("missing, asked for", detail.asks.words);
    for (const note of detail.notes || []) fact("note", note);
    if (detail.winner) fact("current", el("code", {}, detail.winner), el("div", {}, detail.why ? `because ${detail.why}` : ""));
    if (detail.rebuild !== undefined) fact("run", detail.rebuild ? el("b", { class: "amber" }, "rebuilt: the current branch changes") : "as it was: the current branch stays or grows");
    const known = new Set(["verdict", "reason", "incoming", "incoming_chain", "local", "ancestor", "arithmetic", "winner", "why", "rebuild", "fork", "problem", "state", "asks", "notes"]);
    for (const [name, value] of Object.entries(detail)) {
      if (!known.has(name) && value !== null) fact(name, typeof value === "string" ? value : JSON.stringify(value));
    }
    parts.push(facts);
    return this.section("Verdict", ...parts);
  }

  /** What brought an event, what it sent, and, for a message, what it did. */
  neighbours(entry) {
    const rows = [];
    const link = (label, other) => rows.push(el("li", {}, el("span", { class: "soft" }, label), el("button", { type: "button", class: "plain", onclick: () => this.callbacks.select(other) }, other.type === "message" ? tipLines(this.model, other)[0] : other.text), other.type === "message" && content(other.source) && el("span", { class: "soft words" }, content(other.source))));
    if (entry.type === "message") {
      const message = entry.source;
      if (message.fate === "delivered" || message.fate === "stale") {
        const begin = firstIndex(this.model.items, (candidate) => candidate.at >= message.arrived);
        for (let index = begin; index < this.model.items.length && this.model.items[index].at === message.arrived; index++) {
          const other = this.model.items[index];
          if (other.region === message.to && other.type !== "message") link("led to", other);
        }
      }
    } else {
      const { brought, sent } = messagesAround(this.model, entry);
      for (const other of brought) link("brought by", other);
      for (const other of sent) link("sent", other);
    }
    if (rows.length === 0) return null;
    const shown = rows.slice(0, 12);
    if (rows.length > 12) shown.push(el("li", { class: "soft" }, `and ${rows.length - 12} more in the same moment`));
    return this.section(entry.type === "message" ? "On arrival" : "Messages of this moment", el("ul", { class: "links" }, shown));
  }

  /** The run that a reader wants to see first: that of the first finding, else the one with most branches, else the first. */
  firstRun() {
    const all = [...this.model.workflows.values()].flatMap((workflow) => [...workflow.runs.values()].map((run) => ({ workflow, run }))).filter(({ run }) => run.views.some((views) => views.length > 0));
    const most = ({ run }) => Math.max(...run.views.flat().map((view) => view.branches.length));
    const [finding] = this.model.findings;
    const about = finding ? all.filter(({ workflow }) => finding.item.workflows.includes(workflow.id) || finding.text.startsWith(`${workflow.id}:`)) : [];
    const named = about.filter(({ run }) => run.name === finding.item.run);
    const candidates = [named, about, all].find((some) => some.length > 0) || [];
    return candidates.reduce((best, next) => (best === null || most(next) > most(best) ? next : best), null);
  }

  /** Which run's branches: that of the event, else the one that the filter or the reader chose. */
  chosenRun(entry) {
    if (this.keep && this.run) return this.run;
    const own = entry.workflows.length === 1 ? entry.workflows[0] : this.callbacks.workflow();
    const pick = (id, name) => {
      const workflow = this.model.workflows.get(id);
      if (!workflow) return null;
      const runs = [...workflow.runs.values()].filter((run) => run.views.some((views) => views.length > 0));
      const started = runs.filter((run) => run.views.some((views) => views.length > 0 && views[0].step <= entry.step));
      const run = runs.find((candidate) => candidate.name === name) || started[started.length - 1] || runs[runs.length - 1];
      return run ? { workflow, run } : null;
    };
    if (own) {
      const found = pick(own, entry.run);
      if (found) return found;
    }
    return this.run;
  }

  branches(entry) {
    const choices = [];
    for (const workflow of this.model.workflows.values()) {
      for (const run of workflow.runs.values()) {
        if (run.views.some((views) => views.length > 0)) choices.push({ workflow, run });
      }
    }
    if (choices.length === 0) return this.section("Branches", el("p", { class: "soft" }, "No branch trees were recorded."));
    const shown = this.chosenRun(entry);
    this.run = shown;
    const select = el("select", {
      "aria-label": "Run whose branches are shown",
      onchange: () => {
        this.run = choices[Number(select.value)] || null;
        this.keep = true;
        this.branch = null;
        this.draw();
      },
    });
    const keep = el("button", { type: "button", class: "chip", "aria-pressed": String(this.keep), title: "Show this run whatever event is selected", onclick: () => {
      this.keep = !this.keep;
      this.draw();
    } }, "keep");
    if (!shown) select.append(el("option", { value: "" }, "choose a run …"));
    for (const [index, { workflow, run }] of choices.entries()) {
      const current = shown && shown.workflow.id === workflow.id && shown.run.name === run.name;
      select.append(el("option", { value: index, selected: current }, `${workflow.id} / ${run.name}${workflow.forked ? " · branches" : ""}`));
    }
    const section = this.section("Branches", el("p", { class: "choice" }, select, shown && keep));
    if (!shown) return section;
    const key = `${shown.workflow.id}/${shown.run.name}`;
    if (this.branch && this.branch.key !== key) this.branch = null;
    const moment = treeMoment(shown.run, entry);
    const title = "What the stores held when this step was over. A verdict speaks of what the shard had in memory, whose commit may come a few steps later.";
    section.append(el("p", { class: "soft", title }, moment === END ? `No region had it after step ${grouped(entry.step)}. At the end of the recording:` : `durable after step ${grouped(entry.step)}`));
    section.append(...treeSection(this.model, this.palette, shown.run, moment, this.stillThere(shown.run, moment), this.width, (choice) => {
      this.branch = { ...choice, key };
      this.draw();
    }));
    return section;
  }

  /** The clicked branch, as long as it exists: a tip that grew is another branch. */
  stillThere(run, entry) {
    if (!this.branch) return null;
    const found = treeAt(run, this.branch.region, entry);
    return found && found.view.branches.some((branch) => branch.chain === this.branch.chain) ? this.branch : null;
  }

  /** Every region in this moment. */
  state(entry) {
    const { model } = this;
    const rows = [];
    for (const [region, lane] of model.lanes.entries()) {
      const down = model.bands.some((band) => band.kind === "crash" && band.region === region && during(band, entry.at));
      const cuts = model.bands.filter((band) => band.kind === "cut" && band.from === region && during(band, entry.at)).map((band) => laneName(model, band.to));
      for (const namespace of model.namespaces.length > 0 ? model.namespaces : [""]) {
        const belief = beliefAt(model, region, namespace, entry.at);
        rows.push(
          el(
            "tr",
            {},
            el("th", { style: `color:${this.palette.lane(region)}` }, lane.name),
            model.namespaces.length > 1 && el("td", {}, namespace),
            el("td", {}, belief ? el("code", {}, `@${belief.version}`) : "–"),
            el("td", {}, belief ? `${belief.active} ${belief.phase}` : ""),
            el("td", {}, belief ? (belief.writable ? el("b", {}, "writes") : el("span", { class: "soft" }, "reads")) : ""),
            el("td", {}, down && el("span", { class: "red" }, "down "), cuts.length > 0 && el("span", { class: "red" }, `cut → ${cuts.join(", ")}`)),
          ),
        );
      }
    }
    return this.section("Regions in this moment", el("table", { class: "state" }, rows));
  }
}
