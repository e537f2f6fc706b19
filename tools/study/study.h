// Crosses arms with data sets: fits every arm at the same budget of divergence and measures it on test pairs. One
// thread.
#ifndef TRIMTAB_TOOLS_STUDY_STUDY_H_
#define TRIMTAB_TOOLS_STUDY_STUDY_H_

#include <functional>
#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "models/loaded_model.h"
#include "steering/method_registry.h"
#include "tools/study/arms.h"
#include "tools/study/measure.h"

namespace trimtab {

// What runs are told while they run; may be empty.
using StudyLog = std::function<void(std::string_view line)>;

// METHOD_UNKNOWN, and configurations that do not fit their methods: checked before anything is computed.
absl::Status CheckArms(const ArmList& list, const MethodRegistry& methods);

// One data set. Every finished arm, and within an arm what its method keeps, is a partial result of `job`: an
// interrupted study goes on where it was. An arm whose fit fails has the error in its result; errors of the job's
// checkpoints end the run.
absl::StatusOr<DataSetResult> RunStudy(const StudyOptions& options, const ArmList& list, const DataSet& data,
                                       std::shared_ptr<const LoadedModel> model, const NeutralTexts& texts,
                                       const MethodRegistry& methods, JobContext& job, const StudyLog& log);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_STUDY_STUDY_H_
