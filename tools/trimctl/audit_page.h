// The audit of a revision as a web page of its own: which tokens of each prompt the preference hangs on, what masking
// them changes, what to doubt. Pure functions; any thread.
#ifndef TRIMTAB_TOOLS_TRIMCTL_AUDIT_PAGE_H_
#define TRIMTAB_TOOLS_TRIMCTL_AUDIT_PAGE_H_

#include <string>
#include <string_view>
#include <vector>

#include "trimtab/v1/revision.pb.h"

namespace trimtab {

// A page that needs nothing else and loads nothing: one short script of its own, which only sorts and filters, and
// which the page's security policy names by its hash. Everything from the server is escaped. Colours are told apart
// with any kind of colour vision and follow the reader's light or dark setting. Template tokens are left out.
std::string AuditPage(const v1::RevisionSummary& revision, const std::vector<v1::Attribution>& attributions);

// `text` with &, <, >, " and ' replaced, control characters made visible.
std::string EscapeHtml(std::string_view text);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_TRIMCTL_AUDIT_PAGE_H_
