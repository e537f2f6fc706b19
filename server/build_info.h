// What this build is called: the version of the sources and the revision that the program was linked at. Any thread.
#ifndef TRIMTAB_SERVER_BUILD_INFO_H_
#define TRIMTAB_SERVER_BUILD_INFO_H_

namespace trimtab {

inline constexpr char kVersion[] = "0.1.0";

// `git describe` of the checkout when the program was last linked, "-dirty" behind it with uncommitted changes; commits
// that change nothing in the program do not link it again. "unknown" outside a git checkout.
extern const char kBuildRevision[];

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_BUILD_INFO_H_
