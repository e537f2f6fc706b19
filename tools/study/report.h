// A study's result as a table and as pictures. No torch. Any thread.
#ifndef TRIMTAB_TOOLS_STUDY_REPORT_H_
#define TRIMTAB_TOOLS_STUDY_REPORT_H_

#include <string>
#include <utility>
#include <vector>

#include "tools/plot/chart.h"
#include "tools/study/arms.h"
#include "tools/study/results.h"

namespace trimtab {

// Markdown: all data sets side by side at the first budget, then each with all its numbers.
std::string StudyTable(const StudyResult& result);

// Pictures by file name: "overview.png" of the first group over all data sets; of each data set its groups, its curves
// over strength and the effect of masking, each where there is something to show.
std::vector<std::pair<std::string, Picture>> StudyPictures(const StudyResult& result, const ArmList& list);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_STUDY_REPORT_H_
