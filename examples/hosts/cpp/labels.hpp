// A label set that `sigrun labels` wrote: a safetensors file, which is a length, a JSON header and float32 numbers.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

struct LabelSet {
  std::vector<std::string> labels;
  std::vector<float> vectors;  // [labels, width], of unit length
  size_t width = 0;
  std::string space;        // pictures of this embedding space may be scored
  double logit_scale = 0;   // a natural logarithm
  double logit_bias = 0;
};

inline LabelSet read_labels(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  const std::vector<char> file(std::istreambuf_iterator<char>(stream), {});
  uint64_t length = 0;
  if (file.size() >= 8) std::memcpy(&length, file.data(), 8);  // little-endian, as this program's machines are
  if (length == 0 || length > file.size() - 8) throw std::runtime_error(path.string() + ": not a label set");
  const auto header = nlohmann::json::parse(file.data() + 8, file.data() + 8 + length);
  const auto& facts = header.at("__metadata__");
  const auto text = [&](const char* name) { return facts.at(name).get<std::string>(); };
  LabelSet found;
  found.labels = nlohmann::json::parse(text("labels")).get<std::vector<std::string>>();
  found.width = header.at("embeddings").at("shape").at(1).get<size_t>();
  found.space = text("space");
  found.logit_scale = std::stod(text("logit_scale"));
  found.logit_bias = std::stod(text("logit_bias"));
  const size_t count = found.labels.size() * found.width;
  if (count == 0 || file.size() - 8 - length != count * sizeof(float)) throw std::runtime_error(path.string() + ": damaged");
  found.vectors.resize(count);
  std::memcpy(found.vectors.data(), file.data() + 8 + length, count * sizeof(float));
  return found;
}
