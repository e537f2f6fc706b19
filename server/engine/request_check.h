// Whether a request can be served at all, before the engine takes it. No torch. Any thread.
#ifndef TRIMTAB_SERVER_ENGINE_REQUEST_CHECK_H_
#define TRIMTAB_SERVER_ENGINE_REQUEST_CHECK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "models/model_spec.h"
#include "server/engine/request.h"

namespace trimtab {

struct RequestLimits {
  int64_t max_context = 0;   // tokens of prompt and output together
  int64_t cache_tokens = 0;  // positions that the whole KV cache holds
};

// INVALID_ARGUMENT: FIELD_INVALID with every violation (token ids outside the vocabulary, sampling parameters out of
// range, a plan for another hidden size or site), PROMPT_TOO_LONG (tokens, limit). RESOURCE_EXHAUSTED:
// KV_CACHE_TOO_SMALL when the prompt fits the context but never the cache.
absl::Status CheckRequest(const Request& request, const ModelSpec& spec, const RequestLimits& limits);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_REQUEST_CHECK_H_
