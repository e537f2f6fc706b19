// Numbers and strings as little-endian bytes: the formats of vectors and of a fit's partial results. No torch.
#ifndef TRIMTAB_STEERING_BYTE_IO_H_
#define TRIMTAB_STEERING_BYTE_IO_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace trimtab {

static_assert(std::endian::native == std::endian::little, "the formats are little-endian");

class ByteWriter {
 public:
  template <typename T>
  void Number(T value) {
    static_assert(std::is_arithmetic_v<T>);
    Raw(&value, sizeof(value));
  }
  // With a u32 length before it.
  void String(std::string_view text) {
    Number(static_cast<uint32_t>(text.size()));
    bytes_.append(text);
  }
  // With a u32 count before it.
  template <typename T>
  void Numbers(const std::vector<T>& values) {
    static_assert(std::is_arithmetic_v<T>);
    Number(static_cast<uint32_t>(values.size()));
    Raw(values.data(), values.size() * sizeof(T));
  }
  void Raw(const void* data, size_t size) {
    if (size > 0) bytes_.append(static_cast<const char*>(data), size);
  }
  const std::string& bytes() const { return bytes_; }
  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Reads untrusted bytes; after the first failure every read fails and ok() is false. Allocates no more than it was
// given.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : bytes_(bytes) {}

  template <typename T>
  bool Number(T& value) {
    static_assert(std::is_arithmetic_v<T>);
    return Raw(&value, sizeof(value));
  }
  bool String(std::string& text) {
    uint32_t size = 0;
    if (!Number(size) || size > bytes_.size()) return ok_ = false;
    text.assign(bytes_.substr(0, size));
    bytes_.remove_prefix(size);
    return true;
  }
  template <typename T>
  bool Numbers(std::vector<T>& values) {
    uint32_t count = 0;
    if (!Number(count) || count > bytes_.size() / sizeof(T)) return ok_ = false;
    values.resize(count);
    return Raw(values.data(), count * sizeof(T));
  }
  bool Raw(void* data, size_t size) {
    if (!ok_ || size > bytes_.size()) return ok_ = false;
    if (size > 0) std::memcpy(data, bytes_.data(), size);
    bytes_.remove_prefix(size);
    return true;
  }
  bool ok() const { return ok_; }
  size_t remaining() const { return bytes_.size(); }

 private:
  std::string_view bytes_;
  bool ok_ = true;
};

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_BYTE_IO_H_
