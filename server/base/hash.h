// SHA-256 for content identities: vectors, pairs, models, prefix-cache keys. Any thread.
#ifndef TRIMTAB_SERVER_BASE_HASH_H_
#define TRIMTAB_SERVER_BASE_HASH_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

namespace trimtab {

// The first 128 bits of a SHA-256, for keys of in-memory tables. All zero means "nothing".
using Digest128 = std::array<uint64_t, 2>;

// Incremental SHA-256. Not thread-safe; one use per object.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  Sha256& Update(const void* data, size_t size);
  Sha256& Update(std::string_view text) { return Update(text.data(), text.size()); }
  // A length-prefixed string, so that ("ab","c") and ("a","bc") differ.
  Sha256& UpdateField(std::string_view text);

  std::array<uint8_t, 32> Finish();
  std::string FinishHex();  // 64 lower-case hexadecimal digits
  Digest128 Finish128();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string Sha256Hex(std::string_view text);
std::string ToHex(const void* data, size_t size);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_BASE_HASH_H_
