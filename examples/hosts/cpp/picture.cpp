#include "picture.hpp"

#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

#include <jpeglib.h>  // after <cstdio>, which it needs
#include <jerror.h>
#include <png.h>

namespace {

constexpr int64_t kMostPixels = 89'478'485;  // as the Python runtime has it

// Decoded, and what EXIF says about the way up.
struct Decoded {
  int64_t width = 0;
  int64_t height = 0;
  std::vector<uint8_t> rgba;
  std::vector<uint8_t> exif;
};

void check_size(int64_t width, int64_t height) {
  if (width < 1 || height < 1 || width * height > kMostPixels) throw std::runtime_error("it is empty or too large");
}

// ---- JPEG ----

struct JpegErrors {
  jpeg_error_mgr base;  // first, so that a pointer to one is a pointer to the other
  std::jmp_buf out;
  char message[JMSG_LENGTH_MAX];
};

void jpeg_stop(j_common_ptr common) {
  auto* errors = reinterpret_cast<JpegErrors*>(common->err);
  common->err->format_message(common, errors->message);
  std::longjmp(errors->out, 1);
}

void jpeg_warning(j_common_ptr common, int level) {
  if (level < 0 && common->err->msg_code == JWRN_JPEG_EOF) jpeg_stop(common);  // cut short
}

// libjpeg leaves by longjmp: no object with a destructor may be born between setjmp and the end.
bool jpeg_rows(jpeg_decompress_struct& jpeg, JpegErrors& errors, const std::vector<uint8_t>& file, Decoded& decoded) {
  if (setjmp(errors.out) != 0) return false;
  jpeg_create_decompress(&jpeg);
  jpeg_mem_src(&jpeg, file.data(), static_cast<unsigned long>(file.size()));
  jpeg_save_markers(&jpeg, JPEG_APP0 + 1, 0xFFFF);
  jpeg_read_header(&jpeg, TRUE);
  decoded.width = jpeg.image_width;
  decoded.height = jpeg.image_height;
  if (decoded.width * decoded.height > kMostPixels) return false;
  for (jpeg_saved_marker_ptr marker = jpeg.marker_list; marker != nullptr; marker = marker->next) {
    if (marker->data_length > 6 && std::memcmp(marker->data, "Exif\0\0", 6) == 0 && decoded.exif.empty()) {
      decoded.exif.assign(marker->data + 6, marker->data + marker->data_length);
    }
  }
  jpeg.out_color_space = JCS_EXT_RGBA;
  jpeg_start_decompress(&jpeg);
  decoded.rgba.resize(static_cast<size_t>(decoded.width * decoded.height * 4));
  while (jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW row = decoded.rgba.data() + static_cast<size_t>(jpeg.output_scanline) * static_cast<size_t>(decoded.width) * 4;
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_decompress(&jpeg);
  return true;
}

Decoded decode_jpeg(const std::vector<uint8_t>& file) {
  jpeg_decompress_struct jpeg{};
  JpegErrors errors{};
  jpeg.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = jpeg_stop;
  errors.base.emit_message = jpeg_warning;
  Decoded decoded;
  const bool done = jpeg_rows(jpeg, errors, file, decoded);
  jpeg_destroy_decompress(&jpeg);
  check_size(decoded.width, decoded.height);
  if (!done) throw std::runtime_error(errors.message);
  return decoded;
}

// ---- PNG ----

struct PngSource {
  const std::vector<uint8_t>* file;
  size_t place = 0;
  std::string message;
};

void png_read(png_structp png, png_bytep to, size_t count) {
  auto* source = static_cast<PngSource*>(png_get_io_ptr(png));
  if (count > source->file->size() - source->place) png_error(png, "it is cut short");
  std::memcpy(to, source->file->data() + source->place, count);
  source->place += count;
}

void png_stop(png_structp png, png_const_charp message) {
  static_cast<PngSource*>(png_get_error_ptr(png))->message = message;
  png_longjmp(png, 1);
}

void png_warning_ignored(png_structp, png_const_charp) {}

bool png_rows(png_structp png, png_infop info, Decoded& decoded, std::vector<png_bytep>& rows) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  png_read_info(png, info);
  decoded.width = png_get_image_width(png, info);
  decoded.height = png_get_image_height(png, info);
  if (decoded.width * decoded.height > kMostPixels) return false;
  // 16 bits become 8 as Pillow and the Python runtime have it: grey is rounded, all else loses its lower byte.
  if (png_get_color_type(png, info) == PNG_COLOR_TYPE_GRAY) {
    png_set_scale_16(png);
  } else {
    png_set_strip_16(png);
  }
  png_set_expand(png);
  png_set_gray_to_rgb(png);
  png_set_add_alpha(png, 0xFF, PNG_FILLER_AFTER);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  const size_t stride = static_cast<size_t>(decoded.width) * 4;
  decoded.rgba.resize(stride * static_cast<size_t>(decoded.height));
  rows.resize(static_cast<size_t>(decoded.height));
  for (size_t y = 0; y < rows.size(); ++y) rows[y] = decoded.rgba.data() + y * stride;
  png_read_image(png, rows.data());
  png_read_end(png, info);
  png_uint_32 count = 0;
  png_bytep exif = nullptr;
  if (png_get_eXIf_1(png, info, &count, &exif) != 0) decoded.exif.assign(exif, exif + count);
  return true;
}

Decoded decode_png(const std::vector<uint8_t>& file) {
  PngSource source{&file, 0, {}};
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &source, png_stop, png_warning_ignored);
  png_infop info = png_create_info_struct(png);
  png_set_read_fn(png, &source, png_read);
  Decoded decoded;
  std::vector<png_bytep> rows;
  const bool done = png_rows(png, info, decoded, rows);
  png_destroy_read_struct(&png, &info, nullptr);
  if (!done && !source.message.empty()) throw std::runtime_error(source.message);
  check_size(decoded.width, decoded.height);
  return decoded;
}

// ---- upright, opaque ----

// EXIF's orientation, 1 to 8; 1 where it says none or nonsense.
int orientation(const std::vector<uint8_t>& exif) {
  if (exif.size() < 8) return 1;
  const bool little = exif[0] == 'I';
  const auto number = [&](size_t at, size_t bytes) {
    uint32_t value = 0;
    for (size_t i = 0; i < bytes; ++i) value |= uint32_t{exif[at + i]} << (8 * (little ? i : bytes - 1 - i));
    return value;
  };
  const size_t directory = number(4, 4);
  if (directory > exif.size() - 2) return 1;  // so that no sum overflows where size_t has 32 bits
  const size_t entries = number(directory, 2);
  for (size_t entry = directory + 2, left = entries; left > 0 && entry + 12 <= exif.size(); entry += 12, --left) {
    if (number(entry, 2) != 0x0112) continue;
    const uint32_t value = number(entry + 8, 2);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

// Turned as `way` says, over white.
Picture finished(const Decoded& decoded, int way) {
  const int64_t w = decoded.width, h = decoded.height;
  Picture picture;
  picture.width = way >= 5 ? h : w;
  picture.height = way >= 5 ? w : h;
  picture.rgb.reserve(static_cast<size_t>(w * h * 3));
  for (int64_t y = 0; y < picture.height; ++y) {
    for (int64_t x = 0; x < picture.width; ++x) {
      int64_t from_x = way >= 5 ? y : x, from_y = way >= 5 ? x : y;
      if (way == 2 || way == 3 || way == 7 || way == 8) from_x = w - 1 - from_x;
      if (way == 3 || way == 4 || way == 6 || way == 7) from_y = h - 1 - from_y;
      const uint8_t* pixel = decoded.rgba.data() + (from_y * w + from_x) * 4;
      const int alpha = pixel[3];
      for (int channel = 0; channel < 3; ++channel) {
        picture.rgb.push_back(static_cast<uint8_t>((pixel[channel] * alpha + 255 * (255 - alpha) + 127) / 255));
      }
    }
  }
  return picture;
}

}  // namespace

Picture read_picture(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  const std::vector<uint8_t> file(std::istreambuf_iterator<char>(stream), {});
  try {
    Decoded decoded;
    if (file.size() > 8 && png_sig_cmp(file.data(), 0, 8) == 0) {
      decoded = decode_png(file);
    } else if (file.size() > 3 && file[0] == 0xFF && file[1] == 0xD8) {
      decoded = decode_jpeg(file);
    } else {
      throw std::runtime_error("it is no PNG and no JPEG, or cannot be read");
    }
    return finished(decoded, orientation(decoded.exif));
  } catch (const std::exception& error) {
    throw std::runtime_error(path.string() + ": " + error.what());
  }
}
