#include "server/rpc/common_fit_options.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <memory>
#include <string>

namespace trimtab {
namespace {

using google::protobuf::FieldDescriptor;
using methods::v1::FitOptions;

constexpr char kField[] = "fit";

// Merges what the serialized message `bytes` of `type` sets into `options`.
void Merge(const std::string& type, const std::string& bytes, FitOptions& options) {
  const auto* const descriptor = google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(type);
  if (descriptor == nullptr) return;
  const FieldDescriptor* const field = descriptor->FindFieldByName(kField);
  if (field == nullptr || field->is_repeated() || field->message_type() != FitOptions::descriptor()) return;
  const std::unique_ptr<google::protobuf::Message> message(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(descriptor)->New());
  if (!message->ParseFromString(bytes)) return;
  // A list that is given replaces the default one.
  FitOptions given;
  given.CopyFrom(message->GetReflection()->GetMessage(*message, field));
  if (given.layers_size() > 0) options.clear_layers();
  if (given.candidate_layers_size() > 0) options.clear_candidate_layers();
  if (given.candidate_strengths_size() > 0) options.clear_candidate_strengths();
  options.MergeFrom(given);
}

}  // namespace

FitOptions CommonFitOptions(const MethodInfo* method, const google::protobuf::Any* config) {
  FitOptions options;
  if (method != nullptr) Merge(method->config_type, method->default_config, options);
  if (config != nullptr) {
    const std::string& url = config->type_url();
    Merge(url.substr(url.rfind('/') + 1), config->value(), options);
  }
  return options;
}

}  // namespace trimtab
