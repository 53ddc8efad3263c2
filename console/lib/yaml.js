// The part of YAML that job files use: block mappings and lists, flow values as JSON has them, and
// scalars. Anything else is an error with its line.

const PLAIN = /^[A-Za-z0-9_./@:=+-][A-Za-z0-9 _./@:=+-]*$/;

// Reads JSON or YAML.
export function read(text) {
  if (/^\s*[{[]/.test(text)) return JSON.parse(text);
  const lines = text.split(/\r?\n/).map((line, at) => ({ text: line, number: at + 1 }));
  const reader = new Reader(lines.filter(({ text }) => !/^\s*(#.*)?$|^---\s*$|^\.\.\.\s*$/.test(text)));
  const value = reader.block(0);
  reader.expectEnd();
  return value;
}

class Reader {
  constructor(lines) {
    this.lines = lines.map((line) => ({ ...line, indent: line.text.search(/\S/) }));
    this.at = 0;
  }

  fail(why, line = this.lines[this.at]) {
    throw new Error(`line ${line ? line.number : "?"}: ${why}`);
  }

  expectEnd() {
    if (this.at < this.lines.length) this.fail("is indented less than the lines before");
  }

  block(indent) {
    const line = this.lines[this.at];
    if (!line || line.indent < indent) return null;
    return line.text.trimStart().startsWith("- ") || line.text.trim() === "-"
      ? this.list(line.indent)
      : this.mapping(line.indent);
  }

  list(indent) {
    const items = [];
    for (let line = this.lines[this.at]; line && line.indent === indent; line = this.lines[this.at]) {
      const body = line.text.trim();
      if (body !== "-" && !body.startsWith("- ")) this.fail("expected a list item, which begins with -");
      const rest = body.slice(1).trim();
      if (rest === "") {
        this.at += 1;
        items.push(this.block(indent + 1));
      } else if (/^[^"'[{][^:]*:( |$)/.test(rest)) {
        // A mapping that begins on the line of its dash.
        line.text = `${" ".repeat(indent + 2)}${rest}`;
        line.indent = indent + 2;
        items.push(this.mapping(indent + 2));
      } else {
        this.at += 1;
        items.push(this.scalar(rest, line));
      }
    }
    return items;
  }

  mapping(indent) {
    const map = {};
    for (let line = this.lines[this.at]; line && line.indent === indent; line = this.lines[this.at]) {
      const body = line.text.trim();
      const [, quoted, plain, rest] = /^(?:("[^"]*"|'[^']*')|([^:]+?))\s*:(?:\s+(.*))?$/.exec(body) || [];
      const name = quoted ? quoted.slice(1, -1) : plain;
      if (!name) this.fail("expected `name: value`");
      if (Object.hasOwn(map, name)) this.fail(`${name} is given twice`);
      this.at += 1;
      const value = rest === undefined ? "" : withoutComment(rest);
      Object.defineProperty(map, name, {
        value: value === "" ? this.nested(indent) : this.scalar(value, line),
        enumerable: true, configurable: true, writable: true,
      });
    }
    const line = this.lines[this.at];
    if (line && line.indent > indent) this.fail("is indented more than the lines before");
    return map;
  }

  nested(indent) {
    const line = this.lines[this.at];
    const isList = line && line.indent === indent && /^-( |$)/.test(line.text.trim());
    if (isList) return this.list(indent);
    return line && line.indent > indent ? this.block(indent + 1) : null;
  }

  scalar(text, line) {
    if (/^[[{"]/.test(text)) {
      try {
        return JSON.parse(text);
      } catch {
        return text.startsWith("[") ? this.flowList(text, line) : this.fail("is not a value of JSON", line);
      }
    }
    if (text.startsWith("'")) {
      if (!/^'(?:[^']|'')*'$/.test(text)) this.fail("a quote is not closed", line);
      return text.slice(1, -1).replaceAll("''", "'");
    }
    if (/^[|>&*!%@`]/.test(text)) this.fail(`${text[0]} is not supported here; write the value in quotes`, line);
    if (/^(true|false)$/i.test(text)) return text.toLowerCase() === "true";
    if (/^(null|~)$/i.test(text)) return null;
    if (/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text)) return Number(text);
    return text;
  }

  flowList(text, line) {
    if (!/^\[[^[\]{}"']*\]$/.test(text)) this.fail("write a list as JSON does", line);
    const items = text.slice(1, -1).split(",").map((item) => item.trim());
    return items.filter((item) => item !== "").map((item) => this.scalar(item, line));
  }
}

function withoutComment(text) {
  return /^["'[{]/.test(text) ? text.replace(/(["'\]}])\s+#.*$/, "$1").trim() : text.replace(/\s+#.*$/, "").trim();
}

// Writes a value that JSON has.
export function write(value, indent = "") {
  const entries = Object.entries(value).filter(([, of]) => of !== undefined);
  return entries.map(([name, of]) => `${indent}${scalar(name)}:${nested(of, indent)}\n`).join("");
}

function nested(value, indent) {
  const isMap = value !== null && typeof value === "object" && !Array.isArray(value);
  if (!isMap) return ` ${scalar(value)}`;
  const inner = write(value, `${indent}  `);
  return inner === "" ? " {}" : `\n${inner.trimEnd()}`;
}

function scalar(value) {
  if (typeof value !== "string") return JSON.stringify(value);
  const isPlain = PLAIN.test(value) && !value.endsWith(" ") && !/:( |$)| #/.test(value);
  const isOther = /^(true|false|null|yes|no|on|off|~|[-+.]?\d.*)$/i.test(value) || /^[-:=@]/.test(value);
  return isPlain && !isOther ? value : JSON.stringify(value);
}
