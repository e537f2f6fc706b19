// A model as the services see it, without torch: text to tokens and back, and the door to its engine. The composition
// root wraps LoadedModel and Engine in it; tests have small ones of their own.
#ifndef TRIMTAB_SERVER_RPC_SERVED_MODEL_H_
#define TRIMTAB_SERVER_RPC_SERVED_MODEL_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/request.h"
#include "server/rpc/parse_common.h"
#include "trimtab/v1/model.pb.h"

namespace trimtab {

// Turns a stream of tokens into text. One per request; not thread-safe.
class TextDecoder {
 public:
  virtual ~TextDecoder() = default;
  // The whole characters that `token` completes; bytes of an unfinished one are kept for later.
  virtual std::string Push(TokenId token) = 0;
  // What is left: an unfinished character becomes U+FFFD.
  virtual std::string Flush() = 0;
};

// Thread-safe. Encoding costs time: never from a gRPC reaction.
class ServedModel {
 public:
  virtual ~ServedModel() = default;

  virtual const std::string& id() const = 0;
  virtual const std::string& fingerprint() const = 0;
  virtual v1::Model Describe() const = 0;

  // INVALID_ARGUMENT when the model has no chat template or the template refuses the conversation.
  virtual absl::StatusOr<std::vector<TokenId>> Encode(const PromptInput& input) const = 0;
  virtual std::vector<TokenId> EncodeContinuation(std::string_view text) const = 0;
  // The tokens that end an answer.
  virtual const std::vector<TokenId>& end_tokens() const = 0;
  // One token on its own, valid UTF-8.
  virtual std::string TokenText(TokenId token) const = 0;
  virtual std::unique_ptr<TextDecoder> NewDecoder() const = 0;

  // As in Engine: none of these blocks.
  virtual absl::Status Submit(std::unique_ptr<Request> request) = 0;
  virtual void Abort(const std::string& id, FinishReason reason) = 0;
  virtual void Resume(const std::string& id) = 0;
  // Blocks: for jobs only.
  virtual Scorer& scorer() = 0;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_SERVED_MODEL_H_
