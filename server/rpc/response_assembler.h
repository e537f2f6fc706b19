// From generated tokens to response messages: incremental text, stop sequences across token borders, log-probabilities.
// One per request, on one thread at a time (the egress pool).
#ifndef TRIMTAB_SERVER_RPC_RESPONSE_ASSEMBLER_H_
#define TRIMTAB_SERVER_RPC_RESPONSE_ASSEMBLER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "models/tokenizer/stop_matcher.h"
#include "server/engine/request.h"
#include "server/rpc/served_model.h"
#include "trimtab/v1/generation.pb.h"

namespace trimtab {

// Text that may be the beginning of a stop sequence is held back until it is decided.
class ResponseAssembler {
 public:
  // `model` must outlive the assembler. `end_tokens` have no text and are not reported.
  ResponseAssembler(const ServedModel& model, std::vector<std::string> stop_sequences, std::vector<TokenId> end_tokens,
                    bool logprobs);

  // Adds to `out` what `token` makes known. Ignores tokens after a stop sequence.
  void Push(const OutputToken& token, v1::GenerateResponse& out);
  // The output is over: releases what was held back.
  void Flush(v1::GenerateResponse& out);
  // Whether a stop sequence came up. The text ends before it.
  bool stopped() const { return stopped_; }
  // Tokens reported: the engine may have made a few more before it heard of a stop sequence.
  int64_t token_count() const { return token_count_; }

 private:
  void Release(const std::string& piece, v1::GenerateResponse& out);

  const ServedModel& model_;
  StopMatcher stops_;
  const std::vector<TokenId> end_tokens_;
  const bool logprobs_;
  const std::unique_ptr<TextDecoder> decoder_;
  bool stopped_ = false;
  int64_t token_count_ = 0;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_RESPONSE_ASSEMBLER_H_
