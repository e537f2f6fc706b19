// What a strength curve is made of beyond measurements: repetition in answers, and the strengths to recommend. Pure;
// any thread.
#ifndef TRIMTAB_SERVER_STRENGTH_CURVE_H_
#define TRIMTAB_SERVER_STRENGTH_CURVE_H_

#include <string_view>

#include "trimtab/v1/revision.pb.h"

namespace trimtab {

// Share of the word 4-grams of `answer` that it has said before, 0 to 1; 0 for fewer than five words.
double RepeatedShare(std::string_view answer);

// Fills recommended_strength and the validated range from the points (ascending) and max_kl, as StrengthCurve says. The
// range is the stretch of neighbouring strengths around the recommended one that all hold.
void Recommend(v1::StrengthCurve& curve);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_STRENGTH_CURVE_H_
