/** A bundle of ONNX files as a model, for onnxruntime-node and onnxruntime-web: they have one interface. */

import { TextTokens } from "./text.mjs";

export class Siglip {
  /**
   * @param {object} ort the module of ONNX Runtime
   * @param {object} manifest manifest.json
   * @param {object | null} tokenizer tokenizer.json, if texts are to be embedded
   * @param {{preprocess: object, image: object, text: object | undefined}} sessions
   */
  constructor(ort, manifest, tokenizer, sessions) {
    this.ort = ort;
    this.scoring = manifest.scoring;
    this.sessions = sessions;
    this.encoder = tokenizer && new TextTokens(tokenizer, manifest.canonicalisation);
  }

  /** A picture's unit vector. `data` is RGB, one byte a channel, upright. */
  async embedPicture({ data, width, height }) {
    const picture = new this.ort.Tensor("uint8", data, [height, width, 3]);
    const { pixel_values } = await this.sessions.preprocess.run({ picture });
    const { image_embeds } = await this.sessions.image.run({ pixel_values }, ["image_embeds"]);
    return image_embeds.data;
  }

  /** A text's unit vector. */
  async embedText(text) {
    const ids = this.encoder.encode(text);
    const input_ids = new this.ort.Tensor("int64", ids, [1, ids.length]);
    const { text_embeds } = await this.sessions.text.run({ input_ids }, ["text_embeds"]);
    return text_embeds.data;
  }

  /** The labels' unit vectors, computed once for any number of pictures. */
  async embedLabels(labels, template = "{}") {
    const found = [];
    for (const label of labels) {
      found.push({ label, vector: await this.embedText(template.replaceAll("{}", () => label)) });
    }
    return found;
  }

  /** Each label by itself, best first: sigmoid(exp(logit_scale) · cosine + logit_bias). */
  score(image, labels, { logit_scale, logit_bias } = this.scoring) {
    const scores = labels.map(({ label, vector }) => {
      const cosine = vector.reduce((sum, value, i) => sum + value * image[i], 0);
      const logit = Math.exp(logit_scale) * cosine + logit_bias;
      return { label, probability: 1 / (1 + Math.exp(-logit)), logit, cosine };
    });
    return scores.sort((a, b) => b.logit - a.logit);
  }
}
