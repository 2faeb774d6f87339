// SPDX-License-Identifier: Apache-2.0
// forksafe check: the verdict, the exit status, and that nothing is left behind.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>

#include "background.h"

using namespace forksafe_test;
namespace fs = std::filesystem;

namespace {

struct Verdict {
  Answer answer;
  Json json;
};

/// Runs check --json with `words`, in the environment of `command`.
Verdict check(std::vector<std::string> words, const Command& command = {}) {
  words.insert(words.begin(), {"check", "--json"});
  if (!command.arguments.empty()) words.emplace_back("--");
  words.insert(words.end(), command.arguments.begin(), command.arguments.end());
  Verdict verdict;
  verdict.answer = ask(words, Environment(command.environment.begin(), command.environment.end()));
  INFO(verdict.answer.describe());
  REQUIRE(verdict.answer.status <= 2);
  verdict.json = verdict.answer.json();
  CHECK(verdict.json["safe"] ==
        (verdict.answer.status == 2 ? Json() : Json(verdict.answer.status == 0)));
  return verdict;
}

Command under_forksafe(Command command) {
  command.arguments.insert(command.arguments.begin(), forksafe_command());
  return command;
}

Command omp_idle(const char* threads) {
  Command command;
  command.arguments = {program("omp_forker"), "idle", "3"};
  command.environment["OMP_NUM_THREADS"] = threads;
  return command;
}

std::string tried(const Json& answer) {
  return answer["tried"].is_null() ? "not tried" : answer["tried"]["result"].get<std::string>();
}

}  // namespace

TEST_CASE("check calls a program without a runtime safe", "[check]") {
  const Verdict verdict = check({}, {{"/bin/true"}, {}});
  CHECK(verdict.answer.status == 0);
  CHECK(verdict.json["runtimes"] == Json::array());
  CHECK(verdict.json["cure"].is_null());
  CHECK(verdict.json["text"] ==
        "no BLAS or OpenMP runtime that forksafe knows is loaded, so fork is safe in this respect");
  const Answer text = ask({"check", "--", "/bin/true"}, {{"TERM", "xterm"}});
  CHECK(text.status == 0);
  CHECK_FALSE(contains(text.output, "\x1b"));
  CHECK(contains(text.output, " (true): no BLAS or OpenMP runtime that forksafe knows is loaded"));
  CHECK(contains(text.output, "\nAt its end, without a fork, it had 1 thread.\n"));
}

TEST_CASE("check proves that GNU OpenMP is unsafe, and safe under forksafe", "[check openmp]") {
  prctl(PR_SET_CHILD_SUBREAPER, 1);  // a probe that is left becomes a child of this process
  const Verdict verdict = check({}, omp_idle("3"));
  INFO(verdict.json.dump(1));
  CHECK(verdict.answer.status == 1);
  CHECK(verdict.json["text"] == "fork is not safe here");
  CHECK(verdict.json["cure"] == "forksafe " + program("omp_forker") + " idle 3");
  CHECK(verdict.json["situation"] == "At its first fork it had 3 threads.");
  REQUIRE(verdict.json["runtimes"].size() == 1);
  const Json runtime = verdict.json["runtimes"][0];
  CHECK(runtime["guarded"] == false);
  CHECK(runtime["fork_idle"]["safe"] == false);
  CHECK(tried(runtime["fork_idle"]) == "hung");
  CHECK(runtime["fork_idle"]["tried"]["text"] == "a child hung at the first fork");
  CHECK(tried(runtime["fork_in_flight"]) == "hung");
  CHECK(runtime["fork_idle_guarded"]["safe"] == true);
  CHECK(tried(runtime["fork_idle_guarded"]) == "passed");
  CHECK(tried(runtime["fork_in_flight_guarded"]) == "passed");
  CHECK(runtime["fork_in_flight_guarded"]["tried"]["forks"].get<int>() > 0);

  const Verdict guarded = check({"--no-proof"}, under_forksafe(omp_idle("3")));
  INFO(guarded.json.dump(1));
  CHECK(guarded.answer.status == 0);
  CHECK(guarded.json["text"] == "fork is safe here, under forksafe");
  CHECK(guarded.json["cure"].is_null());
  CHECK(guarded.json["runtimes"][0]["guarded"] == true);
  CHECK(waitpid(-1, nullptr, WNOHANG) == -1);  // no child, no zombie
}

TEST_CASE("check does not call a fork safe beside threads that forksafe does not know",
          "[check other threads]") {
  Background background(specimen(Blas{CREW, "", "", "", false}, {"crew-of-its-own"}));
  const pid_t pid = background.ready();
  const Answer answer = ask({"check", std::to_string(pid)});
  INFO(answer.describe());
  CHECK(answer.status == 2);
  CHECK(contains(answer.output,
                 "fork may hang here: forksafe does not know 2 threads of libcrew.so.\n"));
  const Json json = ask({"check", "--json", std::to_string(pid)}).json();
  CHECK(json["safe"].is_null());
  CHECK(json["other_threads"][0]["filepath"] == CREW);
}

TEST_CASE("check does not call a fork safe beside threads that it can't name",
          "[check new threads]") {
  const auto check_beside = [](const char* situation, const std::string& threads) {
    Background background(specimen(Blas{CREW, "", "", "", false}, {situation}));
    const Answer answer = ask({"check", std::to_string(background.ready())});
    INFO(answer.describe());
    CHECK(answer.status == 2);
    CHECK(contains(answer.output, "fork may hang here: forksafe does not know " + threads + ".\n"));
  };
  check_beside("crew-late", "2 threads of libcrew.so");
  check_beside("crew-unread", "2 threads whose stack can't be read");
}

TEST_CASE("check calls GNU OpenMP that is linked in unsafe, without a cure", "[check linked in]") {
  const Command command = static_omp_specimen("team", false);
  const Verdict verdict = check({}, under_forksafe(command));
  INFO(verdict.json.dump(1));
  CHECK(verdict.answer.status == 1);
  const std::string name = fs::path(command.arguments[0]).filename();
  CHECK(verdict.json["text"] ==
        "fork is not safe here, and forksafe can't cure it: GNU OpenMP is linked into " + name +
            ": link it to libgomp.so instead");
  CHECK(verdict.json["cure"].is_null());
  REQUIRE(verdict.json["runtimes"].size() == 1);
  const Json runtime = verdict.json["runtimes"][0];
  CHECK(runtime["fork_idle_guarded"]["safe"] == false);
  CHECK(tried(runtime["fork_idle"]) == "not tried");
  const Answer text = ask({"check", "--", command.arguments[0], "team"});
  INFO(text.describe());
  CHECK(contains(text.output, "GNU OpenMP, linked into " + name + ", "));
  CHECK_FALSE(contains(text.output, "Run it as"));
}

TEST_CASE("check calls an exported GNU OpenMP that is linked in safe under forksafe",
          "[check linked in]") {
  const Command command = static_omp_specimen("team", true);
  const Verdict without = check({}, command);
  INFO(without.json.dump(1));
  CHECK(without.answer.status == 1);
  CHECK(without.json["cure"] == "forksafe " + command.arguments[0] + " team");
  CHECK(check({}, under_forksafe(command)).answer.status == 0);
}

TEST_CASE("check does not call a program safe whose GNU OpenMP nothing names",
          "[check linked in]") {
  const TemporaryDirectory folder;
  Command command = static_omp_specimen("team", false);
  const std::string stripped = folder.file("stripped");
  REQUIRE(run_words({installed("strip"), "-o", stripped, command.arguments[0]}).succeeded());
  command.arguments[0] = stripped;
  // No runtime is known at the fork, so check waits for one.
  const Verdict verdict = check({"--timeout", "2"}, command);
  INFO(verdict.json.dump(1));
  CHECK(verdict.answer.status == 2);
  CHECK(verdict.json["text"] == "fork may hang here: forksafe does not know 2 threads of its own");
}

TEST_CASE("check proves that Intel's OpenMP without its fork handlers is unsafe", "[check kmp]") {
  const Command command = region_specimen(intel_openmp(), "FALSE");
  const Verdict verdict = check({}, command);
  INFO(verdict.json.dump(1));
  CHECK(verdict.answer.status == 1);
  CHECK(verdict.json["cure"].get<std::string>().rfind("forksafe " + std::string(SPECIMEN), 0) == 0);
  REQUIRE(verdict.json["runtimes"].size() == 1);
  const Json runtime = verdict.json["runtimes"][0];
  CHECK(runtime["fork_idle"]["safe"] == false);
  CHECK(runtime["fork_idle"]["text"] == "a child that computes hangs: KMP_INIT_AT_FORK is FALSE");
  CHECK(tried(runtime["fork_idle"]) == "hung");
  CHECK(runtime["fork_idle_guarded"]["safe"] == true);
  CHECK(tried(runtime["fork_idle_guarded"]) == "passed");

  // forksafe does not change a value that the user has set.
  Command users = command;
  users.environment["KMP_INIT_AT_FORK"] = "FALSE";
  const Verdict kept = check({"--no-proof"}, users);
  INFO(kept.json.dump(1));
  CHECK(kept.json["cure"].get<std::string>().rfind("KMP_INIT_AT_FORK=TRUE forksafe ", 0) == 0);
  CHECK(kept.json["runtimes"][0]["fork_idle_guarded"]["safe"] == false);
  CHECK(check({"--no-proof"}, under_forksafe(users)).answer.status == 1);

  // Preloaded by hand, the library does not set the variable.
  CHECK(check({"--no-proof"}, with_library(command)).answer.status == 1);
  CHECK(check({"--no-proof"}, under_forksafe(command)).answer.status == 0);
  CHECK(check({"--no-proof"}, region_specimen(intel_openmp(), "")).answer.status == 0);

  const Answer text =
      ask({"check", "--no-proof", "--", SPECIMEN, intel_openmp(), "", "", "region", "FALSE"});
  INFO(text.describe());
  CHECK(contains(text.output,
                 "\nKMP_INIT_AT_FORK is FALSE, so the fork handlers of Intel's OpenMP are off, and "
                 "children hang. Set it to TRUE, as forksafe COMMAND does.\n"));
}

TEST_CASE("check calls one thread and a serial build safe", "[check serial]") {
  // At its first fork the program has three threads, whatever the environment says.
  CHECK(check({"--no-proof"}, omp_idle("1")).answer.status == 1);
  const Blas blas = blas_by_name("debian-openmp");
  Command one = specimen(blas, {"once"});
  one.environment["OMP_NUM_THREADS"] = one.environment["OPENBLAS_NUM_THREADS"] = "1";
  const Verdict verdict = check({"--no-proof"}, one);
  INFO(verdict.json.dump(1));
  for (const Json& runtime : verdict.json["runtimes"]) {
    CHECK(runtime["num_threads"] == 1);
    CHECK(runtime["fork_idle"]["safe"] == true);
  }

  const std::string serial = multiarch_folder() + "/openblas-serial/libopenblas.so.0";
  if (!fs::exists(serial)) {
    WARN("without Debian's serial OpenBLAS");
    return;
  }
  const Verdict quiet =
      check({}, specimen(Blas{serial, "", "", fs::path(serial).parent_path(), false}, {"once"}));
  INFO(quiet.json.dump(1));
  CHECK(quiet.answer.status == 0);
  CHECK(quiet.json["text"] == "fork is safe here");
  REQUIRE(quiet.json["runtimes"].size() == 1);
  CHECK(quiet.json["runtimes"][0]["threading_layer"] == "disabled");
  CHECK(quiet.json["runtimes"][0]["num_threads"] == 1);
}

TEST_CASE("check tries Debian's OpenBLAS on its own threads", "[check debian]") {
  const Blas blas = blas_by_name("debian");
  const Verdict verdict = check({}, specimen(blas, {"once"}));
  INFO(verdict.json.dump(1));
  CHECK(verdict.answer.status == 1);
  const Json runtime = verdict.json["runtimes"][0];
  CHECK(runtime["fork_idle"]["safe"] == true);
  CHECK(tried(runtime["fork_idle"]) == "passed");
  CHECK(runtime["fork_in_flight"]["safe"] == false);
  CHECK(tried(runtime["fork_in_flight_guarded"]) == "passed");
  // Its workers may have ended.
  CHECK(contains(verdict.json["situation"], "At its end, without a fork, it had "));
}

TEST_CASE("check tries Debian's OpenBLAS on OpenMP", "[check debian-openmp]") {
  const Blas blas = blas_by_name("debian-openmp");
  const Answer answer = ask({"check", "--", SPECIMEN, blas.path, "", "", "once"},
                            {{"LD_LIBRARY_PATH", blas.library_path}, {"OMP_NUM_THREADS", "2"}});
  INFO(answer.describe());
  CHECK(answer.status == 1);
  CHECK(contains(answer.output, " (specimen): fork is not safe here.\n"));
  CHECK(contains(answer.output, "\nOpenBLAS 0.3." + std::to_string(patch_level(blas)) +
                                    " on libgomp.so.1.0.0, " + blas.path.substr(0, 8)));
  CHECK(contains(answer.output, "\nGNU OpenMP GOMP_"));
  CHECK(contains(answer.output,
                 "  with no call in flight      not safe: a child that computes hangs (tried: "
                 "a child hung"));
  CHECK(contains(answer.output,
                 "  under forksafe: no call     safe: parent and children compute "
                 "on (tried: exact in "));
  CHECK(contains(answer.output, std::string("\nRun it as:  forksafe ") + SPECIMEN + " " +
                                    blas.path + " '' '' once\n"));
  // Only the output of the command.
  CHECK(answer.errors == "once\n");
}

TEST_CASE("check PID looks at a running process", "[check pid]") {
  const Blas blas = blas_by_name("debian");
  Background background(specimen(blas, {"counted"}));
  const std::string pid = std::to_string(background.ready());
  const Verdict verdict = check({"--no-proof", pid});
  INFO(verdict.json.dump(1));
  CHECK(verdict.answer.status == 1);
  CHECK(verdict.json["pid"] == background.pid());
  CHECK(verdict.json["not_tried"] == "--no-proof was given");
  CHECK(verdict.json["situation"].get<std::string>().rfind("When it was looked at, it had 2 th",
                                                           0) == 0);
  for (const char* key : {"fork_idle", "fork_in_flight", "fork_idle_guarded"}) {
    CHECK(verdict.json["runtimes"][0][key]["tried"].is_null());
  }
  const Answer text = ask({"check", "--no-proof", pid});
  CHECK(contains(text.output, "\nNothing was tried: --no-proof was given.\n"));
  // The process continues.
  CHECK_FALSE(background.has_ended());
  kill(background.pid(), SIGTERM);
  CHECK(background.wait(30) == 0);
  CHECK(contains(background.output(), "exact"));

  Background guarded(with_library(specimen(blas, {"idle"})));
  CHECK(ask({"check", "--no-proof", std::to_string(guarded.ready())}).status == 0);
  check_refused(ask({"check", "--no-proof", pid}), "no process has this id");
}

TEST_CASE("check PID holds no thread up while it tries forks", "[check pid]") {
  // Its main thread stops after the look.
  Background background(specimen(blas_by_name("debian"), {"slow-vfork"}));
  CHECK(comes([&] { return state_of(background.pid()) == 'D'; }));
  Command command;
  command.arguments = {forksafe_command(), "check", word(background.pid())};
  Background checking(command);
  CHECK(background.wait(30) == 0);
  CHECK_FALSE(checking.has_ended());
  CHECK(WIFEXITED(checking.wait(60)));
  CHECK(contains(checking.output(), "(tried: "));
}

TEST_CASE("check ends all processes of a command that takes too long", "[check timeout]") {
  // A unique argument, by which the processes can be found.
  const std::string seconds = "600.0" + std::to_string(getpid());
  const auto start = std::chrono::steady_clock::now();
  const Answer answer = ask({"check", "--no-proof", "--timeout", "1", "--", "sh", "-c",
                             "trap '' TERM INT HUP; setsid sleep " + seconds + " & sleep " +
                                 seconds + " & sleep " + seconds});
  // It may load a runtime later.
  check_refused(
      answer,
      "check: the command had loaded no BLAS or OpenMP runtime after 1 s: raise --timeout\n");
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
  CHECK_FALSE(is_running(seconds));

  // With a loaded runtime and without a fork.
  const Blas blas = blas_by_name("debian-openmp");
  const Verdict verdict =
      check({"--no-proof", "--timeout", "2"}, specimen(blas, {"products", "300"}));
  INFO(verdict.json.dump(1));
  CHECK(verdict.answer.status == 1);
  CHECK(verdict.json["situation"].get<std::string>().compare(0, 24, "When its time was over, ") ==
        0);
  CHECK(kill(verdict.json["pid"].get<pid_t>(), 0) != 0);
}

TEST_CASE("check looks at a command that hangs in its own fork", "[check hang]") {
  // In most runs the handler of OpenBLAS hangs before the kernel makes a child.
  const Command command = forker(blas_by_name("debian"), {"--flight=3", "--forks=1000"});
  for (int attempt = 0; attempt < 8; ++attempt) {
    const Verdict verdict = check({"--no-proof", "--timeout", "3"}, command);
    INFO(verdict.json.dump(1));
    REQUIRE(verdict.answer.status == 1);
    CHECK(verdict.json["text"] == "fork is not safe here");
    CHECK(kill(verdict.json["pid"].get<pid_t>(), 0) != 0);
    const std::string situation = verdict.json["situation"].get<std::string>();
    if (contains(situation, "At its first fork")) continue;
    CHECK(contains(situation, "When its time was over, it had "));
    CHECK(contains(situation, ", one of them in fork(), in a runtime's handler."));
    return;
  }
  WARN("it never hung before the first fork");
}

// A look at a process that ends took the last stop of a thread for its own, and then nothing
// continued that thread: 1 time in 10 with one thread.
TEST_CASE("check looks at a program that ends with many threads", "[check threads end]") {
  for (int i = 0; i < 20; ++i) {
    const Verdict verdict =
        check({"--no-proof", "--timeout", "5"}, specimen({"threads-end", "32"}));
    INFO(i << ": " << verdict.json.dump(1));
    REQUIRE(contains(verdict.json["situation"], "At its end, without a fork, it had "));
  }
}

TEST_CASE("check lets all threads continue after a look at a fork", "[check goes on]") {
  const Verdict verdict = check({"--timeout", "10"}, specimen({"fork-beside"}));
  INFO(verdict.answer.describe());
  CHECK(contains(verdict.answer.errors, "the thread went on\n"));
  CHECK(contains(verdict.json["situation"], "At its first fork it had 2 threads."));
}

// The exec waits for the end of the main thread, at which check looks at the process.
TEST_CASE("check looks at a program when another thread than the main thread calls exec",
          "[check exec]") {
  const Verdict verdict = check({"--timeout", "10"}, specimen({"thread-execs"}));
  INFO(verdict.json.dump(1));
  CHECK(verdict.json["situation"] == "At its end, without a fork, it had 2 threads.");
}

TEST_CASE("check ends with status 2 if it can't tell", "[check refused]") {
  check_refused(ask({"check", "--no-proof", "99999999"}), "99999999");
  check_refused(ask({"check", "--no-proof", "2147483647"}), "no process has this id");
#ifdef STATIC_PROGRAM
  Answer answer = ask({"check", "--", STATIC_PROGRAM});
  CHECK(answer.errors.compare(0, 7, "static\n") == 0);  // the output of the program
  answer.errors.erase(0, 7);
  check_refused(answer, "statically linked");
#endif
  const Answer missing = ask({"check", "--", "forksafe-no-such-program"});
  CHECK(missing.status == 127);
  CHECK(missing.output.empty());
}

TEST_CASE("check uses colours only on a terminal", "[check colours]") {
  Background background(with_library(omp_specimen("regions-2")));
  background.ready();
  const std::vector<std::string> words = {forksafe_command(), "check", "--no-proof",
                                          std::to_string(background.pid())};
  const Environment colours = {{"TERM", "xterm"}, {"NO_COLOR", ""}};
  const std::string coloured = on_terminal(words, colours);
  INFO(coloured);
  CHECK(contains(coloured, "\x1b[32mfork is safe here, under forksafe\x1b[0m"));
  CHECK_FALSE(contains(on_terminal(words, {{"TERM", "xterm"}, {"NO_COLOR", "1"}}), "\x1b"));
  CHECK_FALSE(contains(ask({"check", "--no-proof", words.back()}, colours).output, "\x1b"));
}
