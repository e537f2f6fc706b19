#include "models/loaded_model.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/checkpoint_loader.h"
#include "models/checkpoint_plan.h"
#include "models/model_description.h"
#include "models/tokenizer/chat_template.h"
#include "models/tokenizer/gguf_vocabulary.h"
#include "models/weights/file_error.h"
#include "models/weights/gguf.h"
#include "models/weights/safetensors.h"
#include "models/weights/tensor_source.h"
#include "server/base/error.h"
#include "server/base/hash.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

namespace fs = std::filesystem;

// Empty text when the file does not exist.
absl::StatusOr<std::string> ReadOptionalTextFile(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return std::string();
  return ReadModelText(path.string());
}

std::string PrecisionName(const WeightForm& form) {
  if (form.grouped) return "file";
  return form.plain_type == at::kFloat ? "float32" : "bfloat16";
}

// The type of most bytes of the checkpoint.
std::string MostCommonType(const TensorSource& source) {
  std::map<std::string, uint64_t> bytes;
  for (const std::string& name : source.names()) bytes[source.Find(name)->dtype] += source.Find(name)->bytes;
  const auto most =
      std::max_element(bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? "" : most->first;
}

absl::StatusOr<std::string> Fingerprint(const ModelSpec& spec, const TensorSource& source) {
  Sha256 hash;
  hash.UpdateField(spec.architecture);
  for (int64_t number : {spec.vocab_size, spec.hidden_size, spec.intermediate_size, spec.num_heads, spec.num_kv_heads,
                         spec.head_dim, spec.num_layers()}) {
    hash.UpdateField(absl::StrCat(number));
  }
  TRIMTAB_ASSIGN_OR_RETURN(const std::string content, source.ContentHash());
  hash.UpdateField(content);
  return hash.FinishHex();
}

// See LoadedModel::mask_token.
absl::StatusOr<TokenId> MaskToken(const Tokenizer& tokenizer) {
  const std::vector<TokenId>& ends = tokenizer.end_of_generation();
  if (const std::optional<TokenId> pad = tokenizer.pad();
      pad && pad != tokenizer.unk() && std::find(ends.begin(), ends.end(), *pad) == ends.end()) {
    return *pad;
  }
  const std::vector<TokenId> space = tokenizer.Encode(" ", Tokenizer::SpecialTokens::kPlain);
  if (space.empty()) return absl::InvalidArgumentError("the tokenizer has no token for a space");
  return space.front();
}

std::string TokenTextOf(const Tokenizer& tokenizer, std::optional<TokenId> token) {
  return token ? tokenizer.TokenBytes(*token) : "";
}

absl::StatusOr<std::shared_ptr<const LoadedModel>> Assemble(LoadedModel loaded, const CheckpointPlan& plan,
                                                            const TensorSource& source,
                                                            const std::string& chat_template, const std::string& path,
                                                            const LoadOptions& options) {
  const ModelSpec& spec = plan.description.spec;
  TRIMTAB_RETURN_IF_ERROR(CheckComplete(plan, path));
  // The table may be padded beyond the vocabulary, never the other way round.
  if (loaded.tokenizer->vocab_size() > spec.vocab_size) {
    return ModelFileError(path, absl::StrCat("the tokenizer has ", loaded.tokenizer->vocab_size(),
                                             " tokens, the embedding table only ", spec.vocab_size));
  }
  TRIMTAB_ASSIGN_OR_RETURN(const WeightForm form, ChooseWeightForm(options.precision, plan.quantised()));
  TRIMTAB_ASSIGN_OR_RETURN(loaded.model,
                           LoadCheckpoint(spec, plan.description.architecture->layout, source, plan.format, form));
  loaded.precision = PrecisionName(form);
  std::shared_ptr<const ChatTemplate> compiled;
  if (!chat_template.empty()) {
    TRIMTAB_ASSIGN_OR_RETURN(
        compiled, ChatTemplate::Create(chat_template, TokenTextOf(*loaded.tokenizer, loaded.tokenizer->bos()),
                                       TokenTextOf(*loaded.tokenizer, loaded.tokenizer->eos())));
  }
  loaded.prompts = std::make_shared<PromptBuilder>(loaded.tokenizer, std::move(compiled), loaded.tokenizer->add_bos());
  TRIMTAB_ASSIGN_OR_RETURN(loaded.mask_token, MaskToken(*loaded.tokenizer));
  TRIMTAB_ASSIGN_OR_RETURN(loaded.fingerprint, Fingerprint(spec, source));
  loaded.quantization = MostCommonType(source);
  return std::make_shared<const LoadedModel>(std::move(loaded));
}

absl::StatusOr<std::shared_ptr<const LoadedModel>> LoadGguf(const std::string& id, const std::string& path,
                                                            const LoadOptions& options) {
  TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<const GgufFile> file, GgufFile::Open(path));
  TRIMTAB_ASSIGN_OR_RETURN(ModelDescription description, DescribeGguf(*file));
  const CheckpointPlan plan = PlanTensors(std::move(description), CheckpointFormat::kGguf, file->tensors());
  LoadedModel loaded;
  loaded.id = id;
  TRIMTAB_ASSIGN_OR_RETURN(loaded.display_name, file->GetStringOr("general.name", fs::path(path).stem().string()));
  TRIMTAB_ASSIGN_OR_RETURN(GgufVocabulary vocabulary, ReadGgufVocabulary(*file));
  TRIMTAB_ASSIGN_OR_RETURN(loaded.tokenizer, Tokenizer::FromGguf(std::move(vocabulary)));
  TRIMTAB_ASSIGN_OR_RETURN(const std::string_view chat_template, file->GetStringOr("tokenizer.chat_template", ""));
  const std::shared_ptr<const TensorSource> source = MakeTensorSource(file, options.go_on);
  return Assemble(std::move(loaded), plan, *source, std::string(chat_template), path, options);
}

// The chat template of a Hugging Face folder: chat_template.jinja, else the key of tokenizer_config.json, which is a
// text or a list of named templates.
absl::StatusOr<std::string> ReadChatTemplate(const fs::path& folder, const nlohmann::json& tokenizer_config) {
  TRIMTAB_ASSIGN_OR_RETURN(std::string text, ReadOptionalTextFile(folder / "chat_template.jinja"));
  if (!text.empty() || !tokenizer_config.contains("chat_template")) return text;
  const nlohmann::json& value = tokenizer_config["chat_template"];
  if (value.is_string()) return value.get<std::string>();
  if (value.is_array()) {
    for (const nlohmann::json& entry : value) {
      if (entry.is_object() && entry.value("name", nlohmann::json()) == "default" && entry.contains("template") &&
          entry["template"].is_string()) {
        return entry["template"].get<std::string>();
      }
    }
  }
  return ModelFileError((folder / "tokenizer_config.json").string(),
                        "\"chat_template\" is neither a text nor a list "
                        "with a \"default\" template");
}

absl::StatusOr<std::shared_ptr<const LoadedModel>> LoadFolder(const std::string& id, const std::string& path,
                                                              const LoadOptions& options) {
  const fs::path folder(path);
  TRIMTAB_ASSIGN_OR_RETURN(ModelDescription description, DescribeHuggingFace((folder / "config.json").string()));
  LoadedModel loaded;
  loaded.id = id;
  loaded.display_name = fs::path(path).lexically_normal().filename().string();
  TRIMTAB_ASSIGN_OR_RETURN(const std::string tokenizer_json, ReadModelText((folder / "tokenizer.json").string()));
  TRIMTAB_ASSIGN_OR_RETURN(const std::string tokenizer_config, ReadOptionalTextFile(folder / "tokenizer_config.json"));
  TRIMTAB_ASSIGN_OR_RETURN(const std::string generation, ReadOptionalTextFile(folder / "generation_config.json"));
  TRIMTAB_ASSIGN_OR_RETURN(loaded.tokenizer,
                           Tokenizer::FromHuggingFaceJson(tokenizer_json, tokenizer_config, generation));
  nlohmann::json parsed = nlohmann::json::object();
  if (!tokenizer_config.empty()) {
    TRIMTAB_ASSIGN_OR_RETURN(parsed, ParseModelJson(tokenizer_config, (folder / "tokenizer_config.json").string()));
  }
  TRIMTAB_ASSIGN_OR_RETURN(const std::string chat_template, ReadChatTemplate(folder, parsed));
  TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<const SafetensorsCheckpoint> checkpoint,
                           SafetensorsCheckpoint::Open(path));
  const CheckpointPlan plan =
      PlanTensors(std::move(description), CheckpointFormat::kHuggingFace, checkpoint->tensors());
  const std::shared_ptr<const TensorSource> source = MakeTensorSource(checkpoint, options.go_on);
  return Assemble(std::move(loaded), plan, *source, chat_template, path, options);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const LoadedModel>> LoadModel(const std::string& id, const std::string& path,
                                                             const LoadOptions& options) {
  std::error_code error;
  if (fs::is_directory(path, error)) return LoadFolder(id, path, options);
  if (fs::exists(path, error)) return LoadGguf(id, path, options);
  return absl::NotFoundError(absl::StrCat(path, " does not exist: give a GGUF file or a Hugging Face folder"));
}

}  // namespace trimtab
