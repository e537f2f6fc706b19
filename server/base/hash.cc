#include "server/base/hash.h"

#include <openssl/evp.h>

namespace trimtab {

struct Sha256::Context {
  EVP_MD_CTX* md = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(md); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) { EVP_DigestInit_ex(context_->md, EVP_sha256(), nullptr); }
Sha256::~Sha256() = default;

Sha256& Sha256::Update(const void* data, size_t size) {
  EVP_DigestUpdate(context_->md, data, size);
  return *this;
}

Sha256& Sha256::UpdateField(std::string_view text) {
  const uint64_t size = text.size();
  return Update(&size, sizeof(size)).Update(text);
}

std::array<uint8_t, 32> Sha256::Finish() {
  std::array<uint8_t, 32> bytes{};
  unsigned int size = bytes.size();
  EVP_DigestFinal_ex(context_->md, bytes.data(), &size);
  return bytes;
}

std::string Sha256::FinishHex() {
  const std::array<uint8_t, 32> bytes = Finish();
  return ToHex(bytes.data(), bytes.size());
}

Digest128 Sha256::Finish128() {
  const std::array<uint8_t, 32> bytes = Finish();
  Digest128 digest;
  std::memcpy(digest.data(), bytes.data(), sizeof(digest));
  return digest;
}

std::string Sha256Hex(std::string_view text) { return Sha256().Update(text).FinishHex(); }

std::string ToHex(const void* data, size_t size) {
  constexpr char kDigits[] = "0123456789abcdef";
  const auto* bytes = static_cast<const uint8_t*>(data);
  std::string text;
  text.reserve(2 * size);
  for (size_t i = 0; i < size; ++i) {
    text.push_back(kDigits[bytes[i] >> 4]);
    text.push_back(kDigits[bytes[i] & 15]);
  }
  return text;
}

}  // namespace trimtab
