// SPDX-License-Identifier: Apache-2.0
// forksafe --watch: it tells who is stuck, and stands in for the command that it runs.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <new>

#include "background.h"
#include "process/as_child.h"

using namespace forksafe_test;

namespace {

Command watched(Command command, const std::vector<std::string>& options = {"--watch", "0.5"}) {
  command.arguments.insert(command.arguments.begin(), options.begin(), options.end());
  command.arguments.insert(command.arguments.begin(), forksafe_command());
  return command;
}

Command crew_specimen(const std::string& situation) {
  return specimen(Blas{CREW, "", "", "", false}, {situation});
}

Command bash(const std::string& script) {
  Command command;
  command.arguments = {installed("bash"), "-c", script};
  return command;
}

constexpr const char* kStuck = " (specimen) has been stuck for ";

}  // namespace

TEST_CASE("a child that is stuck is told once", "[watch stuck]") {
  Background background(watched(crew_specimen("crew")));
  const pid_t child = background.ready();
  const std::string line = "forksafe: " + std::to_string(child) + kStuck;
  CHECK(comes([&] { return contains(background.errors(), "forksafe diagnose"); }));
  sleep(2);  // several looks
  const std::string errors = background.errors();
  INFO(errors);
  CHECK(count(errors, "forksafe: ") == 1);
  CHECK(errors.rfind(line, 0) == 0);
  CHECK(contains(errors, "crew_work (libcrew.so) for"));
  CHECK(contains(errors, "\n  Cure: forksafe has none for libcrew.so: "));
  CHECK(contains(errors, "\n  Its stacks:  forksafe diagnose " + std::to_string(child) + "\n"));
  CHECK(count(background.output(), "\n") == 1);
  CHECK_FALSE(background.has_ended());

  // The signal reaches the command, which is the child's parent.
  kill(background.pid(), SIGTERM);
  const int status = background.wait(30);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGTERM);
}

// It wakes up every 5 ms.
TEST_CASE("a child that waits for Python's global lock is told", "[watch stuck]") {
  Background background(watched(python_that_forks_in_c("CDLL", "")));
  CHECK(comes([&] { return contains(background.errors(), " for a lock of Python, "); }));
  CHECK(count(background.errors(), " has been stuck for ") == 1);
}

TEST_CASE("each child that is stuck is told, asleep or not", "[watch stuck]") {
  Command spinning = omp_specimen("bare-team");
  spinning.environment["OMP_WAIT_POLICY"] = "active";
  Command both = bash("\"$0\" bare-team & \"$@\" & wait");
  both.arguments.push_back(spinning.arguments[0]);
  const Command crew = crew_specimen("crew");
  both.arguments.insert(both.arguments.end(), crew.arguments.begin(), crew.arguments.end());
  both.environment = spinning.environment;
  Background background(watched(both));
  CHECK(comes([&] { return count(background.errors(), " has been stuck for ") == 2; }));
  sleep(2);
  INFO(background.errors());
  CHECK(count(background.errors(), kStuck) == 1);
  CHECK(count(background.errors(), " (omp_specimen) has been stuck for ") == 1);
  CHECK(contains(background.errors(), "for 2 team mates that exist only in its parent."));
}

TEST_CASE("nobody is told stuck who is well", "[watch healthy]") {
  std::vector<std::unique_ptr<Background>> trees;
  for (const char* situation : {"child-works", "child-reads", "child-locks", "crew-of-its-own"}) {
    trees.push_back(std::make_unique<Background>(watched(crew_specimen(situation))));
  }
  for (const char* situation : {"work-in-region", "uneven", "regions-2"}) {
    trees.push_back(std::make_unique<Background>(watched(omp_specimen(situation))));
  }
  for (const auto& tree : trees) tree->ready();
  sleep(6);
  for (const auto& tree : trees) {
    INFO(tree->output());
    CHECK(tree->errors().empty());
    CHECK_FALSE(tree->has_ended());
  }
}

TEST_CASE("a thread that stops after the look goes on", "[watch healthy]") {
  // Two looks, while the main thread can't stop.
  Background background(watched(specimen({"slow-vfork"}), {"--watch", "0.4"}));
  CHECK(background.wait(30) == 0);
  CHECK(background.output() == "done\n");
}

TEST_CASE("the command goes on after a look that fails", "[watch healthy]") {
  const pid_t watcher = fork();
  if (watcher == 0) {
    int looks = 0;
    const auto look = [&](pid_t) -> bool {
      ++looks;
      throw std::bad_alloc();
    };
    try {
      const int status = forksafe::cli::run_as_child(
          {"sleep", "1"}, {"PATH=/usr/bin:/bin"}, 0.1, [](pid_t) {}, look);
      _exit(status == 0 && looks > 1 ? 0 : 1);
    } catch (...) {
      _exit(2);
    }
  }
  int status = 0;
  waitpid(watcher, &status, 0);
  CHECK(status == 0);
}

TEST_CASE("--watch-abort ends who is stuck, with SIGABRT", "[watch abort]") {
  Background background(watched(crew_specimen("crew"), {"--watch", "0.5", "--watch-abort"}));
  const pid_t child = background.ready();
  const int status = background.wait(30);
  INFO(background.output() << background.errors());
  CHECK(contains(background.errors(), "forksafe: " + std::to_string(child) + kStuck));
  CHECK(contains(background.errors(), "\n  It gets SIGABRT.\n"));
  // The parent goes on, and sees how its child has ended. There may be a core.
  CHECK(contains(background.output(), "the child ended with "));
  const int of_child = std::stoi(background.output().substr(background.output().rfind(' ')));
  CHECK(WTERMSIG(of_child) == SIGABRT);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 3);
}

TEST_CASE("the command goes on if nobody reads what is told", "[watch abort]") {
  for (const bool has_reader : {false, true}) {
    CAPTURE(has_reader);
    int ends[2];
    REQUIRE(pipe2(ends, O_NONBLOCK) == 0);
    if (has_reader) {
      while (write(ends[1], "", 1) == 1) {
      }
      fcntl(ends[1], F_SETFL, 0);
    } else {
      close(ends[0]);
    }
    Command command = bash("trap 'echo got PIPE' PIPE; \"$0\" \"$@\"; r=$?; sleep 0.5; exit $r");
    const Command crew = crew_specimen("crew");
    command.environment = crew.environment;
    command.arguments.insert(command.arguments.end(), crew.arguments.begin(), crew.arguments.end());
    command = watched(command, {"--watch", "0.5", "--watch-abort"});
    const std::string script = "exec \"$0\" \"$@\" 2>&" + std::to_string(ends[1]);
    command.arguments.insert(command.arguments.begin(), {installed("bash"), "-c", script});
    Background background(command);
    const int status = background.wait(30);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 3);
    CHECK_FALSE(contains(background.output(), "got PIPE"));
    close(ends[1]);
    if (has_reader) close(ends[0]);
  }
}

TEST_CASE("a signal that is sent to forksafe reaches the command once", "[watch signals]") {
  const std::vector<std::pair<int, std::string>> signals = {
      {SIGHUP, "HUP"},   {SIGINT, "INT"},   {SIGQUIT, "QUIT"}, {SIGTERM, "TERM"}, {SIGUSR1, "USR1"},
      {SIGUSR2, "USR2"}, {SIGALRM, "ALRM"}, {SIGABRT, "ABRT"}, {SIGPIPE, "PIPE"}};
  std::string script;
  for (const auto& [number, name] : signals)
    script += "trap 'echo got " + name + "' " + name + "; ";
  // What it sends to its own group it gets once, too.
  script += "trap 'echo got WINCH' WINCH; kill -WINCH 0; ";
  script += "echo ready $$; until [ -n \"$done\" ]; do sleep 0.05; done";
  Background background(watched(bash(script), {"--watch", "60"}));
  const pid_t command = background.ready();
  CHECK(command != background.pid());
  for (const auto& [number, name] : signals) {
    const std::string line = "got " + name + "\n";
    kill(background.pid(), number);
    INFO(line);
    CHECK(comes([&] { return contains(background.output(), line); }));
  }
  usleep(300000);
  for (const auto& [number, name] : signals) {
    CHECK(count(background.output(), "got " + name + "\n") == 1);
  }
  CHECK(count(background.output(), "got WINCH\n") == 1);

  // Who stops the command without a terminal may continue that alone.
  kill(command, SIGSTOP);
  CHECK(comes([&] { return state_of(command) == 'T'; }));
  usleep(300000);
  CHECK(state_of(background.pid()) == 'S');
  kill(command, SIGCONT);
  CHECK(comes([&] { return state_of(command) == 'S'; }));
  // It can also be continued by its parent, for which it stands in.
  kill(command, SIGSTOP);
  CHECK(comes([&] { return state_of(command) == 'T'; }));
  kill(background.pid(), SIGCONT);
  CHECK(comes([&] { return state_of(command) == 'S'; }));

  // Who kills forksafe kills the command.
  kill(background.pid(), SIGKILL);
  CHECK(comes([&] { return state_of(command) == '\0' || state_of(command) == 'Z'; }));
  CHECK(WTERMSIG(background.wait(30)) == SIGKILL);
}

// As process 1 of a container is.
TEST_CASE("an orphan ends whose new parent is forksafe", "[watch signals]") {
  Command command;
  command.arguments = {installed("python3"),
                       "-c",
                       "import ctypes, os, sys\n"
                       "PR_SET_CHILD_SUBREAPER = 36\n"
                       "ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)\n"
                       "os.execvp(sys.argv[1], sys.argv[1:])\n",
                       forksafe_command(),
                       "--watch",
                       "60",
                       "sh",
                       "-c",
                       "(sh -c 'echo ready $$; exec sleep 0.5' &); exec sleep 60"};
  Background background(command);
  const pid_t orphan = background.ready();
  CHECK(comes([&] { return state_of(orphan) == '\0'; }));
  CHECK_FALSE(background.has_ended());
}

TEST_CASE("an alarm that was set before reaches the command", "[watch signals]") {
  Command command;
  command.arguments = {installed("python3"),
                       "-c",
                       "import os, signal, sys\n"
                       "signal.alarm(1)\n"
                       "os.execvp(sys.argv[1], sys.argv[1:])\n",
                       forksafe_command(),
                       "--watch",
                       "60",
                       "sleep",
                       "60"};
  Background background(command);
  const int status = background.wait(30);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGALRM);
}

TEST_CASE("a pipe that the command closes is closed", "[watch files]") {
  const TemporaryDirectory folder;
  const std::string end = folder.file("end");
  const Outcome outcome =
      run_shell("$FORKSAFE_COMMAND --watch 60 sh -c 'echo out; exec >&-; until test -e " + end +
                "; do sleep 0.05; done' | { cat; touch " + end + "; }");
  INFO(outcome.describe());
  CHECK(outcome.succeeded());
  CHECK(outcome.output == "out\n");
}

TEST_CASE("a command that can't be run ends as without --watch", "[watch files]") {
  const TemporaryDirectory folder;
  write_file(folder.file("no-rights"), "", 0644);
  for (const std::string& name : {folder.file("missing"), folder.file("no-rights")}) {
    const Outcome without = run_forksafe({"--force", name});
    const Outcome with = run_forksafe({"--force", "--watch", "60", name});
    INFO(with.describe());
    CHECK(without.status >= 126);
    CHECK(with.status == without.status);
    CHECK(with.output == without.output);
  }
}

// ---- the log

TEST_CASE("the log has the first fork beside other threads, once", "[watch log]") {
  Command command = with_library(crew_specimen("crew-forks"));
  command.environment["FORKSAFE_LOG"] = "stderr";
  Background background(command);
  CHECK(background.wait(30) == 0);
  INFO(background.errors());
  const std::string pid = std::to_string(background.pid());
  CHECK(count(background.errors(), "forksafe[" + pid +
                                       "]: first fork beside 2 other threads: forksafe list " +
                                       pid + " tells whose they are\n") == 1);
  CHECK(count(background.errors(), "first fork") == 1);

  // Without other threads, and without a log.
  for (const bool log : {true, false}) {
    Command quiet = with_library(log ? specimen({"zombie"}) : crew_specimen("crew"));
    quiet.environment["FORKSAFE_LOG"] = log ? "stderr" : "";
    Background other(quiet);
    other.ready();
    CHECK(other.errors().empty());
  }
}

TEST_CASE("--watch with --log names the threads that nobody guards", "[watch log]") {
  const TemporaryDirectory folder;
  const std::string log = folder.file("log");
  for (const bool quiet : {false, true}) {
    Command command = watched(crew_specimen("crew-of-its-own"), {"--watch", "0.5"});
    if (!quiet) command.arguments.insert(command.arguments.begin() + 1, {"--log", log});
    Background background(command);
    const pid_t child = background.ready();
    if (quiet) {
      sleep(2);
      CHECK(background.errors().empty());
      continue;
    }
    const std::string line =
        " (specimen) forks beside 2 threads of libcrew.so, which nobody guards: ";
    CHECK(comes([&] { return contains(read_file(log), line); }));
    sleep(1);
    INFO(read_file(log) << child);
    CHECK(count(read_file(log), line + CREW + "\n") == 1);
    CHECK(count(read_file(log), "nobody guards") == 1);
    CHECK(background.errors().empty());
  }
}

TEST_CASE("--watch with --log names no thread whose stack can't be read", "[watch log]") {
  const TemporaryDirectory folder;
  const std::string log = folder.file("log");
  Background background(
      watched(crew_specimen("crew-beside-vfork"), {"--log", log, "--watch", "0.5"}));
  background.ready();
  CHECK(comes([&] { return contains(read_file(log), "nobody guards"); }));
  sleep(1);
  CHECK(count(read_file(log), "nobody guards") == 1);
  CHECK(background.errors().empty());
  CHECK_FALSE(background.has_ended());
}
