#include "tools/trimctl/json_output.h"

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/json_util.h"
// Linked so that its messages can be printed and parsed by name.
#include "google/rpc/error_details.pb.h"
#include "trimtab/methods/v1/auto.pb.h"
#include "trimtab/methods/v1/caa.pb.h"
#include "trimtab/methods/v1/grains.pb.h"
#include "trimtab/methods/v1/icv.pb.h"
#include "trimtab/methods/v1/iti.pb.h"
#include "trimtab/methods/v1/margin_gradient.pb.h"
#include "trimtab/methods/v1/mean_diff.pb.h"
#include "trimtab/methods/v1/random.pb.h"

namespace trimtab {
namespace {

using google::protobuf::Any;
using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::MessageFactory;
using google::protobuf::Reflection;

const Descriptor* FindType(std::string_view name) {
  // Their descriptors enter the pool when the program starts, if something refers to them.
  static const Descriptor* const kLinked[] = {methods::v1::GrainsConfig::descriptor(),
                                              methods::v1::AutoConfig::descriptor(),
                                              methods::v1::CaaConfig::descriptor(),
                                              methods::v1::IcvConfig::descriptor(),
                                              methods::v1::ItiConfig::descriptor(),
                                              methods::v1::MarginGradientConfig::descriptor(),
                                              methods::v1::MeanDiffConfig::descriptor(),
                                              methods::v1::NlItiConfig::descriptor(),
                                              methods::v1::RandomConfig::descriptor(),
                                              google::rpc::ErrorInfo::descriptor()};
  static_cast<void>(kLinked);
  return DescriptorPool::generated_pool()->FindMessageTypeByName(std::string(name));
}

bool IsKnown(const Any& any) {
  const std::string& url = any.type_url();
  return FindType(std::string_view(url).substr(url.rfind('/') + 1)) != nullptr;
}

// Removes packed messages of unknown types below `message`.
void DropUnknown(Message& message) {
  const Reflection& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_map()) continue;
    const bool is_any = field->message_type() == Any::descriptor();
    if (!field->is_repeated()) {
      Message& inner = *reflection.MutableMessage(&message, field);
      if (is_any && !IsKnown(static_cast<const Any&>(inner))) {
        reflection.ClearField(&message, field);
      } else {
        DropUnknown(inner);
      }
      continue;
    }
    for (int i = reflection.FieldSize(message, field) - 1; i >= 0; --i) {
      Message& inner = *reflection.MutableRepeatedMessage(&message, field, i);
      if (is_any && !IsKnown(static_cast<const Any&>(inner))) {
        reflection.SwapElements(&message, field, i, reflection.FieldSize(message, field) - 1);
        reflection.RemoveLast(&message, field);
      } else {
        DropUnknown(inner);
      }
    }
  }
}

// Keeps the first mistake of a text.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (text_.empty()) text_ = absl::StrCat("line ", line + 1, ", column ", column + 1, ": ", message);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace

std::string ToJson(const Message& message) {
  const std::unique_ptr<Message> copy(message.New());
  copy->CopyFrom(message);
  DropUnknown(*copy);
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  std::string json;
  // Every packed type is known here, so this cannot fail.
  const auto status = google::protobuf::util::MessageToJsonString(*copy, &json, options);
  if (!status.ok()) return absl::StrCat("{\"error\": \"this answer has no JSON form\"}\n");
  return json;
}

absl::StatusOr<Any> ParseConfig(std::string_view config_type, std::string_view textproto) {
  const Descriptor* type = FindType(config_type);
  if (type == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("this trimctl does not know the configuration type ", std::string(config_type)));
  }
  const std::unique_ptr<Message> config(MessageFactory::generated_factory()->GetPrototype(type)->New());
  google::protobuf::TextFormat::Parser parser;
  FirstError error;
  parser.RecordErrorsTo(&error);
  if (!parser.ParseFromString(std::string(textproto), config.get())) {
    return absl::InvalidArgumentError(
        absl::StrCat("the configuration is not a ", std::string(config_type), ", ", error.text()));
  }
  Any any;
  any.PackFrom(*config);
  return any;
}

}  // namespace trimtab
