#!/usr/bin/env node
/** Scores pictures with transformers.js and a folder in the hub's layout; a line of JSON for each picture. */

import "../js/quiet.mjs"; // before ONNX Runtime
import path from "node:path";
import { parseArgs } from "node:util";
import { env, pipeline } from "@huggingface/transformers";

const USAGE = 'usage: node classify.mjs MODEL.hub/ PICTURE... --label "a cat" --label "a dog" [--dtype q4]';

async function main() {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: { label: { type: "string", multiple: true }, dtype: { type: "string", default: "auto" } },
  });
  const [folder, ...pictures] = positionals;
  if (!values.label || pictures.length === 0) throw new Error(USAGE);
  env.allowRemoteModels = false;
  env.localModelPath = path.dirname(path.resolve(folder));
  // "auto": the kind that the folder's config.json names.
  const classify = await pipeline("zero-shot-image-classification", path.basename(folder), { dtype: values.dtype });
  for (const picture of pictures) {
    const found = await classify(picture, values.label, { hypothesis_template: "{}" });
    const scores = found.map(({ label, score }) => ({ label, probability: score }));
    console.log(JSON.stringify({ picture, scores }));
  }
}

await main().catch((error) => {
  console.error(`classify: ${error.message}`);
  process.exitCode = 1;
});
