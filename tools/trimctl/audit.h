// The audit of an objective: which tokens of each prompt the preference hangs on, as text. audit_page.h makes a page of
// it. Pure functions; any thread.
#ifndef TRIMTAB_TOOLS_TRIMCTL_AUDIT_H_
#define TRIMTAB_TOOLS_TRIMCTL_AUDIT_H_

#include <string>

#include "trimtab/v1/revision.pb.h"

namespace trimtab {

// One pair. With `color` the tokens stand on green (for the preferred answer) or red (for the dispreferred one), the
// stronger the further from 0, and masked tokens are underlined; without, they are marked like[++] or this[---], and a
// masked token like[++*]. Template tokens are left out.
std::string RenderAttribution(const v1::Attribution& attribution, bool color);

// The tokens that matter most for and against the preferred answer, at most `count` on each side, with their scores.
std::string RenderInfluentialTokens(const v1::Attribution& attribution, int count, bool color);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_TRIMCTL_AUDIT_H_
