/** A picture file as the model wants it: upright, RGB, transparency over white. */

import sharp from "sharp";

/** `data`: RGB bytes, row by row. */
export async function readPicture(path) {
  const upright = sharp(path, { failOn: "truncated" }).autoOrient().toColourspace("srgb").ensureAlpha();
  const decoded = upright.raw({ depth: "uchar" }).toBuffer({ resolveWithObject: true });
  const { data: rgba, info } = await decoded.catch((error) => {
    throw new Error(`${path}: ${error.message}`);
  });
  const { width, height } = info;
  const data = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    const alpha = rgba[from + 3];
    for (let channel = 0; channel < 3; channel++) {
      data[to++] = Math.round((rgba[from + channel] * alpha + 255 * (255 - alpha)) / 255);
    }
  }
  return { data, width, height };
}
