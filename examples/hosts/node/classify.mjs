#!/usr/bin/env node
/** Scores pictures against labels with a folder of ONNX files, and prints a line of JSON for each picture. */

import "../js/quiet.mjs"; // before ONNX Runtime
import { readFile } from "node:fs/promises";
import path from "node:path";
import { parseArgs } from "node:util";
import * as ort from "onnxruntime-node";
import { readLabelSet } from "../js/labels.mjs";
import { Siglip } from "../js/siglip.mjs";
import { readPicture } from "./picture.mjs";

const USAGE = `usage: node classify.mjs MODEL.onnx/ PICTURE... --label "a cat" --label "a dog" [--template "a photo of {}"]
       node classify.mjs MODEL.onnx/ PICTURE... --label-set NAME.labels.safetensors`;

const OPTIONS = {
  label: { type: "string", multiple: true },
  template: { type: "string", default: "{}" },
  "label-set": { type: "string" },
};

/** The model in a folder; its text tower only where texts are to be embedded. */
async function openModel(folder, manifest, { texts }) {
  const session = (name) => ort.InferenceSession.create(path.join(folder, name));
  const sessions = { preprocess: await session("preprocess.onnx"), image: await session("image.onnx") };
  if (!texts) return new Siglip(ort, manifest, null, sessions);
  const tokenizer = await readJson(path.join(folder, "tokenizer.json"));
  return new Siglip(ort, manifest, tokenizer, { ...sessions, text: await session("text.onnx") });
}

const readJson = async (file) => JSON.parse(await readFile(file, "utf8"));

async function main() {
  const { positionals, values } = parseArgs({ allowPositionals: true, options: OPTIONS });
  const [folder, ...pictures] = positionals;
  const file = values["label-set"];
  if (pictures.length === 0 || Boolean(values.label) === Boolean(file)) throw new Error(USAGE);
  const manifest = await readJson(path.join(folder, "manifest.json"));
  const model = await openModel(folder, manifest, { texts: !file });
  const { labels, scoring } = file
    ? readLabelSet(await readFile(file), manifest)
    : { labels: await model.embedLabels(values.label, values.template) };
  for (const picture of pictures) {
    try {
      const scores = model.score(await model.embedPicture(await readPicture(picture)), labels, scoring);
      console.log(JSON.stringify({ picture, scores }));
    } catch (error) {
      complain(error); // and go on with the next
    }
  }
}

function complain(error) {
  console.error(`classify: ${error.message}`);
  process.exitCode = 1;
}

await main().catch(complain);
