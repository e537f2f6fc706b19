#include "server/rpc/response_assembler.h"

#include <algorithm>
#include <utility>

namespace trimtab {
ResponseAssembler::ResponseAssembler(const ServedModel& model, std::vector<std::string> stop_sequences,
                                     std::vector<TokenId> end_tokens, bool logprobs)
    : model_(model),
      stops_(std::move(stop_sequences)),
      end_tokens_(std::move(end_tokens)),
      logprobs_(logprobs),
      decoder_(model.NewDecoder()) {}

void ResponseAssembler::Push(const OutputToken& token, v1::GenerateResponse& out) {
  if (stopped_) return;
  if (std::find(end_tokens_.begin(), end_tokens_.end(), token.token) != end_tokens_.end()) return;
  out.add_token_ids(token.token);
  ++token_count_;
  if (logprobs_) {
    v1::TokenLogprob& logprob = *out.add_logprobs();
    logprob.set_token_id(token.token);
    logprob.set_text(model_.TokenText(token.token));
    logprob.set_logprob(token.logprob);
    for (const TokenAlternative& alternative : token.top) {
      v1::TokenLogprob& top = *logprob.add_top();
      top.set_token_id(alternative.token);
      top.set_text(model_.TokenText(alternative.token));
      top.set_logprob(alternative.logprob);
    }
  }
  Release(decoder_->Push(token.token), out);
}

void ResponseAssembler::Flush(v1::GenerateResponse& out) {
  if (stopped_) return;
  Release(decoder_->Flush(), out);
  if (!stopped_) out.mutable_text()->append(stops_.Flush());
}

void ResponseAssembler::Release(const std::string& piece, v1::GenerateResponse& out) {
  const StopMatcher::Result result = stops_.Push(piece);
  out.mutable_text()->append(result.text);
  stopped_ = result.stopped;
}

}  // namespace trimtab
