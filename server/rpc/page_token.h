// Page tokens of the List methods: a cursor (the last key of a page) with a keyed digest, so that a token can neither
// be made up nor be used for another list. Immutable; any thread.
#ifndef TRIMTAB_SERVER_RPC_PAGE_TOKEN_H_
#define TRIMTAB_SERVER_RPC_PAGE_TOKEN_H_

#include <optional>
#include <string>
#include <string_view>

namespace trimtab {

class PageTokenCodec {
 public:
  // `key` must survive restarts if tokens shall (Registry::secret).
  explicit PageTokenCodec(std::string key);

  // `scope` names the list: method and parent. URL-safe text.
  std::string Encode(std::string_view scope, std::string_view cursor) const;
  // The cursor; nullopt for anything that Encode did not make for this scope and key.
  std::optional<std::string> Decode(std::string_view scope, std::string_view token) const;

 private:
  std::string Sign(std::string_view scope, std::string_view cursor) const;

  std::string key_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_PAGE_TOKEN_H_
