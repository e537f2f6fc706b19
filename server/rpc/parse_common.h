// Parts that several requests have: content, steering selections, pages, names. Each checks one message, adds what is
// wrong to the FieldChecker and returns the plain value (which is meaningless when something was wrong). Pure; any
// thread.
#ifndef TRIMTAB_SERVER_RPC_PARSE_COMMON_H_
#define TRIMTAB_SERVER_RPC_PARSE_COMMON_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "google/protobuf/repeated_field.h"
#include "models/tokenizer/chat_template.h"
#include "server/base/resource_name.h"
#include "server/engine/request.h"
#include "server/rpc/field_checker.h"
#include "server/rpc/page_token.h"
#include "steering/steering_plan.h"
#include "trimtab/v1/common.pb.h"

namespace trimtab {

inline constexpr int64_t kMaxPromptBytes = int64_t{1} << 20;
inline constexpr int64_t kMaxContents = 256;
inline constexpr int64_t kMaxParts = 64;
inline constexpr int64_t kMaxRequestIdBytes = 128;
inline constexpr float kMaxStrength = 1000;

// The prompt of a request: exactly one of the two is not empty.
struct PromptInput {
  std::vector<ChatMessage> messages;  // for the chat template
  std::string raw;                    // given to the model as it is
  bool has_image = false;             // some part was an image; its text parts are in `messages`
};

// models/{m}: the id.
std::string ParseModel(FieldChecker& checker, std::string_view field, std::string_view name);
ObjectiveId ParseObjective(FieldChecker& checker, std::string_view field, std::string_view name);

// Turns in order, a system turn only first; `has_image` is set when a part is an image.
std::vector<ChatMessage> ParseContents(FieldChecker& checker, std::string_view field,
                                       const google::protobuf::RepeatedPtrField<v1::Content>& contents,
                                       int64_t max_contents, bool& has_image);

// The oneof "input" of GenerateRequest, ScoreRequest and CountTokensRequest.
template <typename RequestProto>
PromptInput ParsePromptInput(FieldChecker& checker, const RequestProto& request) {
  PromptInput input;
  switch (request.input_case()) {
    case RequestProto::kConversation:
      input.messages = ParseContents(checker, "conversation.contents", request.conversation().contents(), kMaxContents,
                                     input.has_image);
      break;
    case RequestProto::kPrompt:
      checker.Text("prompt", request.prompt(), 1, kMaxPromptBytes);
      input.raw = request.prompt();
      break;
    case RequestProto::INPUT_NOT_SET:
      checker.Fail("input", "set conversation or prompt");
      break;
  }
  return input;
}

// Selections of a request to `model` (an id): at most kMaxSelections, objectives of that model, each once.
std::vector<SteeringSelection> ParseSteering(FieldChecker& checker, std::string_view model,
                                             const google::protobuf::RepeatedPtrField<v1::SteeringSelection>& steering);

Priority ParsePriority(FieldChecker& checker, v1::Priority priority);

// A page of a list. `after`: the cursor inside page_token, empty for the first page.
struct PageQuery {
  int64_t size = 0;
  std::string after;
};
// `scope` as given to PageTokenCodec::Encode.
PageQuery ParsePage(FieldChecker& checker, const PageTokenCodec& codec, std::string_view scope, int32_t page_size,
                    std::string_view page_token, int64_t default_size, int64_t max_size);

// INVALID_ARGUMENT (IMAGE_UNSUPPORTED): what a request with images gets from a text model.
absl::Status ImageUnsupportedError(std::string_view model);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_PARSE_COMMON_H_
