// SPDX-License-Identifier: Apache-2.0
// What works without the library works with it: each program of programs/ is run without the
// library, then with it in every setting that the case names. It must succeed and print the same.
//
// FORKSAFE_TEST_TIMES=N: N times as many forks.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "process.h"

using namespace forksafe_test;

namespace {

constexpr int kSkipped = 77;

using Variables = std::map<std::string, std::string>;

std::string from_environment(const char* variable, const char* fallback) {
  const char* value = getenv(variable);
  if (value != nullptr) return value;
  REQUIRE(fallback != nullptr);
  return fallback;
}

std::string library() { return from_environment("FORKSAFE_LIB", nullptr); }
std::string programs() { return from_environment("FORKSAFE_TEST_PROGRAMS", nullptr); }

// A temporary folder. It is removed, with all files in it, at the end of the test.
class Folder {
 public:
  Folder() {
    char name[] = "/tmp/forksafe-harm-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path_ = name;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::string& path() const { return path_; }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      names.push_back(entry.path().filename());
    }
    return names;
  }

 private:
  std::string path_;
};

Command harm_program(const std::string& name, const std::vector<std::string>& arguments) {
  const std::string times = from_environment("FORKSAFE_TEST_TIMES", "1");
  Command command;
  command.arguments = {programs() + "/" + name, "--times=" + times};
  command.arguments.insert(command.arguments.begin() + 1, arguments.begin(), arguments.end());
  // The programs have time limits of their own, and print which process has hung.
  command.total_seconds = 90 * std::stod(times);
  command.quiet_seconds = command.total_seconds + 1;
  return command;
}

std::string shown(const Command& command) {
  std::string text;
  for (const auto& [name, value] : command.environment) text += name + "=" + value + " ";
  for (const std::string& argument : command.arguments) text += argument + " ";
  return text;
}

Outcome run_shown(const Command& command) {
  const Outcome outcome = run(command);
  printf("%s: %s", shown(command).c_str(), outcome.describe().c_str());
  fflush(stdout);
  return outcome;
}

// If the program can't be run here, prints its reason and skips the test.
void skip_if_skipped(const Outcome& outcome) {
  if (outcome.end != Outcome::End::kExited || outcome.status != kSkipped) return;
  printf("%s", outcome.output.c_str());
  fflush(stdout);
  _exit(kSkipped);
}

const std::vector<Variables> kDefault = {{}};
// The default; a log that can be written; and `auto`, with which children look at the tree of
// processes.
const std::vector<Variables> kEverySetting = {
    {}, {{"FORKSAFE_LOG", "/dev/null"}}, {{"FORKSAFE_CHILD_THREADS", "auto"}}};

void expect_no_harm(const std::string& name, const std::vector<std::string>& arguments = {},
                    const std::vector<Variables>& settings = kDefault) {
  const Command command = harm_program(name, arguments);
  const Outcome without = run_shown(command);
  skip_if_skipped(without);
  INFO(shown(command) << "without the library: " << without.describe());
  REQUIRE(without.succeeded());
  for (const Variables& setting : settings) {
    Command preloaded = command;
    preloaded.environment = setting;
    preloaded.environment["LD_PRELOAD"] = library();
    const Outcome with = run_shown(preloaded);
    INFO(shown(preloaded) << with.describe());
    CHECK(with.succeeded());
    CHECK(with.output == without.output);
  }
}

}  // namespace

TEST_CASE("a timer's handler forks while the program forks") {
  for (const char* timer : {"timer", "itimer", "fast"}) {
    expect_no_harm("fork_in_timer_handler", {timer});
  }
}

TEST_CASE("a handler of SIGCHLD respawns workers while the program forks") {
  expect_no_harm("respawn_in_sigchld");
}

TEST_CASE("a handler forks inside the unwinder, dl_iterate_phdr or dlopen") {
  for (const char* where : {"throw", "iterate", "load"}) {
    expect_no_harm("fork_in_handler_during", {where});
  }
}

TEST_CASE("a child forks again beside a thread in dl_iterate_phdr") {
  for (const char* what : {"fork", "register"}) {
    expect_no_harm("grandchildren", {std::string("iterate/") + what});
  }
}

TEST_CASE("a child forks again beside a thread that throws") {
  for (const char* what : {"fork", "register"}) {
    expect_no_harm("grandchildren", {std::string("throw/") + what});
  }
}

TEST_CASE("a child forks again beside a thread that loads libraries") {
  for (const char* what : {"fork", "register"}) {
    expect_no_harm("grandchildren", {std::string("load/") + what});
  }
}

TEST_CASE("a child forks again beside a thread that forks") {
  for (const char* what : {"fork", "register", "load"}) {
    expect_no_harm("grandchildren", {std::string("fork/") + what});
  }
}

TEST_CASE("a child loads libraries beside a thread that throws") {
  expect_no_harm("grandchildren", {"throw/load"});
}

TEST_CASE("a child of a constructor goes on in dlopen") {
  for (const char* how : {"", "probe"}) {
    expect_no_harm("fork_goes_on_in_dlopen", {how}, {{}, {{"FORKSAFE", "0"}}});
  }
}

TEST_CASE("a thread loads a library that registers fork handlers") {
  expect_no_harm("loader", {"register"});
  expect_no_harm("loader", {"register", "libgomp.so.1"});
}

TEST_CASE("a thread loads a library whose constructor forks") {
  expect_no_harm("loader", {"fork"});
  expect_no_harm("loader", {"fork", "libgomp.so.1"});
}

TEST_CASE("no fork waits for a constructor") {
  expect_no_harm("loader", {"sleep"});
  expect_no_harm("loader", {"sleep", "libgomp.so.1"});
}

TEST_CASE("a library that registers fork handlers is loaded 10,000 times") {
  expect_no_harm("reload");
}

TEST_CASE("a child loads a library that registers fork handlers again") {
  expect_no_harm("reload_in_child");
}

TEST_CASE("a child registers its fork handlers once more") { expect_no_harm("registers_again"); }

TEST_CASE("the order of fork handlers") { expect_no_harm("handler_order"); }

TEST_CASE("a fork handler forks") { expect_no_harm("handler_forks", {"alone"}); }

TEST_CASE("a fork handler forks beside another thread") {
  expect_no_harm("handler_forks", {"threads"});
}

TEST_CASE("a prepare handler waits for a thread that registers, loads or forks") {
  for (const char* what : {"register", "load", "fork"}) expect_no_harm("handler_waits", {what});
}

TEST_CASE("a fork handler needs signals") { expect_no_harm("handler_needs_signal"); }

TEST_CASE("all threads are stopped by a signal while some fork") {
  expect_no_harm("stopped_world");
  expect_no_harm("stopped_world", {"libgomp.so.1"});
}

TEST_CASE("a fork under a recursive lock that a prepare handler takes") {
  expect_no_harm("recursive_lock");
}

TEST_CASE("a prepare handler jumps out of fork") {
  expect_no_harm("jump_out_of_handler", {"alone"});
}

TEST_CASE("a prepare handler jumps out of fork while others fork") {
  expect_no_harm("jump_out_of_handler", {"threads"});
}

TEST_CASE("a thread ends in a prepare handler") {
  for (const char* how : {"deferred", "asynchronous", "exit"}) {
    expect_no_harm("thread_ends_in_handler", {how});
  }
}

TEST_CASE("fork is no cancellation point") {
  expect_no_harm("pending_cancellation", {}, kEverySetting);
  expect_no_harm("pending_cancellation", {"libgomp.so.1"}, kEverySetting);
}

TEST_CASE("threads that fork are cancelled") {
  expect_no_harm("cancelled_forkers", {}, kEverySetting);
}

TEST_CASE("a signal that is blocked and pending stays so") {
  expect_no_harm("pending_signal", {}, kEverySetting);
  expect_no_harm("pending_signal", {"libgomp.so.1"}, kEverySetting);
}

TEST_CASE("a program loads and unloads the library") { expect_no_harm("unloaded", {library()}); }

TEST_CASE("a library that calls forkpty comes and goes") {
  expect_no_harm("pty_reload", {}, {{}, {{"FORKSAFE", "0"}}});
}

TEST_CASE("nobody holds the lock of dl_iterate_phdr while a library is loaded") {
  for (const char* program : {"quiet_loading", "quiet_loading_fixed"}) {
    expect_no_harm(program, {}, {{}, {{"FORKSAFE", "0"}}});
  }
  expect_no_harm("quiet_loading", {"libgomp.so.1"}, {{}, {{"FORKSAFE_CHILD_THREADS", "auto"}}});
}

TEST_CASE("forks at exit and in destructors") { expect_no_harm("fork_at_exit"); }

TEST_CASE("forks before main") { expect_no_harm("fork_in_constructors", {}, kEverySetting); }

TEST_CASE("fork on small stacks") {
  for (const char* where : {"alternate", "thread"}) {
    expect_no_harm("fork_on_small_stack", {where}, kEverySetting);
  }
}

TEST_CASE("50 threads fork at once") { expect_no_harm("fork_at_once"); }

TEST_CASE("other ways to start a process") { expect_no_harm("other_ways", {"alone"}); }

TEST_CASE("other ways to start a process beside a thread that forks") {
  expect_no_harm("other_ways", {"threads"});
}

TEST_CASE("what a program sees of itself") { expect_no_harm("state", {}, kEverySetting); }

TEST_CASE("fork fails at a limit") { expect_no_harm("fork_fails", {"limit"}); }

TEST_CASE("fork fails by a filter of system calls") { expect_no_harm("fork_fails", {"seccomp"}); }

TEST_CASE("a filter that kills at a system call which the program does not make") {
  Command command;
  command.arguments = {programs() + "/../limited", "seccomp=madvise:kill", "/bin/sh", "-c",
                       "(echo in a child); echo $(echo in another)"};
  const Outcome without = run_shown(command);
  skip_if_skipped(without);
  REQUIRE(without.succeeded());
  command.environment["FORKSAFE_TEST_PRELOAD"] = library();
  const Outcome with = run_shown(command);
  CHECK(with.succeeded());
  CHECK(with.output == without.output);
}

TEST_CASE("another library interposes fork, __register_atfork and dlopen") {
  const std::string other = programs() + "/libinterposer.so";
  Command command = harm_program("interposed", {});
  command.environment["LD_PRELOAD"] = other;
  const Outcome without = run_shown(command);
  INFO("without the library: " << without.describe());
  REQUIRE(without.succeeded());
  for (const std::string& preload : {other + ":" + library(), library() + ":" + other}) {
    command.environment["LD_PRELOAD"] = preload;
    const Outcome with = run_shown(command);
    INFO(preload << ": " << with.describe());
    CHECK(with.succeeded());
    CHECK(with.output == without.output);
  }
}

TEST_CASE("FORKSAFE_LOG means what it meant at the start") {
  const Folder start;
  const Folder elsewhere;
  Command command = harm_program("log_elsewhere", {elsewhere.path()});
  command.arguments.insert(command.arguments.begin(), {"env", "--chdir=" + start.path()});
  const Outcome without = run_shown(command);
  skip_if_skipped(without);
  REQUIRE(without.succeeded());
  REQUIRE(start.files().empty());
  command.environment = {{"FORKSAFE_LOG", "the.log"}, {"LD_PRELOAD", library()}};
  const Outcome with = run_shown(command);
  CHECK(with.succeeded());
  CHECK(with.output == without.output);
  CHECK(start.files() == std::vector<std::string>{"the.log"});
  CHECK(elsewhere.files().empty());
}

TEST_CASE("secure execution") {
  const Folder folder;
  Command command;
  command.arguments = {
      "unshare",    "--mount",
      "sh",         from_environment("FORKSAFE_TEST_SCRIPTS", nullptr) + "/secure_execution.sh",
      library(),    programs() + "/privileged",
      folder.path()};
  const char* why_not = nullptr;
  Command namespaces;
  namespaces.arguments = {"unshare", "--mount", "true"};
  if (geteuid() != 0) {
    why_not = "only root can make a program setuid root";
  } else if (!run(namespaces).succeeded()) {
    // For example, in a chroot whose root is no mount point.
    why_not = "no mount namespace can be made here";
  }
  if (why_not != nullptr) {
    printf("skipped: %s\n", why_not);
    fflush(stdout);
    std::filesystem::remove_all(folder.path());
    _exit(kSkipped);
  }
  const Outcome outcome = run_shown(command);
  if (outcome.status == kSkipped) std::filesystem::remove_all(folder.path());
  skip_if_skipped(outcome);
  INFO(outcome.describe());
  CHECK(outcome.succeeded());
}
