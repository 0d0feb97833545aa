/**
 * SentencePiece's table of replacements ("precompiled charsmap"), applied as SentencePiece applies it. Packages for
 * JavaScript take Unicode's NFKC instead, which orders combining marks anew and knows other characters.
 */
export class Charsmap {
  /** @param {string} base64 a size, a trie of that many bytes (a double array, as Darts has it), then the new texts */
  constructor(base64) {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const size = new DataView(bytes.buffer).getUint32(0, true);
    const units = new DataView(bytes.buffer, 4, size);
    this.unit = (place) => units.getUint32(4 * place, true);
    this.texts = bytes.subarray(4 + size);
  }

  /** A text with every longest match replaced. */
  apply(text) {
    const bytes = new TextEncoder().encode(text);
    const found = [];
    for (let at = 0; at < bytes.length; ) {
      const match = this.#longest(bytes, at);
      if (match) {
        const end = this.texts.indexOf(0, match.place);
        found.push(...this.texts.subarray(match.place, end));
        at += match.length;
      } else {
        do found.push(bytes[at++]);
        while ((bytes[at] & 0xc0) === 0x80); // the rest of the character
      }
    }
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(found));
  }

  /** How many bytes from `at` have a replacement, and where it is. */
  #longest(bytes, at) {
    const offset = (unit) => (unit >>> 10) << ((unit & 0x200) >>> 6);
    let match = null;
    let place = offset(this.unit(0));
    for (let end = at; end < bytes.length; end++) {
      place ^= bytes[end];
      const unit = this.unit(place);
      if (((unit & 0x800000ff) >>> 0) !== bytes[end]) break;
      place ^= offset(unit);
      if ((unit >>> 8) & 1) match = { length: end + 1 - at, place: this.unit(place) & 0x7fffffff };
    }
    return match;
  }
}
