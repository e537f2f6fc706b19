#include "server/rpc/parse_common.h"

#include <cmath>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"

namespace trimtab {
namespace {

constexpr size_t kMaxNameBytes = 512;

absl::string_view ToAbsl(std::string_view text) { return absl::string_view(text.data(), text.size()); }

std::string At(std::string_view field, int64_t index) { return absl::StrCat(ToAbsl(field), "[", index, "]"); }

std::string_view RoleName(v1::Role role) {
  switch (role) {
    case v1::ROLE_SYSTEM:
      return "system";
    case v1::ROLE_USER:
      return "user";
    case v1::ROLE_ASSISTANT:
      return "assistant";
    default:
      return "";
  }
}

// The text parts of one content, joined.
std::string ParseParts(FieldChecker& checker, std::string_view field, const v1::Content& content, bool& has_image) {
  std::string text;
  checker.Count(absl::StrCat(ToAbsl(field), ".parts"), content.parts_size(), 1, kMaxParts);
  for (int i = 0; i < content.parts_size(); ++i) {
    const std::string path = At(absl::StrCat(ToAbsl(field), ".parts"), i);
    switch (content.parts(i).data_case()) {
      case v1::Part::kText:
        checker.Text(path + ".text", content.parts(i).text(), 0, kMaxPromptBytes);
        text += content.parts(i).text();
        break;
      case v1::Part::kImage:
        has_image = true;
        if (content.parts(i).image().source_case() == v1::Image::SOURCE_NOT_SET) {
          checker.Fail(path + ".image.source", "set data or uri");
        }
        break;
      case v1::Part::DATA_NOT_SET:
        checker.Fail(path + ".data", "set text or image");
        break;
    }
  }
  return text;
}

}  // namespace

std::string ParseModel(FieldChecker& checker, std::string_view field, std::string_view name) {
  const auto model = ParseModelName(name);
  if (!model) {
    checker.Fail(field, absl::StrCat("must be models/{model} with an id of the form ", ToAbsl(kIdPattern)));
    return "";
  }
  return *model;
}

ObjectiveId ParseObjective(FieldChecker& checker, std::string_view field, std::string_view name) {
  const auto objective = ParseObjectiveName(name);
  if (!objective) {
    checker.Fail(
        field, absl::StrCat("must be models/{model}/objectives/{objective} with ids of the form ", ToAbsl(kIdPattern)));
    return {};
  }
  return *objective;
}

std::vector<ChatMessage> ParseContents(FieldChecker& checker, std::string_view field,
                                       const google::protobuf::RepeatedPtrField<v1::Content>& contents,
                                       int64_t max_contents, bool& has_image) {
  std::vector<ChatMessage> messages;
  if (!checker.Count(field, contents.size(), 1, max_contents)) return messages;
  int64_t bytes = 0;
  for (int i = 0; i < contents.size(); ++i) {
    const std::string path = At(field, i);
    const std::string_view role = RoleName(contents[i].role());
    if (role.empty()) {
      checker.Fail(path + ".role", "must be ROLE_SYSTEM, ROLE_USER or ROLE_ASSISTANT");
    } else if (contents[i].role() == v1::ROLE_SYSTEM && i > 0) {
      checker.Fail(path + ".role", "only the first content may be the system's");
    }
    std::string text = ParseParts(checker, path, contents[i], has_image);
    bytes += static_cast<int64_t>(text.size());
    messages.push_back({.role = std::string(role), .text = std::move(text)});
  }
  if (bytes > kMaxPromptBytes) {
    checker.Fail(field, absl::StrCat("must be at most ", kMaxPromptBytes, " bytes of text together, is ", bytes));
  }
  return messages;
}

std::vector<SteeringSelection> ParseSteering(
    FieldChecker& checker, std::string_view model,
    const google::protobuf::RepeatedPtrField<v1::SteeringSelection>& steering) {
  std::vector<SteeringSelection> selections;
  if (!checker.Count("steering", steering.size(), 0, kMaxSelections)) return selections;
  std::set<std::string> seen;
  for (int i = 0; i < steering.size(); ++i) {
    const std::string path = At("steering", i);
    const v1::SteeringSelection& proto = steering[i];
    SteeringSelection selection;
    std::optional<ObjectiveReference> reference;
    if (proto.objective().size() <= kMaxNameBytes) reference = ParseObjectiveReference(model, proto.objective());
    if (!reference) {
      checker.Fail(path + ".objective", "must be \"{objective}\", \"{objective}@{revision}\" or a full name");
    } else if (reference->objective.model != model) {
      checker.Fail(path + ".objective", "names an objective of another model");
    } else if (!seen.insert(reference->objective.objective).second) {
      checker.Fail(path + ".objective", "names an objective that the request has already");
    } else {
      selection.objective = reference->objective.name();
      selection.revision = reference->revision;
    }
    if (proto.has_strength()) {
      checker.Number(path + ".strength", proto.strength(), -kMaxStrength, kMaxStrength);
      selection.strength = proto.strength();
    }
    if (proto.has_apply_to() && proto.apply_to() != v1::APPLY_TO_UNSPECIFIED) {
      if (!v1::ApplyTo_IsValid(proto.apply_to())) checker.Fail(path + ".apply_to", "is not a known value");
      selection.apply_to = static_cast<ApplyTo>(proto.apply_to());
    }
    selections.push_back(std::move(selection));
  }
  return selections;
}

Priority ParsePriority(FieldChecker& checker, v1::Priority priority) {
  if (priority == v1::PRIORITY_UNSPECIFIED) return Priority::kInteractive;
  if (!v1::Priority_IsValid(priority)) checker.Fail("priority", "is not a known value");
  return static_cast<Priority>(priority);
}

PageQuery ParsePage(FieldChecker& checker, const PageTokenCodec& codec, std::string_view scope, int32_t page_size,
                    std::string_view page_token, int64_t default_size, int64_t max_size) {
  PageQuery query{.size = page_size == 0 ? default_size : page_size};
  checker.Integer("page_size", page_size, 0, max_size);
  if (!page_token.empty()) {
    if (auto after = codec.Decode(scope, page_token)) {
      query.after = *std::move(after);
    } else {
      checker.Fail("page_token", "is not a token of this list");
    }
  }
  return query;
}

absl::Status ImageUnsupportedError(std::string_view model) {
  return ReasonError(absl::StatusCode::kInvalidArgument, kImageUnsupported,
                     absl::StrCat("model \"", ToAbsl(model), "\" takes no images; send text parts only"),
                     {{"model", std::string(model)}});
}

}  // namespace trimtab
