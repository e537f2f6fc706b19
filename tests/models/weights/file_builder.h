// Builds small GGUF and safetensors files byte by byte, valid or not, and gives them to readers as buffers of their
// exact size, so that a sanitizer sees every read beyond the end.
#ifndef TRIMTAB_TESTS_MODELS_WEIGHTS_FILE_BUILDER_H_
#define TRIMTAB_TESTS_MODELS_WEIGHTS_FILE_BUILDER_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"

namespace trimtab {

// A heap buffer of exactly the bytes of `text`.
struct ExactBytes {
  explicit ExactBytes(std::string_view text) : data(new uint8_t[text.size()]), size(text.size()) {
    if (size > 0) std::memcpy(data.get(), text.data(), size);
  }
  absl::Span<const uint8_t> span() const { return {data.get(), size}; }

  std::shared_ptr<uint8_t[]> data;
  size_t size;
};

template <typename T>
void Append(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

inline void AppendString(std::string* out, std::string_view text) {
  Append<uint64_t>(out, text.size());
  out->append(text);
}

struct GgufTensorEntry {
  std::string name = "t";
  std::vector<uint64_t> dimensions = {32, 2};  // innermost first, as in the file
  uint32_t type = 3;                           // Q4_1
  uint64_t offset = 0;
  std::optional<uint32_t> dimension_count;  // when it is to differ from the dimensions
};

// A GGUF file; every count can be made to lie.
struct GgufBuilder {
  uint32_t magic = 0x46554747;
  uint32_t version = 3;
  std::vector<std::string> metadata;  // entries, from Entry
  std::vector<GgufTensorEntry> tensors;
  std::optional<uint64_t> tensor_count, metadata_count;
  uint64_t alignment = 32;
  std::string data;

  static std::string Entry(std::string_view key, uint32_t type, std::string_view value) {
    std::string entry;
    AppendString(&entry, key);
    Append(&entry, type);
    return entry.append(value);
  }
  template <typename T>
  static std::string Bytes(T value) {
    std::string bytes;
    Append(&bytes, value);
    return bytes;
  }
  static std::string StringValue(std::string_view text) {
    std::string bytes;
    AppendString(&bytes, text);
    return bytes;
  }
  static std::string ArrayValue(uint32_t type, uint64_t count, std::string_view elements) {
    return absl::StrCat(Bytes(type), Bytes(count), std::string(elements));
  }

  std::string Build() const {
    std::string out;
    Append(&out, magic);
    Append(&out, version);
    Append<uint64_t>(&out, tensor_count.value_or(tensors.size()));
    Append<uint64_t>(&out, metadata_count.value_or(metadata.size()));
    for (const std::string& entry : metadata) out += entry;
    for (const GgufTensorEntry& tensor : tensors) {
      AppendString(&out, tensor.name);
      Append<uint32_t>(&out, tensor.dimension_count.value_or(tensor.dimensions.size()));
      for (const uint64_t size : tensor.dimensions) Append(&out, size);
      Append(&out, tensor.type);
      Append(&out, tensor.offset);
    }
    out.resize((out.size() + alignment - 1) / alignment * alignment);
    return out + data;
  }
};

// A safetensors file of a header and the bytes of tensors.
inline std::string SafetensorsFile(std::string_view header, size_t data_bytes) {
  std::string out;
  Append<uint64_t>(&out, header.size());
  out += header;
  for (size_t i = 0; i < data_bytes; ++i) out += static_cast<char>(i * 7);
  return out;
}

// One to eight random changes of `file`: bytes, bits, interesting 64-bit numbers, cuts and copied ranges.
inline std::string Mutate(std::string file, std::mt19937_64* random) {
  const auto below = [random](size_t bound) { return static_cast<size_t>((*random)() % bound); };
  const uint64_t numbers[] = {
      0,          1,     31,        33, 255, 65'536, 65'537, 1ull << 31, 1ull << 32, 1ull << 61, (1ull << 63) - 1,
      1ull << 63, ~0ull, ~0ull - 31};
  for (size_t left = 1 + below(8); left > 0 && !file.empty(); --left) {
    const size_t at = below(file.size());
    switch (below(6)) {
      case 0:
        file[at] = static_cast<char>((*random)());
        break;
      case 1:
        file[at] = static_cast<char>(file[at] ^ (1 << below(8)));
        break;
      case 2: {
        const uint64_t number = numbers[below(std::size(numbers))];
        std::memcpy(&file[at], &number, std::min(sizeof(number), file.size() - at));
        break;
      }
      case 3:
        file.resize(below(8) == 0 ? at : file.size());
        break;
      case 4: {
        const std::string range = file.substr(at, 1 + below(24));
        file.insert(below(file.size()), range);
        break;
      }
      default:
        file.erase(at, 1 + below(8));
    }
  }
  return file;
}

inline std::string ReadWholeFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  EXPECT_TRUE(stream) << path;
  return {std::istreambuf_iterator<char>(stream), {}};
}

// A folder of the test's own, new for every test.
inline std::string TestFolder() {
  const char* base = getenv("TEST_TMPDIR");
  std::string folder = absl::StrCat(base == nullptr ? testing::TempDir() : std::string(base), "/weights-XXXXXX");
  EXPECT_NE(mkdtemp(folder.data()), nullptr);
  return folder;
}

inline std::string WriteFile(const std::string& path, std::string_view content) {
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_MODELS_WEIGHTS_FILE_BUILDER_H_
