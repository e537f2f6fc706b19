#include "models/weights/file_error.h"

#include <gtest/gtest.h>

#include "server/base/error.h"

namespace trimtab {
namespace {

TEST(FileErrorTest, NamesTheFileAndTheReason) {
  const absl::Status status = ModelFileError("a.gguf", "is bad");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "a.gguf: is bad");
  EXPECT_EQ(GetErrorDetail(status).reason, kModelFileInvalid);
  EXPECT_EQ(GetErrorDetail(status).metadata.at("file"), "a.gguf");
}

TEST(FileErrorTest, EscapesAndShortensNames) {
  EXPECT_EQ(QuoteName("blk.0"), "\"blk.0\"");
  EXPECT_EQ(QuoteName("a\n\"\xff"), "\"a\\n\\\"\\xff\"");
  EXPECT_EQ(QuoteName(std::string(81, 'a')), "\"" + std::string(80, 'a') + "...\"");
}

}  // namespace
}  // namespace trimtab
