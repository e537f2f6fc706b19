#include "server/rpc/page_token.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace trimtab {
namespace {

constexpr size_t kSignatureBytes = 16;
constexpr size_t kMaxTokenBytes = 1024;

absl::string_view ToAbsl(std::string_view text) { return absl::string_view(text.data(), text.size()); }

}  // namespace

PageTokenCodec::PageTokenCodec(std::string key) : key_(std::move(key)) {}

std::string PageTokenCodec::Sign(std::string_view scope, std::string_view cursor) const {
  const std::string text = absl::StrCat(scope.size(), ":", ToAbsl(scope), ToAbsl(cursor));
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  HMAC(EVP_sha256(), key_.data(), static_cast<int>(key_.size()), reinterpret_cast<const unsigned char*>(text.data()),
       text.size(), digest, &size);
  return std::string(reinterpret_cast<const char*>(digest), kSignatureBytes);
}

std::string PageTokenCodec::Encode(std::string_view scope, std::string_view cursor) const {
  return absl::WebSafeBase64Escape(absl::StrCat(Sign(scope, cursor), ToAbsl(cursor)));
}

std::optional<std::string> PageTokenCodec::Decode(std::string_view scope, std::string_view token) const {
  std::string bytes;
  if (token.size() > kMaxTokenBytes || !absl::WebSafeBase64Unescape(ToAbsl(token), &bytes)) return std::nullopt;
  if (bytes.size() < kSignatureBytes) return std::nullopt;
  std::string cursor = bytes.substr(kSignatureBytes);
  const std::string expected = Sign(scope, cursor);
  if (CRYPTO_memcmp(expected.data(), bytes.data(), kSignatureBytes) != 0) return std::nullopt;
  return cursor;
}

}  // namespace trimtab
