/** A label set that `sigrun labels` wrote: with one, a host needs neither text tower nor tokenizer. */

/**
 * The labels with their unit vectors, and what to score with. The file is a safetensors file: the length of a header,
 * the header as JSON, float32 numbers.
 *
 * @param {Uint8Array} file
 * @param {object} manifest the model's manifest.json
 */
export function readLabelSet(file, manifest) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const length = file.length >= 8 ? Number(view.getBigUint64(0, true)) : 0;
  if (length === 0 || length > file.length - 8) throw new Error("not a label set");
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
  const facts = header.__metadata__;
  const [rows, width] = header.embeddings.shape;
  const labels = JSON.parse(facts.labels);
  if (labels.length !== rows || file.length - 8 - length !== 4 * rows * width) throw new Error("a damaged label set");
  if (facts.space !== manifest.space) throw new Error("a label set of another embedding space");
  const bytes = Uint8Array.prototype.slice.call(file, 8 + length); // a copy, of Node's Buffer too, from a whole place
  const numbers = new Float32Array(bytes.buffer);
  const vectors = labels.map((label, row) => ({ label, vector: numbers.subarray(row * width, (row + 1) * width) }));
  const calibrated = { logit_scale: Number(facts.logit_scale), logit_bias: Number(facts.logit_bias) };
  return { labels: vectors, scoring: facts.scoring === "calibrated" ? calibrated : manifest.scoring };
}
