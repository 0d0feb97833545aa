// Scores pictures against a label set with a folder of ONNX files, and prints a line of JSON for each picture.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <numeric>

#include "graph.hpp"
#include "labels.hpp"
#include "picture.hpp"

namespace {

using nlohmann::ordered_json;

// ONNX Runtime's published builds report to their maker unless this is set before the environment is made.
void report_nothing() {
#ifdef _WIN32
  if (std::getenv("ORT_DISABLE_TELEMETRY") == nullptr) _putenv_s("ORT_DISABLE_TELEMETRY", "1");
#else
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);
#endif
}

// Each label by itself, best first: sigmoid(exp(logit_scale) · cosine + logit_bias).
ordered_json scores(const std::vector<float>& image, const LabelSet& labels) {
  std::vector<ordered_json> found;
  for (size_t row = 0; row < labels.labels.size(); ++row) {
    const float* vector = labels.vectors.data() + row * labels.width;
    const double cosine = std::inner_product(image.begin(), image.end(), vector, 0.0);
    const double logit = std::exp(labels.logit_scale) * cosine + labels.logit_bias;
    found.push_back({{"label", labels.labels[row]},
                     {"probability", 1 / (1 + std::exp(-logit))},
                     {"logit", logit},
                     {"cosine", cosine}});
  }
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a["logit"] > b["logit"]; });
  return found;
}

// Whether every picture could be read; of others it says on stderr what is wrong.
bool classify(const std::filesystem::path& model, const std::filesystem::path& label_file, char** first, char** last) {
  const LabelSet labels = read_labels(label_file);
  std::ifstream manifest(model / "manifest.json");
  if (!manifest) throw std::runtime_error(model.string() + ": no folder with a manifest.json");
  if (nlohmann::json::parse(manifest).at("space") != labels.space) {
    throw std::runtime_error(label_file.string() + ": made by a model of another embedding space");
  }
  report_nothing();
  const Env env = make<Env>(ort().CreateEnv, ORT_LOGGING_LEVEL_WARNING, "classify");
  const Graph preprocess(env.get(), model / "preprocess.onnx");
  const Graph image(env.get(), model / "image.onnx");
  bool all = true;
  for (; first != last; ++first) {
    try {
      Picture picture = read_picture(*first);
      std::vector<float> pixels = preprocess.run("picture", picture.rgb, {picture.height, picture.width, 3}, "pixel_values");
      const auto side = static_cast<int64_t>(std::lround(std::sqrt(pixels.size() / 3)));
      const std::vector<float> vector = image.run("pixel_values", pixels, {1, 3, side, side}, "image_embeds");
      if (vector.size() != labels.width) throw std::runtime_error("the labels' vectors are of another width");
      const ordered_json line{{"picture", *first}, {"scores", scores(vector, labels)}};
      // A file's name may be no UTF-8, which JSON must be.
      std::cout << line.dump(-1, ' ', false, ordered_json::error_handler_t::replace) << std::endl;
    } catch (const std::exception& error) {
      std::cerr << "classify: " << error.what() << '\n';
      all = false;
    }
  }
  return all;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 4) {
    std::cerr << "usage: classify MODEL.onnx/ NAME.labels.safetensors PICTURE...\n";
    return 2;
  }
  try {
    return classify(arguments[1], arguments[2], arguments + 3, arguments + count) ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << "classify: " << error.what() << '\n';
    return 1;
  }
}
