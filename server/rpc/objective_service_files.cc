// Revisions as files: ExportRevision and ImportRevision.
#include <google/protobuf/util/json_util.h>

#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/weights/file_error.h"
#include "server/base/error.h"
#include "server/base/hash.h"
#include "server/base/status_macros.h"
#include "server/rpc/objective_service.h"
#include "server/rpc/parse_files.h"
#include "server/rpc/resource_id.h"
#include "server/rpc/to_proto.h"
#include "server/rpc/unary.h"
#include "steering/vector_files.h"

namespace trimtab {
namespace {

constexpr size_t kMaxSummaryBytes = size_t{1} << 20;

// A configuration of a method that this server does not have is left out: it cannot be written as JSON.
std::string ToJson(v1::RevisionSummary summary) {
  std::string json;
  if (google::protobuf::util::MessageToJsonString(summary, &json).ok()) return json;
  json.clear();
  summary.clear_method_config();
  return google::protobuf::util::MessageToJsonString(summary, &json).ok() ? json : "";
}

// What the file says about its revision; what it does not say or nobody understands is empty.
absl::StatusOr<v1::RevisionSummary> ParseSummary(const std::string& json) {
  v1::RevisionSummary summary;
  if (json.empty()) return summary;
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  const auto status = google::protobuf::util::JsonStringToMessage(json, &summary, options);
  if (json.size() > kMaxSummaryBytes || !status.ok()) {
    return absl::InvalidArgumentError("summary is no RevisionSummary of at most 1 MiB; it may be left out");
  }
  return summary;
}

// What was measured on the weights that a vector was made for.
void ForgetEffects(v1::RevisionSummary& summary) {
  summary.clear_held_out();
  summary.clear_validation();
  summary.clear_kl_at_recommended();
  summary.clear_random_control();
  summary.clear_search();
  summary.clear_curve();
  summary.clear_trials();
}

// What the vector itself says goes before what the file says of it.
void Describe(const SteeringVector& vector, v1::RevisionSummary& summary) {
  const SteeringVectorSpec& spec = vector.spec();
  summary.clear_layers();
  for (const LayerDirection& layer : spec.layers) {
    v1::LayerSummary& entry = *summary.add_layers();
    entry.set_layer(static_cast<int32_t>(layer.layer));
    entry.set_site(static_cast<v1::Site>(spec.site));
    entry.set_explained_variance(layer.explained_variance);
    entry.set_cosine_to_mean(layer.cosine_to_mean);
    entry.set_cosine_to_margin_gradient(layer.cosine_to_margin_gradient);
    entry.set_bootstrap_stability(layer.bootstrap_stability);
    entry.set_weight(layer.weight);
  }
  summary.set_method(spec.method);
  summary.set_model_fingerprint(spec.model_fingerprint);
  summary.set_apply_to(static_cast<v1::ApplyTo>(spec.apply_to));
  summary.set_recommended_strength(spec.default_strength);
  summary.set_max_strength(spec.max_strength);
}

absl::Status FilesError(const absl::Status& status) { return FieldError({{"files", std::string(status.message())}}); }

// A vector from outside, with what is known of it.
struct Incoming {
  SteeringVectorSpec spec;
  v1::RevisionSummary summary;
};

absl::StatusOr<Incoming> ReadExported(const ImportCall& call) {
  absl::StatusOr<ImportedRevision> read = ReadRevisionFiles(call.vectors, call.document);
  if (!read.ok()) return FilesError(read.status());
  absl::StatusOr<v1::RevisionSummary> summary = ParseSummary(read->origin.summary);
  if (!summary.ok()) return FilesError(summary.status());
  Incoming incoming{.spec = read->vector->spec(), .summary = *std::move(summary)};
  if (call.default_strength) {
    incoming.spec.default_strength = *call.default_strength;
    incoming.summary.clear_kl_at_recommended();  // of the file's strength
  }
  if (call.max_strength) incoming.spec.max_strength = *call.max_strength;
  if (std::abs(incoming.spec.default_strength) > incoming.spec.max_strength) {
    return FieldError({{call.default_strength ? "default_strength" : "max_strength",
                        absl::StrCat("the default strength ", incoming.spec.default_strength, " is beyond the maximum ",
                                     incoming.spec.max_strength)}});
  }
  incoming.summary.set_imported_from(
      absl::StrCat(QuoteName(call.file_name), ", exported from ",
                   read->origin.revision.empty() ? "nowhere that it says" : QuoteName(read->origin.revision)));
  return incoming;
}

absl::StatusOr<Incoming> ReadGguf(const ImportCall& call, const v1::Model& model) {
  const absl::StatusOr<ControlVector> control = ReadControlVector(call.control_vector);
  if (!control.ok()) return FilesError(control.status());
  ControlVectorUse use = call.use;
  // Only to make the vector: which weights the file names is looked at later.
  use.model_fingerprint = model.fingerprint();
  const absl::StatusOr<std::shared_ptr<const SteeringVector>> vector = ToSteeringVector(*control, use);
  if (!vector.ok()) return FilesError(vector.status());
  Incoming incoming{.spec = (*vector)->spec()};
  incoming.spec.model_fingerprint = control->model_fingerprint;
  std::string from = QuoteName(call.file_name);
  if (!control->model_hint.empty()) absl::StrAppend(&from, ", model hint ", QuoteName(control->model_hint));
  if (!control->revision.empty()) absl::StrAppend(&from, ", exported from ", QuoteName(control->revision));
  incoming.summary.set_imported_from(from);
  if (!control->model_hint.empty() && control->model_hint != model.architecture()) {
    incoming.summary.add_warnings(absl::StrCat("the file is for a model of the architecture ",
                                               QuoteName(control->model_hint), ", this one is of \"",
                                               model.architecture(), "\""));
  }
  return incoming;
}

// Makes `incoming` a vector of this model's, if it may be one.
absl::Status Adopt(const ImportCall& call, const v1::Model& model, Incoming& incoming) {
  SteeringVectorSpec& spec = incoming.spec;
  const int64_t last = spec.layers.back().layer;
  if (spec.hidden_size != model.hidden_size() || last >= model.num_layers()) {
    return FieldError({{"files", absl::StrCat("the vectors have ", spec.hidden_size, " numbers and reach to block ",
                                              last, "; this model has ", model.hidden_size(), " and blocks 0 to ",
                                              model.num_layers() - 1)}});
  }
  if (spec.model_fingerprint == model.fingerprint()) return absl::OkStatus();
  const std::string named = spec.model_fingerprint.empty() ? "no weights" : "other weights than this model's";
  if (!call.allow_other_fingerprint) {
    return ReasonError(
        absl::StatusCode::kFailedPrecondition, kFingerprintMismatch,
        absl::StrCat("the file names ", named, ": set allow_other_fingerprint to import it all the same"),
        {{"file_fingerprint", spec.model_fingerprint}, {"model_fingerprint", model.fingerprint()}});
  }
  absl::StrAppend(incoming.summary.mutable_imported_from(), "; names ", named);
  if (!spec.model_fingerprint.empty()) {
    absl::StrAppend(incoming.summary.mutable_imported_from(), ", ", QuoteName(spec.model_fingerprint));
  }
  ForgetEffects(incoming.summary);
  incoming.summary.add_warnings("imported from a file that names " + named +
                                ": what it does to this model is not measured");
  spec.model_fingerprint = model.fingerprint();
  return absl::OkStatus();
}

// The import without what identifies the call: two calls with the same hash ask for the same thing.
std::string RequestHash(v1::ImportRevisionRequest request) {
  request.clear_request_id();
  return Sha256Hex(request.SerializeAsString());
}

}  // namespace

absl::Status ObjectiveServiceImpl::Export(const v1::ExportRevisionRequest& request,
                                          v1::ExportRevisionResponse* response) {
  TRIMTAB_ASSIGN_OR_RETURN(const ExportCall call, ParseExportRevisionRequest(request));
  TRIMTAB_ASSIGN_OR_RETURN(const ObjectiveRecord objective, parts_.registry.GetObjective(call.objective.name()));
  const int64_t number = call.revision.value_or(objective.active_revision);
  if (number == 0) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, kObjectiveNotReady,
                       absl::StrCat("objective \"", objective.name, "\" has no revision yet"),
                       {{"objective", objective.name}});
  }
  TRIMTAB_ASSIGN_OR_RETURN(const RevisionRecord record, parts_.registry.GetRevision(objective.name, number));
  const absl::StatusOr<std::shared_ptr<const SteeringVector>> vector = SteeringVector::Parse(record.vector);
  if (!vector.ok()) return absl::DataLossError("the stored revision is damaged");
  const std::string name = RevisionId{.objective = call.objective, .revision = number}.name();
  response->set_revision(name);
  const auto add = [response](std::string_view file, std::string data) {
    v1::RevisionFile& entry = *response->add_files();
    entry.set_name(std::string(file));
    entry.set_data(std::move(data));
  };
  if (!call.gguf) {
    RevisionFiles files = WriteRevisionFiles(**vector, {.revision = name, .summary = ToJson(ToProto(record))});
    add(kVectorsFileName, std::move(files.vectors));
    add(kRevisionFileName, std::move(files.document));
    return absl::OkStatus();
  }
  const SteeringVectorSpec& spec = (*vector)->spec();
  if (!call.gguf_scale && spec.strength_mode == StrengthMode::kRelative) {
    return FieldError({{"gguf_scale",
                        "must be set: this vector's edits are relative to the activation's norm, a control "
                        "vector's are not"}});
  }
  // A model that is gone leaves the hint empty; nothing depends on it.
  const absl::StatusOr<v1::Model> model = parts_.models.Describe(call.objective.model);
  absl::StatusOr<std::string> file = WriteControlVector(**vector, call.gguf_scale.value_or(spec.default_strength),
                                                        model.ok() ? model->architecture() : std::string(), name);
  if (!file.ok()) {
    const bool format = absl::IsFailedPrecondition(file.status());
    return FieldError({{format ? "format" : "gguf_scale", std::string(file.status().message())}});
  }
  add(kControlVectorFileName, *std::move(file));
  return absl::OkStatus();
}

absl::Status ObjectiveServiceImpl::Import(const v1::ImportRevisionRequest& request, v1::Objective* response) {
  TRIMTAB_ASSIGN_OR_RETURN(const ImportCall call, ParseImportRevisionRequest(request));
  TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<ServedModel> served, parts_.models.Find(call.id.model));
  const v1::Model model = served->Describe();
  TRIMTAB_ASSIGN_OR_RETURN(Incoming incoming, call.control_vector.empty() ? ReadExported(call) : ReadGguf(call, model));
  TRIMTAB_RETURN_IF_ERROR(Adopt(call, model, incoming));
  const absl::StatusOr<std::shared_ptr<const SteeringVector>> vector = SteeringVector::Create(std::move(incoming.spec));
  if (!vector.ok()) return FilesError(vector.status());
  Describe(**vector, incoming.summary);

  const absl::Time now = parts_.clock.Now();
  ObjectiveRecord objective;
  objective.name = call.id.name();
  objective.uid = NewResourceId("uid", now);
  objective.request_id = request.request_id();
  objective.request_hash = RequestHash(request);
  objective.method = (*vector)->spec().method;
  objective.model_fingerprint = model.fingerprint();
  RevisionRecord revision;
  revision.objective = objective.name;
  revision.digest = (*vector)->digest();
  revision.model_fingerprint = model.fingerprint();
  revision.method = objective.method;
  if (incoming.summary.has_method_config()) {
    objective.method_config = incoming.summary.method_config().SerializeAsString();
    revision.method_config = objective.method_config;
  }
  revision.pairs_hash = incoming.summary.pairs_digest();
  revision.vector = (*vector)->Serialize();
  revision.summary = incoming.summary.SerializeAsString();
  TRIMTAB_ASSIGN_OR_RETURN(const ObjectiveRecord stored,
                           parts_.registry.ImportRevision(objective, std::move(revision), request.etag()));
  TRIMTAB_RETURN_IF_ERROR(parts_.publisher.Publish(stored.name));
  TRIMTAB_ASSIGN_OR_RETURN(*response, LoadObjective(parts_.registry, stored));
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* ObjectiveServiceImpl::ExportRevision(grpc::CallbackServerContext* context,
                                                               const v1::ExportRevisionRequest* request,
                                                               v1::ExportRevisionResponse* response) {
  return RunUnary(parts_.executor, context, [=, this] { return Export(*request, response); });
}

grpc::ServerUnaryReactor* ObjectiveServiceImpl::ImportRevision(grpc::CallbackServerContext* context,
                                                               const v1::ImportRevisionRequest* request,
                                                               v1::Objective* response) {
  return RunUnary(parts_.executor, context, [=, this] { return Import(*request, response); });
}

}  // namespace trimtab
