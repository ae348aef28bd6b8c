"use strict";
// Words, numbers and elements. Everything that was recorded becomes text by way of `textContent`, never markup.

const MICRO = 1e3, MILLI = 1e6, SECOND = 1e9, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

/** A span of virtual time, as short as it can be said: `12 µs`, `52.3 ms`, `4.213 s`, `3m 04.2s`, `2h 03m 04s`, `3d 02h 03m`. */
function span(ns) {
  if (ns < 0) return "−" + span(-ns);
  if (ns === 0) return "0";
  if (ns < MICRO) return `${ns} ns`;
  if (ns < MILLI) return `${trim(ns / MICRO, 1)} µs`;
  if (ns < SECOND) return `${trim(ns / MILLI, 1)} ms`;
  if (ns < MINUTE) return `${trim(ns / SECOND, 3)} s`;
  const two = (n) => String(Math.floor(n)).padStart(2, "0");
  const minutes = Math.floor((ns % HOUR) / MINUTE), seconds = (ns % MINUTE) / SECOND;
  if (ns < HOUR) {
    const tenths = Math.floor(seconds * 10) / 10;
    return tenths === 0 ? `${minutes}m` : `${minutes}m ${tenths.toFixed(1).padStart(4, "0")}s`;
  }
  if (ns < DAY) return `${Math.floor(ns / HOUR)}h ${two(minutes)}m ${two(seconds)}s`;
  return `${Math.floor(ns / DAY)}d ${two((ns % DAY) / HOUR)}h ${two(minutes)}m`;
}

/** Digits of a second that tell two moments apart which lie this far from each other. */
function digitsFor(gap) {
  return gap >= MILLI ? 3 : gap >= MICRO ? 6 : 9;
}

/**
 * A moment of virtual time, with the digits that tell it from a neighbour this far away. It has two parts: what many
 * neighbours share, and the rest: `["", "52.3 ms"]`, `["", "4.213 s"]`, `["1h 12m ", "03.250s"]`.
 */
function momentParts(ns, gap = MILLI) {
  const digits = digitsFor(gap);
  if (ns < SECOND) return ["", ns === 0 ? "0" : `${trim(ns / MILLI, Math.max(1, digits - 3))} ms`];
  if (ns < MINUTE) return ["", `${trim(ns / SECOND, digits)} s`];
  const two = (n) => String(Math.floor(n)).padStart(2, "0");
  const days = Math.floor(ns / DAY), hours = Math.floor((ns % DAY) / HOUR), minutes = Math.floor((ns % HOUR) / MINUTE);
  const head = [days > 0 && `${days}d`, ns >= HOUR && `${days > 0 ? two(hours) : hours}h`, `${ns >= HOUR ? two(minutes) : minutes}m`].filter(Boolean).join(" ");
  const whole = two((ns % MINUTE) / SECOND), rest = String(Math.floor(ns % SECOND)).padStart(9, "0");
  if (gap >= MINUTE && whole === "00" && Number(rest) === 0) return [head, ""];
  if (gap >= SECOND && Number(rest) === 0) return [`${head} `, `${whole}s`];
  return [`${head} `, `${whole}.${rest.slice(0, digits).replace(/(\d{3})(?=\d)/g, "$1 ")}s`];
}

function moment(ns, gap) {
  return momentParts(ns, gap).join("");
}

/** The same to the nanosecond, for the place where one event is shown. */
function exact(ns) {
  const two = (n) => String(Math.floor(n)).padStart(2, "0");
  const fraction = String(ns % SECOND).padStart(9, "0").replace(/(\d{3})(?=\d)/g, "$1 ");
  const days = ns >= DAY ? `${Math.floor(ns / DAY)}d ` : "";
  return `${days}${two((ns % DAY) / HOUR)}:${two((ns % HOUR) / MINUTE)}:${two((ns % MINUTE) / SECOND)}.${fraction}`;
}

function trim(number, digits) {
  return String(Number(number.toFixed(digits)));
}

/** `1,204`, with a thin look in every locale. */
function grouped(n) {
  return String(n).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** `1 step`, `2 steps`. */
function count(n, one, many = one + "s") {
  return `${grouped(n)} ${n === 1 ? one : many}`;
}

/** An element with properties and children; strings become text. */
function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") element.className = value;
    else if (key === "style") element.style.cssText = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** The same for a drawing. The page holds an empty one, which knows the name of their kind. */
function svg(tag, properties = {}, ...children) {
  const element = document.createElementNS(byId("svg").namespaceURI, tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function byId(id) {
  return document.getElementById(id);
}

function clamp(value, low, high) {
  return Math.max(low, Math.min(high, value));
}

/** First index at which `test` holds, in an array where it holds from somewhere on. */
function firstIndex(array, test) {
  let low = 0, high = array.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (test(array[middle])) high = middle;
    else low = middle + 1;
  }
  return low;
}
