// Constants of the GGUF format, shared by gguf_parser.cc and gguf.cc only.
#ifndef TRIMTAB_MODELS_WEIGHTS_GGUF_FORMAT_H_
#define TRIMTAB_MODELS_WEIGHTS_GGUF_FORMAT_H_

#include <cstdint>
#include <string_view>

namespace trimtab {

// Types of metadata values.
enum GgufValueType : uint32_t {
  kGgufUint8 = 0,
  kGgufInt8 = 1,
  kGgufUint16 = 2,
  kGgufInt16 = 3,
  kGgufUint32 = 4,
  kGgufInt32 = 5,
  kGgufFloat32 = 6,
  kGgufBool = 7,
  kGgufString = 8,
  kGgufArray = 9,
  kGgufUint64 = 10,
  kGgufInt64 = 11,
  kGgufFloat64 = 12,
};

struct GgufValueTypeInfo {
  std::string_view name;
  uint64_t bytes;  // of one value; 0 for strings and arrays
};

inline constexpr GgufValueTypeInfo kGgufValueTypes[] = {
    {"uint8", 1},   {"int8", 1},   {"uint16", 2}, {"int16", 2},  {"uint32", 4}, {"int32", 4},   {"float32", 4},
    {"boolean", 1}, {"string", 0}, {"array", 0},  {"uint64", 8}, {"int64", 8},  {"float64", 8},
};
inline constexpr uint32_t kGgufValueTypeCount = 13;

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_WEIGHTS_GGUF_FORMAT_H_
