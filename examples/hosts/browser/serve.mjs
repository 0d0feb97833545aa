#!/usr/bin/env node
/** Serves the page and a folder of ONNX files to this machine: node serve.mjs MODEL.onnx/ [PORT] */

import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import path from "node:path";
import { pipeline } from "node:stream";
import { fileURLToPath } from "node:url";

const [model, port = "8080"] = process.argv.slice(2);
const hosts = fileURLToPath(new URL("..", import.meta.url));
const TYPES = {
  ".css": "text/css",
  ".html": "text/html; charset=utf-8",
  ".json": "application/json",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};
const HEADERS = {
  "Content-Security-Policy":
    "default-src 'self'; img-src 'self' blob: data:; worker-src 'self' blob:; " +
    "script-src 'self' blob: 'unsafe-inline' 'wasm-unsafe-eval'",
  // Both are what a browser asks for before it lets a page's threads share memory.
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

/** The file that is asked for; a URL's path has no ".." left in it. */
function fileOf(url) {
  const asked = URL.canParse(url, "http://localhost") ? new URL(url, "http://localhost").pathname : "/";
  if (asked.startsWith("/model/")) return path.join(model, asked.slice("/model/".length));
  return path.join(hosts, asked === "/" ? "browser/index.html" : asked);
}

/** Whether there is such a file; a name may be too long for one, or lie where nobody may look. */
function isFile(file) {
  try {
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

const server = createServer((request, response) => {
  const file = fileOf(request.url);
  const found = isFile(file);
  const type = TYPES[path.extname(file)] ?? "application/octet-stream";
  response.writeHead(found ? 200 : 404, { ...HEADERS, "Content-Type": type });
  // A file that cannot be read, or a page that goes away, ends this answer and closes the file.
  found ? pipeline(createReadStream(file), response, () => {}) : response.end();
});
server.listen(Number(port), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
