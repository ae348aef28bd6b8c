// Dots and arrow ends, drawn alike in the chart, the list and the legend.

/** Colours and fonts of the style sheet, for the canvas: read again when light and dark change. */
function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const get = (name) => style.getPropertyValue("--" + name).trim();
  const palette = { lanes: [0, 1, 2, 3, 4, 5].map((n) => get("lane-" + n)) };
  for (const name of ["ground", "panel", "sunk", "ink", "soft", "faint", "rule", "accent", "red", "red-tint", "amber", "good", "violet", "sans", "mono"]) palette[name] = get(name);
  palette.lane = (region) => palette.lanes[region % palette.lanes.length] || palette.soft;
  palette.owner = (region) => (region >= 0 ? palette.lane(region) : palette.soft);
  return palette;
}

/** The colour of a dot: that of its region, unless it is something to stop at. */
function toneColour(palette, tone, region) {
  switch (tone) {
    case "finding":
    case "alarm":
      return palette.red;
    case "fault":
      return palette.red;
    case "healed":
      return palette.good;
    case "rebuild":
    case "branch":
      return palette.amber;
    case "failover":
      return palette.violet;
    default:
      return region === null || region === undefined ? palette.soft : palette.lane(region);
  }
}

/** The dot of a tone around a point. The shape alone tells the kind, the colour only helps. */
function drawDot(context, tone, x, y, r, colour, ground) {
  context.beginPath();
  context.lineWidth = Math.max(1, r * 0.36);
  context.strokeStyle = colour;
  context.fillStyle = colour;
  switch (tone) {
    case "worker":
      context.arc(x, y, r * 0.82, 0, 7);
      return hollow();
    case "verdict":
    case "waiting":
    case "branch":
    case "rebuild":
    case "alarm": {
      const s = tone === "verdict" || tone === "waiting" ? r * 1.05 : r * 1.4;
      context.moveTo(x, y - s);
      context.lineTo(x + s, y);
      context.lineTo(x, y + s);
      context.lineTo(x - s, y);
      context.closePath();
      return tone === "waiting" ? hollow() : context.fill();
    }
    case "fault": {
      const s = r * 0.9;
      context.lineWidth = Math.max(1.2, r * 0.5);
      context.moveTo(x - s, y - s);
      context.lineTo(x + s, y + s);
      context.moveTo(x + s, y - s);
      context.lineTo(x - s, y + s);
      return context.stroke();
    }
    case "healed": {
      const s = r;
      context.lineWidth = Math.max(1.2, r * 0.5);
      context.moveTo(x - s, y);
      context.lineTo(x - s * 0.25, y + s * 0.75);
      context.lineTo(x + s, y - s * 0.75);
      return context.stroke();
    }
    case "failover":
      context.moveTo(x, y - r * 1.25);
      context.lineTo(x + r * 1.2, y + r);
      context.lineTo(x - r * 1.2, y + r);
      context.closePath();
      return context.fill();
    case "shard":
      return context.fillRect(x - r * 0.6, y - r * 0.6, r * 1.2, r * 1.2);
    case "link":
      context.rect(x - r * 0.7, y - r * 0.7, r * 1.4, r * 1.4);
      return hollow();
    case "finding":
      context.arc(x, y, r * 1.15, 0, 7);
      context.fill();
      context.fillStyle = ground;
      context.fillRect(x - r * 0.17, y - r * 0.65, r * 0.34, r * 0.75);
      return context.fillRect(x - r * 0.17, y + r * 0.3, r * 0.34, r * 0.34);
    case "message":
      context.moveTo(x - r * 1.2, y);
      context.lineTo(x + r * 1.1, y);
      context.moveTo(x + r * 0.3, y - r * 0.7);
      context.lineTo(x + r * 1.1, y);
      context.lineTo(x + r * 0.3, y + r * 0.7);
      return context.stroke();
    case "version":
      return context.fillRect(x - r * 1.1, y - r * 0.5, r * 2.2, r);
    default:
      context.arc(x, y, r, 0, 7);
      return context.fill();
  }

  function hollow() {
    context.fillStyle = ground;
    context.fill();
    context.stroke();
  }
}

/** A message: whole with a head, or ended where it was lost. Gives back where it ends. */
function drawArrow(context, message, from, to, colour, palette, width, heads) {
  const { fate, copy } = message;
  // What is lost ends on its way; what is stale arrives, and nobody takes it.
  const share = fate === "cut" ? 0.34 : fate === "dropped" ? 0.62 : 1;
  const end = { x: from.x + (to.x - from.x) * share, y: from.y + (to.y - from.y) * share };
  const lost = fate === "cut" || fate === "dropped" || fate === "stale";
  context.lineWidth = width;
  context.strokeStyle = context.fillStyle = lost ? palette.red : colour;
  context.setLineDash(copy ? [5, 4] : fate === "travelling" ? [1.5, 3.5] : []);
  context.beginPath();
  context.moveTo(from.x, from.y);
  context.lineTo(end.x, end.y);
  context.stroke();
  context.setLineDash([]);
  if (!heads) return end;
  const angle = Math.atan2(to.y - from.y, to.x - from.x);
  context.save();
  context.translate(end.x, end.y);
  context.rotate(angle);
  context.beginPath();
  if (fate === "dropped") {
    context.moveTo(-3.5, -3.5);
    context.lineTo(3.5, 3.5);
    context.moveTo(-3.5, 3.5);
    context.lineTo(3.5, -3.5);
    context.lineWidth = 1.6;
    context.stroke();
  } else if (fate === "cut") {
    context.moveTo(0, -6);
    context.lineTo(0, 6);
    context.lineWidth = 2;
    context.stroke();
  } else if (fate === "travelling") {
    context.arc(0, 0, 2.5, 0, 7);
    context.stroke();
  } else {
    context.moveTo(0, 0);
    context.lineTo(-7, -3.2);
    context.lineTo(-7, 3.2);
    context.closePath();
    if (fate === "stale") {
      context.fillStyle = palette.panel;
      context.lineWidth = 1.2;
      context.fill();
      context.stroke();
    } else context.fill();
  }
  context.restore();
  return end;
}

/** A small picture of one drawing, for the list and the legend. */
function glyph(width, height, draw) {
  return el("img", { class: "glyph", alt: "", width, height, src: picture(width, height, draw) });
}

function picture(width, height, draw) {
  const canvas = document.createElement("canvas");
  const ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  draw(context);
  return canvas.toDataURL();
}

const dotPictures = new Map();

/** A dot as a picture. Every row of the list has one, and there are only a few dozen. */
function dotGlyph(tone, colour, ground, size = 16) {
  const key = `${tone} ${colour} ${ground} ${size}`;
  if (!dotPictures.has(key)) dotPictures.set(key, picture(size, size, (context) => drawDot(context, tone, size / 2, size / 2, size / 4, colour, ground)));
  return el("img", { class: "glyph", alt: "", width: size, height: size, src: dotPictures.get(key) });
}
