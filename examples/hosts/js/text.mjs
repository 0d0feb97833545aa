/** Texts to token ids, as the text tower was trained on them. */

import { Tokenizer } from "@huggingface/tokenizers";
import { Charsmap } from "./charsmap.mjs";

const PUNCTUATION = /[!-/:-@[-`{-~]/g; // of ASCII
const WHITE_SPACE = /[\s\x1c-\x1f\x85]+/g;

/** One spelling of a text; `how` is the manifest's `canonicalisation`. */
export function canonicalise(text, how) {
  if (how === "none") return text;
  if (how !== "hf" && how !== "lower") throw new Error(`canonicalisation ${how} is not known here`);
  const lower = (text) => text.replaceAll("Σ", "σ").toLowerCase(); // Σ: never the letter's form at the end of a word
  if (how === "lower") return lower(text);
  return lower(text.replaceAll("▁", " ")).replace(PUNCTUATION, "").replace(WHITE_SPACE, " ").trim();
}

export class TextTokens {
  /**
   * @param {object} json tokenizer.json
   * @param {string} canonicalisation as the manifest has it
   */
  constructor(json, canonicalisation) {
    const { padding, post_processor } = json;
    this.context = padding.strategy.Fixed;
    this.padding = padding.pad_id;
    this.end = Object.values(post_processor.special_tokens)[0].ids[0];
    this.unknown = json.model.unk_id ?? json.model.vocab[json.model.unk_token];
    this.canonicalisation = canonicalisation;
    const steps = json.normalizer.normalizers;
    const table = steps.findIndex((step) => step.type === "Precompiled");
    this.charsmap = table < 0 ? null : new Charsmap(steps[table].precompiled_charsmap);
    // What comes before the table is done by canonicalise.
    const rest = { ...json.normalizer, normalizers: steps.slice(table + 1) };
    // A text that spells a mark, such as "<pad>", is a text.
    const added_tokens = json.added_tokens.filter((token) => !token.special);
    this.tokenizer = new Tokenizer({ ...json, normalizer: rest, added_tokens }, {});
  }

  /** One text's ids: at most context - 1 of its own, the end mark, padding. BigInt64Array [context]. */
  encode(text) {
    const canonical = canonicalise(text, this.canonicalisation);
    const normal = this.charsmap ? this.charsmap.apply(canonical) : canonical;
    const found = text.trim() && normal ? this.tokenizer.tokenize(normal, { add_special_tokens: false }) : [];
    const ids = found.flatMap((piece) => this.#ids(piece)).slice(0, this.context - 1);
    if (ids.length === 0) throw new Error(`the text ${JSON.stringify(text)} holds nothing but punctuation or spaces`);
    const row = new BigInt64Array(this.context).fill(BigInt(this.padding));
    [...ids, this.end].forEach((id, place) => (row[place] = BigInt(id)));
    return row;
  }

  /** What is no piece is spelled as its bytes, which this tokenizer leaves to us where it is a unigram model. */
  #ids(piece) {
    const id = this.tokenizer.token_to_id(piece);
    if (id !== undefined && id !== this.unknown) return [id];
    const bytes = [...new TextEncoder().encode(piece)];
    const name = (byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
    return bytes.map((byte) => this.tokenizer.token_to_id(name(byte)) ?? this.unknown);
  }
}
