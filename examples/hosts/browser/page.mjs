/** The page: pictures and labels in, probabilities out. ?threads=1 computes on one thread. */

import * as ort from "onnxruntime-web";
import { Siglip } from "/js/siglip.mjs";
import { readPicture } from "/browser/picture.mjs";

const element = (id) => document.getElementById(id);
const say = (text) => (element("status").textContent = text);

/** The model that the server has under /model/. */
async function openModel() {
  const fetched = async (name) => {
    const response = await fetch(`/model/${name}`);
    if (!response.ok) throw new Error(`/model/${name}: ${response.status}`);
    return response;
  };
  const json = async (name) => (await fetched(name)).json();
  const bytes = async (name) => new Uint8Array(await (await fetched(name)).arrayBuffer());
  const session = async (name, weights) => {
    const externalData = weights ? [{ path: weights, data: await bytes(weights) }] : [];
    return ort.InferenceSession.create(await bytes(name), { executionProviders: ["wasm"], externalData });
  };
  return new Siglip(ort, await json("manifest.json"), await json("tokenizer.json"), {
    preprocess: await session("preprocess.onnx"),
    image: await session("image.onnx", "image.onnx.data"),
    text: await session("text.onnx", "text.onnx.data"),
  });
}

/** A picture with its scores, or with what is wrong with it. */
function article(file, scores, problem) {
  const shown = document.createElement("article");
  const thumbnail = shown.appendChild(new Image());
  thumbnail.alt = file.name;
  thumbnail.src = URL.createObjectURL(file);
  thumbnail.onload = thumbnail.onerror = () => URL.revokeObjectURL(thumbnail.src);
  if (problem) {
    const line = shown.appendChild(document.createElement("p"));
    line.className = "wrong";
    line.textContent = `${file.name}: ${problem}`;
  }
  const list = shown.appendChild(document.createElement("ol"));
  for (const { label, probability, logit } of scores) {
    const row = list.appendChild(document.createElement("li"));
    Object.assign(row.dataset, { label, probability, logit });
    const bar = Object.assign(document.createElement("meter"), { value: probability });
    row.append(label, bar, document.createElement("span"));
    row.lastChild.textContent = `${(100 * probability).toFixed(1)}%`;
  }
  return shown;
}

async function classify(model) {
  element("results").replaceChildren();
  const lines = element("labels").value.split("\n").map((line) => line.trim());
  const labels = await model.embedLabels(lines.filter(Boolean));
  for (const file of element("pictures").files) {
    try {
      const image = await model.embedPicture(await readPicture(file));
      element("results").append(article(file, model.score(image, labels)));
    } catch (error) {
      element("results").append(article(file, [], error.message));
    }
  }
}

const asked = Number(new URLSearchParams(location.search).get("threads"));
ort.env.wasm.wasmPaths = "/node_modules/onnxruntime-web/dist/";
ort.env.wasm.numThreads = crossOriginIsolated ? asked || Math.min(navigator.hardwareConcurrency, 8) : 1;
ort.env.wasm.proxy = true; // compute in a worker, so that the page stays alive

try {
  const model = await openModel();
  const ready = () => {
    element("classify").disabled = false;
    say(`ready, ${ort.env.wasm.numThreads} thread${ort.env.wasm.numThreads === 1 ? "" : "s"}`);
  };
  element("classify").onclick = async () => {
    element("classify").disabled = true;
    say("computing …");
    try {
      await classify(model);
      ready();
    } catch (error) {
      ready();
      say(`failed: ${error.message}`);
    }
  };
  ready();
} catch (error) {
  say(`failed: ${error.message}`);
}
