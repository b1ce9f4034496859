// UTF-8, made of functions that QuickJS has in C: a loop over bytes in JavaScript takes ten times as long.

export function encode(text) {
  return Uint8Array.fromBase64(btoa(toBytes(String(text).toWellFormed())));
}

// Throws a URIError if the bytes are not UTF-8.
export function decode(bytes) {
  const text = atob(bytes.toBase64());
  // `escape` is slow, so it is called only for other characters.
  return isAscii(bytes) ? text : decodeURIComponent(escape(text));
}

function isAscii({ buffer, byteOffset, length }) {
  for (let at = 0; at < length; at += 1024) {
    // As arguments, the bytes need room on the stack.
    const signed = new Int8Array(buffer, byteOffset + at, Math.min(length - at, 1024));
    if (Math.min.apply(null, signed) < 0) return false;
  }
  return true;
}

// Returns a string with one character for each byte of the UTF-8 form.
function toBytes(text) {
  return unescape(encodeURIComponent(text));
}

export class TextEncoder {
  get encoding() {
    return "utf-8";
  }

  encode(text = "") {
    return encode(text);
  }
}

export class TextDecoder {
  constructor(label = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
    if (!/^\s*(utf-?8|unicode-1-1-utf-8)\s*$/i.test(label)) throw new RangeError(`the encoding ${label} is not available; only utf-8 is`);
    Object.assign(this, { encoding: "utf-8", fatal, ignoreBOM });
  }

  decode(input = new Uint8Array()) {
    const bytes = ArrayBuffer.isView(input) ? new Uint8Array(input.buffer, input.byteOffset, input.byteLength) : new Uint8Array(input);
    const text = this.fatal ? strict(bytes) : lossy(bytes);
    return !this.ignoreBOM && text.startsWith("\ufeff") ? text.slice(1) : text;
  }
}

function strict(bytes) {
  try {
    return decode(bytes);
  } catch {
    throw new TypeError("the data is not valid UTF-8");
  }
}

// Replaces each invalid sequence by U+FFFD: see "maximal subpart" in the Unicode Standard, section 3.9.
function lossy(bytes) {
  try {
    return decode(bytes);
  } catch {
    let text = "";
    for (let at = 0; at < bytes.length; ) {
      const length = sequence(bytes, at);
      text += length > 0 ? decode(bytes.subarray(at, at + length)) : "\ufffd";
      at += Math.abs(length);
    }
    return text;
  }
}

// Returns the length of the character at `at`, or the negative length of an invalid sequence.
function sequence(bytes, at) {
  const first = bytes[at];
  if (first < 0x80) return 1;
  const length = first >= 0xc2 && first < 0xe0 ? 2 : first >= 0xe0 && first < 0xf0 ? 3 : first >= 0xf0 && first < 0xf5 ? 4 : 0;
  for (let next = 1; next < length; next++) {
    const low = next > 1 ? 0x80 : { 0xe0: 0xa0, 0xf0: 0x90 }[first] ?? 0x80;
    const high = next > 1 ? 0xbf : { 0xed: 0x9f, 0xf4: 0x8f }[first] ?? 0xbf;
    const byte = bytes[at + next];
    if (!(byte >= low && byte <= high)) return -next;
  }
  return length || -1;
}
