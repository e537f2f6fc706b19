#include "models/weights/mapped_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/base/error.h"
#include "tests/models/weights/file_builder.h"

namespace trimtab {
namespace {

TEST(MappedFileTest, HoldsTheWholeFile) {
  const std::string path = WriteFile(TestFolder() + "/file", std::string("ab\0c", 4));
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->path(), path);
  EXPECT_THAT((*file)->bytes(), testing::ElementsAre('a', 'b', 0, 'c'));
}

TEST(MappedFileTest, StaysWhatItWasWhenTheFileIsReplaced) {
  const std::string path = WriteFile(TestFolder() + "/file", "old");
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok());
  WriteFile(path + ".new", "newer");
  ASSERT_EQ(rename((path + ".new").c_str(), path.c_str()), 0);
  EXPECT_THAT((*file)->bytes(), testing::ElementsAre('o', 'l', 'd'));
}

TEST(MappedFileTest, RefusesWhatIsNoFile) {
  const std::string folder = TestFolder();
  EXPECT_EQ(MappedFile::Open(folder + "/absent").status().code(), absl::StatusCode::kNotFound);
  const std::string pipe = folder + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const std::string& path : {folder, pipe, WriteFile(folder + "/empty", "")}) {
    const absl::Status status = MappedFile::Open(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_EQ(GetErrorDetail(status).reason, kModelFileInvalid);
    EXPECT_THAT(std::string(status.message()), testing::StartsWith(path));
  }
}

}  // namespace
}  // namespace trimtab
