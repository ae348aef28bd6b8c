// Where a moment stands on the time axis. There are two: to scale, and by event, where every moment at which something visible
// happens takes the room that its dots need, and a quiet stretch only a mark, however long it is.

/** An axis over the visible items. Positions are in units; the chart decides how many pixels a unit has. */
function buildAxis(model, items, mode) {
  const moments = buildMoments(model, items);
  const axis = mode === "time" ? timeAxis(model, moments) : eventAxis(model, moments);
  const byTime = new Map(moments.map((moment) => [moment.at, moment]));
  /** How many dots a lane has at a moment. */
  axis.dots = (at, lane) => (byTime.has(at) ? byTime.get(at).dots[lane] || 0 : 0);
  for (const [index, moment] of moments.entries()) moment.room = (index + 1 < moments.length ? axis.at(moments[index + 1].at) : axis.to) - axis.at(moment.at);
  /** Units that each dot of a lane has until the next moment. */
  axis.room = (at, lane) => (byTime.has(at) ? byTime.get(at).room / Math.max(1, byTime.get(at).dots[lane]) : 0);
  return axis;
}

/** Every visible moment in order, with the number of dots of each lane. The last "lane" is the world's. */
function buildMoments(model, items) {
  const byTime = new Map();
  const moment = (at) => {
    let found = byTime.get(at);
    if (!found) byTime.set(at, (found = { at, dots: new Array(model.lanes.length + 1).fill(0) }));
    return found;
  };
  for (const entry of items) {
    const here = moment(entry.at);
    if (entry.type === "message") moment(entry.source.arrived);
    // Beliefs are drawn as strips, and messages as arrows: only lines take room.
    else if (entry.type === "line") entry.dot = here.dots[laneOf(model, entry)]++;
  }
  return [...byTime.values()].sort((a, b) => a.at - b.at);
}

function laneOf(model, entry) {
  return entry.region === null || entry.region === undefined || entry.region >= model.lanes.length ? model.lanes.length : entry.region;
}

/** Nanoseconds to scale, a unit being a millisecond. */
function timeAxis(model, moments) {
  const end = Math.max(model.end / MILLI, 0.001);
  return {
    mode: "time",
    moments,
    from: 0,
    to: end,
    at: (at) => at / MILLI,
    time: (position) => position * MILLI,
    gaps: [],
  };
}

/** One unit a dot. */
function eventAxis(model, moments) {
  const pauses = moments.slice(1).map((moment, index) => moment.at - moments[index].at).sort((a, b) => a - b);
  const usual = Math.max(pauses[Math.floor(pauses.length / 2)] || 1, MILLI);
  const starts = [], gaps = [];
  let position = 0.5;
  for (const [index, moment] of moments.entries()) {
    const pause = index === 0 ? 0 : moment.at - moments[index - 1].at;
    if (pause > usual * 20) {
      // A pause a thousand times as long takes three times the room.
      const room = clamp(Math.log10(pause / usual) * 0.5, 0.6, 3);
      gaps.push({ from: position - 0.5, to: position - 0.5 + room, pause });
      position += room;
    }
    starts.push(position);
    position += Math.max(1, ...moment.dots);
  }
  const end = Math.max(position - 0.5, 1);
  const times = moments.map((moment) => moment.at);
  const between = (value, from, to, xs, ys) => {
    if (xs.length === 0) return to === 0 ? 0 : (value / to) * from;
    const next = firstIndex(xs, (x) => x > value);
    if (next === 0) return xs[0] <= 0 ? ys[0] : ys[0] * clamp(value / xs[0], 0, 1);
    const last = next === xs.length;
    const [x0, y0] = [xs[next - 1], ys[next - 1]];
    const [x1, y1] = last ? [to, from] : [xs[next], ys[next]];
    return x1 <= x0 ? y0 : y0 + ((y1 - y0) * Math.min(value - x0, x1 - x0)) / (x1 - x0);
  };
  return {
    mode: "events",
    moments,
    from: 0,
    to: end,
    at: (at) => between(at, end, model.end, times, starts),
    time: (position) => between(position, model.end, end, starts, times),
    gaps,
  };
}

/** Round steps for a time axis to scale, in nanoseconds. */
function roundStep(wanted) {
  const long = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200].map((seconds) => seconds * SECOND);
  if (wanted >= DAY) {
    const days = wanted / DAY, power = 10 ** Math.floor(Math.log10(days));
    return [1, 2, 5, 10].find((factor) => factor * power >= days) * power * DAY;
  }
  if (wanted > SECOND) return long.find((step) => step >= wanted) || DAY;
  const power = 10 ** Math.floor(Math.log10(Math.max(wanted, 1)));
  return [1, 2, 5, 10].find((factor) => factor * power >= wanted) * power;
}
