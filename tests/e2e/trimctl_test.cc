// trimctl against a real server with the small model: every command once, the exit statuses, Ctrl-C.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "tests/server/model_folder.h"
#include "tools/quickstart/server_process.h"

namespace trimtab {
namespace {

constexpr char kModel[] = "../trimtab_models/SmolLM2-135M-Instruct.Q4_1.gguf";
// A fit of a few seconds.
constexpr char kConfig[] =
    "attribution: ATTRIBUTION_KIND_OCCLUSION k: 3 fit { layers: 15 candidate_strengths: 0.05 random_directions: 1 }";

struct Result {
  int status = -1;
  std::string out, err;
};

std::string Read(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void Write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

int ToStatus(int wait_status) {
  return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

// Starts trimctl with its outputs going to the two files' descriptors.
pid_t Spawn(const std::string& address, const std::vector<std::string>& arguments, int out, int err) {
  std::vector<std::string> all = {"tools/trimctl/trimctl"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& argument : all) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    setenv("TRIMTAB_ADDRESS", address.c_str(), 1);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    execv(argv[0], argv.data());
    _exit(127);
  }
  return pid;
}

class TrimctlTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::string pattern = ::testing::TempDir() + "/trimctlXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    Write(folder_ + "/probe.jsonl", R"({"subject":"a","question":"1+1?","choices":["2","3"],"answer":0})");
    Write(folder_ + "/neutral.txt", "The river runs past the mill and through the town, and on to the sea.");
    std::string pairs;
    for (const char* topic : {"the weather", "your day", "the garden", "my new job", "the train", "dinner"}) {
      pairs += std::string(R"({"prompt": "What do you think of )") + topic +
               R"(?", "preferred": "It is wonderful, I love it!", "dispreferred": "It is awful."})" + "\n";
    }
    Write(folder_ + "/pairs.jsonl", pairs);
    CopyModel("tiny", folder_ + "/models", "tiny");
    auto server = ServerProcess::Start(
        "server/trimtab",
        {std::string("--model=small=") + kModel, "--registry=" + folder_ + "/registry.db", "--kv_cache_mib=64",
         "--model_root=" + folder_ + "/models", "--drift_suite=probe=" + folder_ + "/probe.jsonl",
         "--neutral_text=" + folder_ + "/neutral.txt"},
        folder_, absl::Minutes(3));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = server->release();
  }
  static void TearDownTestSuite() {
    delete server_;
    server_ = nullptr;
    std::filesystem::remove_all(folder_);
  }

  // Runs trimctl to its end.
  static Result Run(const std::vector<std::string>& arguments, const std::string& address = server_->address()) {
    const std::string out = folder_ + "/out", err = folder_ + "/err";
    const int out_file = open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const int err_file = open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const pid_t pid = Spawn(address, arguments, out_file, err_file);
    close(out_file);
    close(err_file);
    int status = 0;
    waitpid(pid, &status, 0);
    return {.status = ToStatus(status), .out = Read(out), .err = Read(err)};
  }

  // Runs trimctl until it has printed `text`, presses Ctrl-C and waits for its end; `out` holds both outputs.
  static Result RunUntil(const std::string& text, const std::vector<std::string>& arguments) {
    int ends[2];
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    const pid_t pid = Spawn(server_->address(), arguments, ends[1], ends[1]);
    close(ends[1]);
    Result result;
    bool interrupted = false;
    char buffer[4096];
    for (ssize_t got; (got = read(ends[0], buffer, sizeof(buffer))) > 0;) {
      result.out.append(buffer, static_cast<size_t>(got));
      if (!interrupted && result.out.find(text) != std::string::npos) {
        kill(pid, SIGINT);
        interrupted = true;
      }
    }
    close(ends[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    result.status = ToStatus(status);
    return result;
  }

  static std::string PairsFile() { return folder_ + "/pairs.jsonl"; }

  inline static std::string folder_;
  inline static ServerProcess* server_ = nullptr;
};

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(TrimctlTest, FollowsAnObjectiveFromItsPairsToItsEnd) {
  Result result =
      Run({"register", PairsFile(), "--id=cheerful", "--held_out", PairsFile(), "--config", kConfig, "--watch"});
  ASSERT_EQ(result.status, 0) << result.out << result.err;
  EXPECT_HAS(result.out, "state:             ACTIVE");
  EXPECT_HAS(result.out, "held-out gain:");
  EXPECT_HAS(result.err, "choosing layer and strength");

  EXPECT_HAS(Run({"objectives"}).out, "cheerful  ACTIVE         1      15      0.05");
  EXPECT_HAS(Run({"objectives", "-o", "json"}).out, "\"state\": \"STATE_ACTIVE\"");
  EXPECT_HAS(Run({"show", "cheerful@1"}).out, "grains on ");
  EXPECT_HAS(Run({"methods"}).out, "trimtab.methods.v1.GrainsConfig");
  EXPECT_HAS(Run({"audit", "cheerful"}).out, "for the preferred answer:");
  EXPECT_HAS(Run({"audit", "cheerful", "--pairs=2", "--color=always"}).out, "\033[4;30;48;5;");
  EXPECT_EQ(Run({"audit", "cheerful", "--html", folder_ + "/audit.html"}).status, 0);
  EXPECT_HAS(Read(folder_ + "/audit.html"), "<h2>Pair 5</h2>");

  result = Run({"generate", "Tell me about elephants.", "--steer", "cheerful=0.01", "--stats"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_HAS(result.out, "lephants are");
  EXPECT_HAS(result.err, "steered by cheerful@1 at 0.01");
  result = Run({"score", "The capital of France is", " Paris", " Rome", "--raw", "--steer=cheerful=0.01"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_HAS(result.out, "yes      Paris");
  result = Run({"drift", "--steer", "cheerful=0.1", "--max_text_tokens=16"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_HAS(result.out, "KL on neutral text:");
  EXPECT_HAS(Run({"drift", "list"}).out, "cheerful@1 = 0.1");

  EXPECT_EQ(Run({"update", "cheerful", "--default_strength=0.07", "--display_name", "Cheer"}).status, 0);
  EXPECT_HAS(Run({"show", "cheerful"}).out, "default strength:  0.07");
  EXPECT_EQ(Run({"update", "cheerful", "--clear=default_strength"}).status, 0);
  EXPECT_HAS(Run({"show", "cheerful"}).out, "default strength:  0.05");
  EXPECT_EQ(Run({"promote", "cheerful@1"}).status, 0);
  EXPECT_EQ(Run({"promote", "cheerful@2"}).status, 4);
  EXPECT_EQ(Run({"generate", "Hi", "--steer=cheerful=100"}).status, 2);
  EXPECT_HAS(Run({"operations"}).out, "SUCCEEDED  cheerful");
  EXPECT_EQ(Run({"delete", "cheerful"}).status, 0);
  EXPECT_EQ(Run({"show", "cheerful"}).status, 4);
}

TEST_F(TrimctlTest, AnObjectiveIsRefittedSwitchedOffAndMeasured) {
  Result result = Run({"register", PairsFile(), "--id=merry", "--config", kConfig, "--validate_only"});
  ASSERT_EQ(result.status, 0) << result.out << result.err;
  EXPECT_HAS(result.out, "The registration is valid. Nothing was stored.");
  EXPECT_HAS(result.out, "6, 6 can be used");
  EXPECT_HAS(result.out, "judged by the model's size alone");
  EXPECT_HAS(result.out, "look: only 6 pairs can be used");
  EXPECT_EQ(Run({"show", "merry"}).status, 4);
  result = Run({"register", PairsFile(), "--id=merry", "--held_out", PairsFile(), "--config", kConfig, "--watch"});
  ASSERT_EQ(result.status, 0) << result.out << result.err;

  result = Run({"refit", "merry", "--validate_only"});
  EXPECT_HAS(result.out, "judged by earlier fits on this model");
  EXPECT_HAS(result.out, "are among the pairs too");
  result = Run({"refit", "merry", PairsFile(), "--held_out", PairsFile(), "--keep_active", "--watch"});
  ASSERT_EQ(result.status, 0) << result.out << result.err;
  EXPECT_HAS(Run({"show", "merry"}).out, "1*");
  EXPECT_HAS(Run({"promote", "merry@2"}).out, "now serves revision 2");
  EXPECT_HAS(Run({"promote", "merry", "1"}).out, "now serves revision 1");

  EXPECT_HAS(Run({"disable", "merry"}).out, "out of service");
  result = Run({"generate", "Hi", "--steer=merry"});
  EXPECT_EQ(result.status, 2);
  EXPECT_HAS(result.err, "OBJECTIVE_NOT_READY");
  EXPECT_HAS(Run({"show", "merry"}).out, "DISABLED");
  EXPECT_HAS(Run({"enable", "merry"}).out, "serves revision 1 again");
  EXPECT_EQ(Run({"generate", "Hi", "--steer=merry", "--max_output_tokens=2"}).status, 0);

  const std::string png = folder_ + "/curve.png";
  result = Run({"curve", "merry", "--strengths=0.02,0.05", "--png", png});
  ASSERT_EQ(result.status, 0) << result.out << result.err;
  EXPECT_HAS(result.out, "6 held-out pairs");
  EXPECT_HAS(result.out, "not steered");
  EXPECT_HAS(result.err, "measuring strengths");
  EXPECT_EQ(Read(png).substr(1, 3), "PNG");
  // It is stored: shown at once, and with the objective.
  EXPECT_EQ(Run({"curve", "merry@1"}).out, result.out);
  EXPECT_HAS(Run({"show", "merry"}).out, "REPETITION");
  EXPECT_HAS(Run({"operations"}).out, "curve");
  result = Run({"curve", "merry", "--strengths=5"});
  EXPECT_EQ(result.status, 2);
  EXPECT_HAS(result.err, "strengths[0]: must be within the revision's max_strength");
  EXPECT_EQ(Run({"curve", "merry", "--strengths=x"}).status, 1);
  EXPECT_EQ(Run({"delete", "merry"}).status, 0);
}

TEST_F(TrimctlTest, CtrlCEndsTheWatchingAndNotTheFit) {
  const Result watch = RunUntil("scoring", {"register", PairsFile(), "--id=slow", "--watch"});
  EXPECT_EQ(watch.status, 130) << watch.out;
  EXPECT_HAS(watch.out, "The fit goes on without you.");
  const size_t at = watch.out.find("operations cancel ") + 18;
  const std::string operation = watch.out.substr(at, watch.out.find('\n', at) - at);
  EXPECT_HAS(Run({"operations", "get", operation}).out, "slow");
  EXPECT_EQ(Run({"operations", "cancel", operation}).status, 0);
  const Result wait = Run({"operations", "wait", operation});
  EXPECT_EQ(wait.status, 5) << wait.out << wait.err;
  EXPECT_HAS(wait.out, "CANCELLED");
  EXPECT_HAS(Run({"show", "slow"}).out, "FAILED");
}

TEST_F(TrimctlTest, CtrlCEndsAnAnswer) {
  const Result result =
      RunUntil("a", {"generate", "Tell me a long story.", "--ignore_eos", "--max_output_tokens=4000"});
  EXPECT_EQ(result.status, 130) << result.out;
}

TEST_F(TrimctlTest, SaysWhatIsWrong) {
  EXPECT_EQ(Run({}).status, 1);
  EXPECT_EQ(Run({"--help"}).status, 0);
  EXPECT_EQ(Run({"register", "--help"}).status, 0);
  EXPECT_EQ(Run({"help", "register"}).out, Run({"register", "--help"}).out);
  EXPECT_HAS(Run({"genrate"}).err, "did you mean \"generate\"?");
  EXPECT_HAS(Run({"generate", "hi", "--held_out=x"}).err, "has no flag \"--held_out=x\"");
  EXPECT_HAS(Run({"generate", "hi", "--steer=a=b"}).err, "the strength must be a number");
  EXPECT_EQ(Run({"generate", "hi", "--steer=a=b"}).status, 1);
  EXPECT_EQ(Run({"generate", "hi", "-o", "xml"}).status, 1);

  Write(folder_ + "/bad.jsonl", "{\"prompt\": 1}\n");
  Result result = Run({"register", folder_ + "/bad.jsonl", "--id=x"});
  EXPECT_EQ(result.status, 1);
  EXPECT_HAS(result.err, "bad.jsonl:1: \"preferred\" is missing");
  result = Run({"register", PairsFile(), "--id=x", "--config=l: 1"});
  EXPECT_EQ(result.status, 1);
  EXPECT_HAS(result.err, "line 1, column 2");
  result = Run({"register", PairsFile(), "--id=Not-An-Id"});
  EXPECT_EQ(result.status, 2);
  EXPECT_HAS(result.err, "  objective_id: must be");

  result = Run({"generate", "hi", "--temperature=-1", "--top_p=2"});
  EXPECT_EQ(result.status, 2);
  EXPECT_HAS(result.err, "  config.temperature: ");
  EXPECT_HAS(result.err, "  config.top_p: ");
  result = Run({"generate", "hi", "--steer=nothing"});
  EXPECT_EQ(result.status, 4);
  EXPECT_HAS(result.err, "OBJECTIVE_NOT_FOUND");
  EXPECT_HAS(result.err, "What to do: ");
  EXPECT_EQ(Run({"models", "--model=x"}).status, 0);
  // The metrics port speaks HTTP/1.
  EXPECT_EQ(Run({"models"}, server_->metrics_address()).status, 3);
  EXPECT_HAS(Run({"models"}, "127.0.0.1:1").err, "No server answers at 127.0.0.1:1");
}

TEST_F(TrimctlTest, ModelsComeAndGo) {
  EXPECT_HAS(Run({"models", "load", "second", "tiny", "--kv_cache_mib", "1", "--validate_only"}).out, "can be loaded");
  const Result load = Run({"models", "load", "second", "tiny", "--kv_cache_mib", "1", "--watch"});
  EXPECT_EQ(load.status, 0) << load.err;
  EXPECT_HAS(load.out, "second  READY");
  EXPECT_HAS(Run({"models"}).out, "small   READY");
  EXPECT_HAS(Run({"models", "-o", "json"}).out, "\"path\": \"tiny\"");
  EXPECT_EQ(Run({"generate", "x", "--raw", "--max_output_tokens", "2", "--model", "second"}).status, 0);
  const Result exists = Run({"models", "load", "second", "tiny"});
  EXPECT_EQ(exists.status, 2);
  EXPECT_HAS(exists.err, "MODEL_EXISTS");
  EXPECT_HAS(Run({"models", "load", "third", "../../etc"}).err, "--model_root");
  EXPECT_EQ(Run({"models", "unload", "third"}).status, 4);
  EXPECT_EQ(Run({"models", "load", "third"}).status, 1);
  const Result unload = Run({"models", "unload", "second", "--watch", "--drain_timeout", "5s"});
  EXPECT_EQ(unload.status, 0) << unload.err;
  EXPECT_HAS(unload.out, "models/second is unloaded");
  EXPECT_HAS(Run({"operations"}).out, "SUCCEEDED  second");
}

}  // namespace
}  // namespace trimtab
