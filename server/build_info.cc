// A linkstamp: compiled anew, with Bazel's build information included before it, when the server is linked.
// tools/build/workspace_status.sh says what BUILD_SCM_REVISION is.
#include "server/build_info.h"

namespace trimtab {

const char kBuildRevision[] = BUILD_SCM_REVISION;

}  // namespace trimtab
