#include "server/model_path.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "server/base/error.h"

namespace trimtab {
namespace {

namespace fs = std::filesystem;

class ModelPathTest : public ::testing::Test {
 protected:
  ModelPathTest() {
    std::string pattern = ::testing::TempDir() + "/pathXXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = fs::canonical(pattern);
    fs::create_directories(folder_ / "root/hub/model");
    fs::create_directories(folder_ / "root-too");
    for (const char* file : {"root/a.gguf", "root/hub/model/config.json", "outside.gguf", "root-too/b.gguf"}) {
      std::ofstream(folder_ / file) << "x";
    }
  }
  ~ModelPathTest() override { fs::remove_all(folder_); }

  std::string root() const { return (folder_ / "root").string(); }
  // The reason why `path` is refused; empty when it is not.
  std::string Refused(const std::string& path) {
    return GetErrorDetail(ResolveModelPath(root(), path).status()).reason;
  }

  fs::path folder_;
};

TEST_F(ModelPathTest, FindsWhatIsBelowTheRoot) {
  const auto file = ResolveModelPath(root(), "a.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->absolute, root() + "/a.gguf");
  EXPECT_EQ(file->relative, "a.gguf");
  EXPECT_EQ(ResolveModelPath(root() + "/", "./hub//model/")->absolute, root() + "/hub/model");
  EXPECT_EQ(ResolveModelPath(root(), root() + "/hub/model")->relative, "hub/model");
  EXPECT_EQ(ResolveModelPath(root(), "hub/../a.gguf")->absolute, root() + "/a.gguf");
}

TEST_F(ModelPathTest, NothingElseCanBeNamed) {
  for (const std::string& path :
       {std::string("../outside.gguf"), std::string("hub/../../outside.gguf"), (folder_ / "outside.gguf").string(),
        (folder_ / "root-too/b.gguf").string(), std::string("."), std::string(""), std::string("/etc/passwd"),
        std::string("missing.gguf"), std::string("a.gguf/x"), root()}) {
    EXPECT_EQ(Refused(path), kFieldInvalid) << path;
  }
  // Whether a file outside exists cannot be told apart.
  EXPECT_EQ(ResolveModelPath(root(), "/etc/passwd").status().message(),
            ResolveModelPath(root(), "/etc/not-there").status().message());
}

TEST_F(ModelPathTest, LinksStayInside) {
  fs::create_symlink(folder_ / "outside.gguf", folder_ / "root/out.gguf");
  fs::create_symlink(folder_, folder_ / "root/up");
  fs::create_symlink(root() + "/a.gguf", folder_ / "root/in.gguf");
  EXPECT_EQ(Refused("out.gguf"), kFieldInvalid);
  EXPECT_EQ(Refused("up/outside.gguf"), kFieldInvalid);
  EXPECT_EQ(ResolveModelPath(root(), "in.gguf")->absolute, root() + "/a.gguf");
  // As a cache of Hugging Face's hub has them.
  fs::create_symlink("../../a.gguf", folder_ / "root/hub/model/model.safetensors");
  EXPECT_EQ(Refused("hub/model"), "");
  fs::create_symlink(folder_ / "outside.gguf", folder_ / "root/hub/model/tokenizer.json");
  EXPECT_EQ(Refused("hub/model"), kFieldInvalid);
}

TEST_F(ModelPathTest, OnlyFilesAndFolders) {
  ASSERT_EQ(mkfifo((folder_ / "root/pipe").c_str(), 0600), 0);
  EXPECT_EQ(Refused("pipe"), kFieldInvalid);
}

TEST_F(ModelPathTest, NeedsARoot) {
  EXPECT_EQ(GetErrorDetail(ResolveModelPath("", "a.gguf").status()).reason, kLoadingDisabled);
  EXPECT_EQ(GetErrorDetail(ResolveModelPath("/nowhere/models", "a.gguf").status()).reason, kLoadingDisabled);
}

}  // namespace
}  // namespace trimtab
