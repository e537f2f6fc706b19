// Pictures as PNG. The font is a fixed file (Debian's fonts-dejavu-core), so a picture is the same on every machine,
// whatever fonts are set up there. Any thread.
#ifndef TRIMTAB_TOOLS_PLOT_RENDER_H_
#define TRIMTAB_TOOLS_PLOT_RENDER_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/plot/chart.h"

namespace trimtab {

// The bytes of a PNG file of the picture's size. INVALID_ARGUMENT says what of the picture cannot be drawn;
// FAILED_PRECONDITION without the font.
absl::StatusOr<std::string> RenderPng(const Picture& picture);

// Renders to a file, which appears whole or not at all. Also PERMISSION_DENIED or NOT_FOUND for the path.
absl::Status WritePng(const Picture& picture, const std::string& path);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_PLOT_RENDER_H_
