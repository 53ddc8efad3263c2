// Numbers, times and foreign text for people.

const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;
const ESCAPE_SEQUENCE = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\-_])/g;
// Marks that reorder text or hide in it.
const INVISIBLE = /[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;

// Text of others, with what a terminal would obey left out or made visible.
export function visible(text) {
  return String(text)
    .replace(ESCAPE_SEQUENCE, "")
    .replace(CONTROL, (mark) => (mark < " " ? String.fromCharCode(0x2400 + mark.charCodeAt(0)) : "�"))
    .replace(INVISIBLE, "�");
}

export function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (!Number.isFinite(value)) return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(2);
  return value.toLocaleString("en", { maximumSignificantDigits: digits });
}

export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.round(seconds));
  const [days, hours, minutes] = [86400, 3600, 60].map((unit) => Math.floor(whole / unit));
  if (days > 0) return `${days}d ${hours % 24}h`;
  if (hours > 0) return `${hours}h ${minutes % 60}m`;
  if (minutes > 0) return `${minutes}m ${whole % 60}s`;
  return `${whole}s`;
}

export function age(time, now = Date.now()) {
  return time ? duration((now - Date.parse(time)) / 1000) : "–";
}

export function clock(time) {
  return time ? new Date(time).toLocaleString("en-GB", { hour12: false }) : "–";
}

// A value of JSON as short as it can be written.
export function value(of) {
  if (of === undefined) return "–";
  return typeof of === "string" ? of : JSON.stringify(of);
}
