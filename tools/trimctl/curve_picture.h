// A strength curve as a picture. Pure; any thread.
#ifndef TRIMTAB_TOOLS_TRIMCTL_CURVE_PICTURE_H_
#define TRIMTAB_TOOLS_TRIMCTL_CURVE_PICTURE_H_

#include "tools/plot/chart.h"
#include "trimtab/v1/revision.pb.h"

namespace trimtab {

// Two panels over the strength: the effect with its interval, and what it costs. The recommended strength is marked, the
// validated range shaded. `curve` must have points.
Picture CurvePicture(const v1::StrengthCurve& curve);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_TRIMCTL_CURVE_PICTURE_H_
