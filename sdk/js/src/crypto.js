// Random values from the host. QuickJS seeds its own generator at build time, so every attempt would get the same
// numbers.

import source from "wasi:random/random@0.2.0";

export const crypto = {
  getRandomValues(array) {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    if (bytes.length > 65536) throw new RangeError("getRandomValues returns at most 65536 bytes");
    if (bytes.length > 0) bytes.set(source.getRandomBytes(bytes.length));
    return array;
  },

  randomUUID() {
    const bytes = source.getRandomBytes(16);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    return bytes.toHex().replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  },
};

// The build replaces `Math.random` by this.
export function __evokeRandom() {
  const words = new Uint32Array(crypto.getRandomValues(new Uint8Array(8)).buffer);
  return ((words[0] >>> 5) * 2 ** 26 + (words[1] >>> 6)) / 2 ** 53;
}
