// URL and URLSearchParams for http and https: see https://url.spec.whatwg.org. Host names are taken as they are, in lower
// case: no conversion of other scripts.

const PORTS = { "http:": "80", "https:": "443" };

export class URLSearchParams {
  #pairs = [];
  #changed;

  constructor(init = "", changed = () => {}) {
    if (typeof init === "string") {
      for (const part of init.replace(/^\?/, "").split("&").filter(Boolean)) {
        const [name, ...value] = part.split("=");
        this.#pairs.push([unquote(name), unquote(value.join("="))]);
      }
    } else {
      const pairs = typeof init[Symbol.iterator] === "function" ? init : Object.entries(init);
      for (const [name, value] of pairs) this.#pairs.push([String(name), String(value)]);
    }
    this.#changed = changed;
  }

  get size() {
    return this.#pairs.length;
  }

  append(name, value) {
    this.#pairs.push([String(name), String(value)]);
    this.#changed();
  }

  set(name, value) {
    const at = this.#pairs.findIndex(([key]) => key === name);
    if (at < 0) return this.append(name, value);
    this.#pairs = this.#pairs.filter(([key], index) => key !== name || index === at);
    this.#pairs[at][1] = String(value);
    this.#changed();
  }

  delete(name) {
    this.#pairs = this.#pairs.filter(([key]) => key !== name);
    this.#changed();
  }

  get(name) {
    return this.#pairs.find(([key]) => key === name)?.[1] ?? null;
  }

  getAll(name) {
    return this.#pairs.filter(([key]) => key === name).map(([, value]) => value);
  }

  has(name) {
    return this.#pairs.some(([key]) => key === name);
  }

  sort() {
    this.#pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    this.#changed();
  }

  entries() {
    return this.#pairs.map(([name, value]) => [name, value])[Symbol.iterator]();
  }

  keys() {
    return this.entries().map(([name]) => name);
  }

  values() {
    return this.entries().map(([, value]) => value);
  }

  forEach(action) {
    for (const [name, value] of this) action(value, name, this);
  }

  [Symbol.iterator]() {
    return this.entries();
  }

  toString() {
    return this.#pairs.map((pair) => pair.map(quote).join("=")).join("&");
  }
}

function quote(text) {
  const special = (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`;
  return encodeURIComponent(text.toWellFormed()).replace(/%20/g, "+").replace(/[!'()~]/g, special);
}

function unquote(text) {
  const spaced = text.replace(/\+/g, " ");
  try {
    return decodeURIComponent(spaced);
  } catch {
    // Escapes that are not UTF-8, or a lone percent sign.
    return spaced.replace(/(%[0-9a-f]{2})+/gi, (escapes) => {
      try {
        return decodeURIComponent(escapes);
      } catch {
        return "\ufffd";
      }
    });
  }
}

export class URL {
  constructor(url, base) {
    const parts = parse(String(url), base === undefined ? undefined : new URL(base));
    if (!parts) throw new TypeError(`the URL ${url} is not valid`);
    Object.assign(this, parts);
    this.searchParams = new URLSearchParams(this.search, () => {
      const query = this.searchParams.toString();
      this.search = query && `?${query}`;
    });
  }

  static canParse(url, base) {
    try {
      return Boolean(new URL(url, base));
    } catch {
      return false;
    }
  }

  get host() {
    return this.port ? `${this.hostname}:${this.port}` : this.hostname;
  }

  get origin() {
    return `${this.protocol}//${this.host}`;
  }

  get href() {
    const user = this.username || this.password ? `${this.username}${this.password && `:${this.password}`}@` : "";
    return `${this.protocol}//${user}${this.host}${this.pathname}${this.search}${this.hash}`;
  }

  toString() {
    return this.href;
  }

  toJSON() {
    return this.href;
  }
}

// Returns the parts of the URL; nothing if it is not valid.
function parse(text, base) {
  const [, before, fragment = ""] = /^([^#]*)(#.*)?$/s.exec(text.trim().replace(/[\t\r\n]/g, ""));
  const hash = fragment.length > 1 ? escapeSpecial(fragment) : "";
  const [, start, question] = /^([^?]*)(\?.*)?$/.exec(before);
  const search = question?.length > 1 ? escapeSpecial(question) : "";
  const absolute = /^(https?:)[/\\]{2}(?:([^/\\@]*)@)?([^/\\:@[\]]+|\[[0-9a-f:.]+\])(?::(\d*))?([/\\].*)?$/i.exec(start);
  if (absolute) {
    const [, scheme, user = "", host, port = "", path = "/"] = absolute;
    const protocol = scheme.toLowerCase();
    const [username, ...password] = user.split(":");
    if (Number(port) > 65535 || /[\s<>^|%]/.test(host)) return null;
    const shown = port === "" || String(Number(port)) === PORTS[protocol] ? "" : String(Number(port));
    return { protocol, username, password: password.join(":"), hostname: host.toLowerCase(), port: shown, pathname: normalize(path), search, hash };
  }
  if (!base || /^[a-z][a-z0-9+.-]*:/i.test(start)) return null;
  if (/^[/\\]{2}/.test(start)) return parse(base.protocol + text);
  const { protocol, username, password, hostname, port } = base;
  const rest = { protocol, username, password, hostname, port, hash };
  if (start === "") return { ...rest, pathname: base.pathname, search: question === undefined ? base.search : search };
  const path = /^[/\\]/.test(start) ? start : base.pathname.replace(/[^/]*$/, "") + start;
  return { ...rest, pathname: normalize(path), search };
}

// Resolves `.` and `..`.
function normalize(path) {
  const segments = [];
  const parts = path.replace(/\\/g, "/").split("/").slice(1);
  parts.forEach((part, index) => {
    const plain = part.replace(/%2e/gi, ".");
    const isLast = index === parts.length - 1;
    if (plain === "..") segments.pop();
    if (plain !== "." && plain !== "..") segments.push(escapeSpecial(part));
    else if (isLast) segments.push("");
  });
  return `/${segments.join("/")}`;
}

function escapeSpecial(text) {
  return text.toWellFormed().replace(/[^!#$%&'()*+,\-./:;=?@[\]_~0-9a-zA-Z|^\\]+/g, (part) => encodeURIComponent(part).replace(/'/g, "%27"));
}
