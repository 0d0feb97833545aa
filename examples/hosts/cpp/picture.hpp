// A picture file as the model wants it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

struct Picture {
  int64_t width = 0;
  int64_t height = 0;
  std::vector<uint8_t> rgb;  // row by row, upright, transparency over white
};

// Reads a PNG or JPEG. Throws std::runtime_error where it is none, or damaged.
// Embedded colour profiles are not applied.
Picture read_picture(const std::filesystem::path& path);
