// Revisions as files and a method from outside the tree: a real server with a tiny model, through trimctl.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/server/model_folder.h"
#include "tools/quickstart/server_process.h"

namespace trimtab {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Result {
  int status = -1;
  std::string out, err;
};

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

class FilesTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::string pattern = ::testing::TempDir() + "/filesXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    std::ofstream pairs(folder_ + "/pairs.jsonl");
    for (const char* topic : {"the weather", "your day", "the garden", "my new job"}) {
      pairs << R"({"prompt": "What about )" << topic << R"(?", "preferred": "wonderful", "dispreferred": "awful"})"
            << "\n";
    }
    pairs.close();
    CopyModel("tiny", folder_, "tiny");
    auto server = ServerProcess::Start("server/trimtab",
                                       {"--model=tiny=" + folder_ + "/tiny", "--registry=" + folder_ + "/registry.db",
                                        "--kv_cache_mib=16", "--method_plugin=deploy/examples/plugin/answer_means.so"},
                                       folder_, absl::Minutes(2));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = server->release();
  }
  static void TearDownTestSuite() {
    delete server_;
    server_ = nullptr;
    std::filesystem::remove_all(folder_);
  }

  static Result Shell(const std::string& command) {
    const std::string out = folder_ + "/out", err = folder_ + "/err";
    const int status = std::system(absl::StrCat(command, " >", out, " 2>", err).c_str());
    return {.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1, .out = Read(out), .err = Read(err)};
  }
  static Result Trimctl(const std::string& arguments) {
    return Shell(absl::StrCat("TRIMTAB_ADDRESS=", server_->address(), " tools/trimctl/trimctl ", arguments));
  }
  // Fitted once, by the plugin.
  static void Fit() {
    static const Result* const result =
        new Result(Trimctl("register " + folder_ + "/pairs.jsonl --id calm --method answer_means --watch"));
    ASSERT_EQ(result->status, 0) << result->out << result->err;
    EXPECT_THAT(result->out, AllOf(HasSubstr("ACTIVE"), HasSubstr("answer_means")));
  }
  static std::string DigestOf(const std::string& name) {
    const std::string text = Trimctl("show " + name + "@1 -o json").out;
    const size_t at = text.find("\"digest\": \"");
    return at == std::string::npos ? "none" : text.substr(at + 11, 64);
  }

  inline static std::string folder_;
  inline static ServerProcess* server_ = nullptr;
};

TEST_F(FilesTest, AMethodFromASharedObjectFitsAndServes) {
  EXPECT_THAT(Trimctl("methods").out, AllOf(HasSubstr("answer_means"), HasSubstr("google.protobuf.Int32Value")));
  Fit();
  const Result steered = Trimctl("generate hello --steer calm=0.2 --max_output_tokens 4 --stats --temperature 0");
  EXPECT_EQ(steered.status, 0) << steered.err;
  EXPECT_THAT(steered.out + steered.err, HasSubstr("calm"));
  // Its configuration is checked before anything is queued.
  const Result wrong = Trimctl("register " + folder_ +
                               "/pairs.jsonl --id wrong --method answer_means --config 'value: -7' --validate_only");
  EXPECT_EQ(wrong.status, 2) << wrong.out;
  EXPECT_THAT(wrong.err, HasSubstr("must be a block"));
  // Nothing about tokens to show, and the page says so.
  ASSERT_EQ(Trimctl("audit calm --html " + folder_ + "/audit.html").status, 0);
  EXPECT_THAT(Read(folder_ + "/audit.html"), HasSubstr("has no audit"));
}

TEST_F(FilesTest, AServerWithAPluginThatIsNoneDoesNotStart) {
  const Result result = Shell("server/trimtab --model=tiny=" + folder_ + "/tiny --registry=" + folder_ +
                              "/other.db --address=127.0.0.1:0 --metrics_address= --method_plugin=absent.so");
  EXPECT_NE(result.status, 0);
  EXPECT_THAT(result.out + result.err, HasSubstr("--method_plugin absent.so: there is no such file"));
}

TEST_F(FilesTest, WhatIsExportedIsImportedExactly) {
  Fit();
  const std::string files = folder_ + "/calm";
  Result result = Trimctl("export calm --out " + files);
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("revisions/1"), HasSubstr("vectors.safetensors"), HasSubstr("revision.json")));
  EXPECT_EQ(Trimctl("export calm --out " + files).status, 1);  // they exist
  EXPECT_EQ(Trimctl("export calm --force --out " + files).status, 0);
  result = Trimctl("import " + files + "/revision.json " + files + "/vectors.safetensors --id copy");
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("has revision 1"), HasSubstr("objectives/calm/revisions/1")));
  EXPECT_EQ(DigestOf("copy"), DigestOf("calm"));
  EXPECT_EQ(Trimctl("generate hello --steer copy=0.2 --max_output_tokens 4 --temperature 0").out,
            Trimctl("generate hello --steer calm=0.2 --max_output_tokens 4 --temperature 0").out);
  // Once more: the next revision.
  result = Trimctl("import " + files + "/revision.json " + files + "/vectors.safetensors --id copy --max_strength 0.9");
  EXPECT_THAT(result.out, HasSubstr("has revision 2"));
}

TEST_F(FilesTest, AControlVectorGoesOutAndComesBack) {
  Fit();
  const std::string files = folder_ + "/gguf";
  Result result = Trimctl("export calm --format gguf --out " + files);
  EXPECT_EQ(result.status, 2);
  EXPECT_THAT(result.err, HasSubstr("gguf_scale"));
  result = Trimctl("export calm --format gguf --gguf_scale 2 --out " + files);
  ASSERT_EQ(result.status, 0) << result.err;
  const std::string file = files + "/control_vector.gguf";
  EXPECT_THAT(Trimctl("import " + file + " --id back").err, HasSubstr("--site must be"));
  EXPECT_THAT(Trimctl("import " + file + " --id back --site block_output").out, HasSubstr("ACTIVE"));
  EXPECT_THAT(Trimctl("show back").out, AllOf(HasSubstr("control_vector"), HasSubstr("max strength")));
  // A file of repeng's for another model: shapes are looked at, whatever is allowed.
  result = Trimctl(
      "import tests/golden/data/vectors/repeng.gguf --id foreign --site block_output --allow_other_fingerprint");
  EXPECT_EQ(result.status, 2);
  EXPECT_THAT(result.err, HasSubstr("12 numbers"));
  EXPECT_EQ(Trimctl("show foreign").status, 4);
  EXPECT_EQ(Trimctl("import " + folder_ + "/pairs.jsonl --id foreign").status, 2);
  EXPECT_EQ(Trimctl("import absent.gguf --id foreign --site block_output").status, 1);
}

}  // namespace
}  // namespace trimtab
