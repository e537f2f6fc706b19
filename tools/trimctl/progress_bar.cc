#include "tools/trimctl/progress_bar.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/trimctl/text.h"

namespace trimtab {
namespace {

constexpr int kCells = 24;

double Clamped(double percent) { return std::isfinite(percent) ? std::clamp(percent, 0.0, 100.0) : 0; }

}  // namespace

std::string FormatProgress(const ProgressState& state) {
  const double percent = Clamped(state.percent);
  const int filled = static_cast<int>(percent / 100 * kCells);
  std::string line = absl::StrFormat("[%s%s] %3.0f %%  %s", std::string(filled, '#'), std::string(kCells - filled, '.'),
                                     std::floor(percent), state.phase);
  if (state.total > 0) absl::StrAppend(&line, "  ", state.completed, "/", state.total);
  if (state.eta_seconds && percent < 100) {
    const double seconds = std::ceil(std::clamp(*state.eta_seconds, 1.0, 1e6));
    absl::StrAppend(&line, "  ", seconds < 60 ? absl::StrFormat("%.0f s", seconds) : FormatDuration(seconds), " left");
  }
  return line;
}

void ProgressBar::Update(const ProgressState& state) {
  if (shown_ == state) return;
  const std::string line = FormatProgress(state);
  if (terminal_) {
    out_ << "\r\033[K" << line << std::flush;
    shown_ = state;
    return;
  }
  const auto tenth = [](double percent) { return std::floor(Clamped(percent) / 10); };
  if (shown_ && shown_->phase == state.phase && tenth(shown_->percent) == tenth(state.percent)) return;
  out_ << line << std::endl;
  shown_ = state;
}

void ProgressBar::Clear() {
  if (terminal_ && shown_) out_ << "\r\033[K" << std::flush;
  if (terminal_) shown_.reset();
}

}  // namespace trimtab
