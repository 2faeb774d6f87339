// SPDX-License-Identifier: Apache-2.0
// forksafe diagnose: processes that are stuck, and processes that only look stuck.
#include <elf.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "background.h"
#include "verdicts/diagnosis.h"

using namespace forksafe_test;
namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kNotStuck = "This is not a fork problem that forksafe knows.";

const std::set<std::string> kCodes = {
    "openblas-shutdown",   "openblas-pool-gone",     "openblas-level3-lock", "openblas-workers",
    "openblas-no-threads", "openblas-queue-lock",    "openblas-memory-lock", "openblas-in-use",
    "gnu-openmp-team",     "openblas-cpu-available", "gnu-openmp-lock",      "blis-lock"};

Diagnosis diagnose(pid_t pid) { return diagnosis_of(ask({"diagnose", "--json", word(pid)})); }

/// Waits until a process is found stuck, for at most 20 seconds on a slow machine.
Diagnosis diagnose_when_stuck(pid_t pid) {
  const auto deadline = Clock::now() + std::chrono::seconds(20);
  for (;;) {
    Diagnosis verdict = diagnose(pid);
    if (verdict.status != 0 || Clock::now() > deadline) return verdict;
    usleep(100000);
  }
}

struct Expected {
  std::string code;
  std::string place;  ///< the function; empty if any will do
  std::string text;   ///< a part of the verdict
  /// The text before the command line.
  std::string cure = "run the parent under forksafe:  forksafe";
};

/// Fails unless the child of the specimen gets stuck as expected.
Diagnosis check_stuck(const Command& command, const Expected& expected) {
  std::string line = expected.cure;
  for (const std::string& word : command.arguments) line += " " + (word.empty() ? "''" : word);
  INFO(line);
  Background background(command);
  const pid_t child = background.ready();
  const Diagnosis verdict = diagnose_when_stuck(child);
  INFO(verdict.process.dump(1));
  CHECK(verdict.status == 1);
  CHECK(verdict.process["stuck"] == true);
  CHECK(verdict.at("code") == expected.code);
  CHECK(contains(verdict.at("text"), expected.text));
  if (!expected.place.empty()) {
    CHECK(verdict.at("place").compare(0, expected.place.size() + 2, expected.place + " (") == 0);
    CHECK(contains(verdict.at("text"), " waits in " + verdict.at("place")));
  }
  CHECK(verdict.at("text").compare(
            0, 26, ("This is a forked child of " + word(background.pid())).substr(0, 26)) == 0);
  const std::string verb = expected.code == "openmp-spin" ? "spins" : "waits";
  CHECK(contains(verdict.at("text"), "child of " + word(background.pid()) + ". It " + verb));
  CHECK(verdict.process["pid"] == child);
  CHECK(verdict.process["parent"] == background.pid());
  CHECK(verdict.process["forked"] == true);
  CHECK(verdict.process["thread"] == child);
  CHECK(fs::exists(verdict.at("library")));
  CHECK(verdict.process["guarded"] == false);
  CHECK(verdict.at("cure") == line);
  return verdict;
}

/// Looks at a process several times. Fails if a look finds it stuck.
void check_not_stuck(const Command& command, int looks) {
  Background background(command);
  const pid_t pid = background.ready();
  usleep(100000);
  for (int i = 0; i < looks; ++i) {
    const Diagnosis verdict = diagnose(pid);
    INFO("look " << i << " " << verdict.process.dump(1));
    REQUIRE(verdict.status == 0);
    REQUIRE(verdict.process["stuck"] == false);
    CHECK(verdict.at("code") == "none");
    CHECK(verdict.at("text") == kNotStuck);
    CHECK(verdict.process["cure"].is_null());
    CHECK(verdict.process["place"].is_null());
  }
  INFO(background.output() << background.errors());
  CHECK_FALSE(background.has_ended());
}

/// Fails unless it is open whether the child of the specimen is stuck.
Diagnosis check_open(const Command& command, const std::string& text, const std::string& cure) {
  Background background(command);
  const Diagnosis verdict = diagnose_when_stuck(background.ready());
  INFO(verdict.process.dump(1));
  CHECK(verdict.status == 2);
  CHECK(verdict.process["stuck"] == nullptr);
  CHECK(verdict.at("code") == "unknown");
  CHECK(contains(verdict.at("text"), text));
  CHECK(contains(verdict.at("cure"), cure));
  return verdict;
}

constexpr const char* kTeam = " team mate";
constexpr const char* kWorkers = "workers of the thread pool that exist only in its parent";
constexpr const char* kLevel3 = "the lock of its level-3 driver, whose holder exists only in its";
constexpr const char* kMemory = "the lock of its memory allocator, whose holder exists only in its";
constexpr const char* kQueue = "the lock of its work queue, whose holder exists only in its parent";

/// Checks an OpenBLAS on its own threads: children without fork handlers get stuck at four places.
/// `level3` is the verdict with a product in flight, `queue` that with the queue in use.
void check_own_threads(const char* build, const Expected& level3, const Expected& queue) {
  const Blas blas = blas_by_name(build);
  check_stuck(specimen(blas, {"workers"}), {"openblas-workers", "exec_blas", kWorkers});
  check_stuck(specimen(blas, {"in-flight"}), level3);
  check_stuck(specimen(blas, {"queue"}), queue);
  Command locked = specimen(blas, {"locked"});
  locked.environment["OPENBLAS_NUM_THREADS"] = "1";
  check_stuck(locked, {"openblas-memory-lock", "blas_memory_alloc", kMemory});
}

/// Checks a tree that forks with calls in flight until it is stuck. If it crashes, tries again.
void check_in_flight(const Command& command) {
  for (int attempt = 0; attempt < 5; ++attempt) {
    Background background(command);
    std::string output;
    auto last_progress = Clock::now();
    while (!background.has_ended() && Clock::now() - last_progress < std::chrono::seconds(1)) {
      if (background.output() != output) last_progress = Clock::now();
      output = background.output();
      usleep(20000);
    }
    if (background.has_ended()) continue;
    Answer answer;
    for (int i = 0; i < 20; ++i) {
      answer = ask({"diagnose", "--json", "--children", word(background.pid())});
      if (answer.status != 0) break;
      usleep(200000);
    }
    INFO(answer.describe());
    CHECK(answer.status == 1);
    int stuck = 0;
    for (const Json& process : answer.json()) {
      if (!process.value("stuck", false)) continue;  // it may have ended, which is an error
      ++stuck;
      CHECK(kCodes.count(process["code"].get<std::string>()) == 1);
      CHECK(contains(process["cure"].get<std::string>(), "under forksafe:  forksafe "));
      CHECK(contains(process["cure"].get<std::string>(), "/blas_forker --blas="));
      const std::string text = process["text"].get<std::string>();
      if (process["code"] == "openblas-shutdown") {
        CHECK(contains(text,
                       "hangs in its own fork(): a handler of OpenBLAS waits in "
                       "blas_thread_shutdown"));
      }
      if (process["forked"] == false) CHECK_FALSE(contains(text, "forked child"));
    }
    CHECK(stuck > 0);
    return;
  }
  FAIL("it did not get stuck in five attempts");
}

void check_in_flight(const char* build, int in_flight) {
  // Not too many forks: if only a thread in flight is stuck, the others run to the end.
  check_in_flight(forker(blas_by_name(build),
                         {"--flight=" + std::to_string(in_flight), "--forks=300", "--n=200"}));
}

}  // namespace

// ---- stuck

TEST_CASE("GNU OpenMP: a child waits for its team", "[diagnose openmp]") {
  Command command;
  command.arguments = {program("omp_forker"), "idle", "5"};
  Background background(command);
  pid_t child = 0;
  const auto deadline = Clock::now() + std::chrono::seconds(20);
  Answer tree;
  while (child == 0 && Clock::now() < deadline) {
    usleep(100000);
    tree = ask({"diagnose", "--json", "--children", word(background.pid())});
    if (tree.status == 1) child = tree.json()[1]["pid"];
  }
  INFO(tree.describe());
  REQUIRE(child != 0);
  const Json entry = tree.json()[1];
  CHECK(entry["code"] == "gnu-openmp-team");
  // If the idle team has reached the start of the region before the fork, the child gets to the
  // first barrier inside.
  const std::string place = entry["place"];
  CHECK(
      (place == "GOMP_parallel (libgomp.so.1.0.0)" || place == "GOMP_barrier (libgomp.so.1.0.0)"));
  CHECK(entry["text"] == "This is a forked child of " + word(background.pid()) + ". It waits in " +
                             place + " for 2 team mates that exist only in its parent.");

  const Answer text = ask({"diagnose", word(child)});
  INFO(text.describe());
  CHECK(text.status == 1);
  CHECK(text.errors.empty());
  std::istringstream lines(text.output);
  std::string first, sentence, line;
  std::getline(lines, first);
  CHECK(first == word(child) + " (omp_forker) is stuck.");
  while (std::getline(lines, line) && !contains(line, "Cure:")) sentence += line.substr(1);
  CHECK(sentence.substr(1) == entry["text"]);
  // The cure is on one line, so it can be copied.
  CHECK(line ==
        "  Cure: run the parent under forksafe:  forksafe " + program("omp_forker") + " idle 5");
  CHECK(
      contains(text.output, "\nThread " + word(child) + " (omp_forker), the one that is stuck\n"));
  CHECK(contains(text.output, "\n  GOMP_parallel  libgomp.so.1.0.0\n"));
  CHECK(contains(text.output, "\n  main  omp_forker\n"));
}

TEST_CASE("GNU OpenMP: a child waits for a team, a critical section or a lock; LLVM's team",
          "[diagnose openmp]") {
  const std::string holder = "a critical section or lock whose holder exists only in its parent";
  check_stuck(omp_specimen("team"), {"gnu-openmp-team", "GOMP_parallel", "for 2 team mates that"});
  Command spinning = omp_specimen("team");
  spinning.environment["OMP_WAIT_POLICY"] = "active";
  check_stuck(spinning, {"gnu-openmp-team", "GOMP_parallel", "for 2 team mates that"});
  // A thread of the parent whose stack can't be read may be one of them.
  check_stuck(
      omp_specimen("team-beside-vfork"),
      {"gnu-openmp-team", "GOMP_parallel", " for team mates that exist only in its parent."});
  check_stuck(omp_specimen("critical"), {"gnu-openmp-lock", "GOMP_critical_start", holder});
  // A lock of the program itself stays held under forksafe, too.
  for (const auto& [situation, function] :
       {std::pair("lock", "omp_set_lock"), std::pair("nest-lock", "omp_set_nest_lock"),
        std::pair("named-critical", "GOMP_critical_name_start")}) {
    for (const bool guarded : {false, true}) {
      Command own = omp_specimen(situation);
      if (guarded) own = with_library(own);
      Background background(own);
      const Diagnosis verdict = diagnose_when_stuck(background.ready());
      INFO(verdict.process.dump(1));
      CHECK(verdict.at("code") == "gnu-openmp-lock");
      CHECK(contains(verdict.at("place"), function));
      CHECK(contains(verdict.at("text"), holder));
      CHECK(verdict.process["guarded"] == guarded);
      CHECK(verdict.at("cure").rfind("forksafe has none for a lock of the program's own", 0) == 0);
    }
  }
  // LLVM's OpenMP has fork handlers, but clone does not run them.
  const std::string llvm = multiarch_folder() + "/libomp.so.5";
  if (!fs::exists(llvm)) {
    WARN("without LLVM's OpenMP");
    return;
  }
  Command other = omp_specimen("bare-team");
  other.environment["LD_PRELOAD"] = llvm;
  Background background(other);
  const Diagnosis verdict = diagnose_when_stuck(background.ready());
  INFO(verdict.process.dump(1));
  CHECK(verdict.at("code") == "llvm-openmp-team");
  CHECK(contains(verdict.at("text"), "for 2 team mates that exist only in its"));
  CHECK(contains(verdict.at("place"), "(libomp.so.5)"));
  CHECK(verdict.at("cure").rfind("forksafe has none: this runtime has fork handlers of its own",
                                 0) == 0);
}

TEST_CASE("GNU OpenMP: a child that another of its threads may let go on may be stuck",
          "[diagnose openmp]") {
  const std::string other = ", or for another thread of this process, which may let it go on.";
  check_open(omp_specimen("own-critical"), "whose holder exists only in its parent" + other,
             "run the parent under forksafe:  forksafe ");
  check_open(omp_specimen("own-critical-in-region"),
             "whose holder exists only in its parent" + other,
             "run the parent under forksafe:  forksafe ");
  // GCC 10's libgomp may be asleep already, and is found by the threads that only its parent has.
  check_open(omp_specimen("team-beside-code"), "may let it go on.",
             "run the parent under forksafe:  forksafe ");
}

TEST_CASE("a child that is stopped, or whose libraries were removed, may be stuck",
          "[diagnose openmp]") {
  {
    Background background(omp_specimen("team"));
    const pid_t child = background.ready();
    CHECK(diagnose_when_stuck(child).status == 1);
    kill(child, SIGSTOP);
    for (int i = 0; i < 100 && state_of(child) != 'T'; ++i) usleep(10000);
    const Diagnosis stopped = diagnose(child);
    CHECK(stopped.status == 2);
    CHECK(contains(stopped.at("text"), "is stopped by a signal"));
    CHECK(contains(stopped.at("text"), "kill -CONT " + word(child)));
  }
  // Without its capabilities root can't read a file that was removed, as no other user can.
  std::vector<std::string> plain;
  if (geteuid() == 0) plain = {installed("setpriv"), "--bounding-set=-all", "--inh-caps=-all"};
  const TemporaryDirectory folder;
  const std::string copy = folder.file("libgomp.so.1");
  fs::copy_file(multiarch_folder() + "/libgomp.so.1", copy);
  Command command = omp_specimen("team");
  command.environment["LD_LIBRARY_PATH"] = folder.path();
  command.arguments.insert(command.arguments.begin(), plain.begin(), plain.end());
  Background background(command);
  const pid_t child = background.ready();
  CHECK(diagnose_when_stuck(child).status == 1);
  fs::remove(copy);
  for (const auto& [name, part] :
       {std::pair("diagnose", "has loaded " + copy + ", whose file was removed or replaced since."),
        std::pair("check", "does not know " + copy + ", whose file was removed or replaced")}) {
    std::vector<std::string> line = plain;
    line.insert(line.end(), {forksafe_command(), name, "--json", word(child)});
    const Outcome outcome = run_words(line);
    INFO(outcome.describe());
    CHECK(outcome.status == 2);
    CHECK(contains(outcome.output, part));
  }
}

TEST_CASE("GNU OpenMP that is linked into the program: a child waits for its team",
          "[diagnose linked in]") {
  for (const bool exported : {false, true}) {
    const Command command = static_omp_specimen("team", exported);
    const std::string name = fs::path(command.arguments[0]).filename();
    Background background(command);
    const Diagnosis verdict = diagnose_when_stuck(background.ready());
    INFO(verdict.process.dump(1));
    CHECK(verdict.at("code") == "gnu-openmp-team");
    CHECK(contains(verdict.at("text"), " (GNU OpenMP in " + name + ")"));
    CHECK(contains(verdict.at("text"), "for 2 team mates that exist only in its parent."));
    CHECK(verdict.at("cure") ==
          (exported ? "run the parent under forksafe:  forksafe " + command.arguments[0] + " team"
                    : "forksafe has none for GNU OpenMP that is linked into " + name +
                          ": link it to libgomp.so instead, and run it under forksafe"));
    // The parent waits in waitpid, which the program itself calls.
    CHECK(diagnose(background.pid()).process["stuck"] == false);
  }
  check_not_stuck(static_omp_specimen("sections", false), 5);
  check_not_stuck(static_omp_specimen("regions-1", false), 5);
}

TEST_CASE("GNU OpenMP that nothing names: a child waits for threads of the program",
          "[diagnose linked in]") {
  const TemporaryDirectory folder;
  Command command = static_omp_specimen("team", false);
  const std::string stripped = folder.file("stripped");
  REQUIRE(run_words({installed("strip"), "-o", stripped, command.arguments[0]}).succeeded());
  command.arguments[0] = stripped;
  Background background(command);
  const Diagnosis verdict = diagnose_when_stuck(background.ready());
  INFO(verdict.process.dump(1));
  CHECK(verdict.at("code") == "lost-threads");
  CHECK(contains(verdict.at("text"), "It waits in stripped for "));
  CHECK(contains(verdict.at("text"), " exist only in its parent."));
}

TEST_CASE("OpenBLAS that is linked in: a child waits for its pool, whether it is named or not",
          "[diagnose linked in]") {
  const TemporaryDirectory folder;
  Command command = static_blas_specimen();
  {
    Background background(command);
    const Diagnosis verdict = diagnose_when_stuck(background.ready());
    INFO(verdict.process.dump(1));
    CHECK(verdict.at("code") == "openblas-workers");
    CHECK(contains(verdict.at("place"), " (OpenBLAS in libblas_inside.so)"));
    CHECK(contains(verdict.at("text"), kWorkers));
    CHECK(verdict.at("cure") ==
          "forksafe has none for OpenBLAS that is linked into libblas_inside.so: link it to "
          "libopenblas.so instead, and run it under forksafe");
  }
  const std::string stripped = folder.file("libblas_inside.so");
  REQUIRE(run_words({installed("strip"), "-o", stripped, command.arguments[1]}).succeeded());
  command.arguments[1] = stripped;
  Background background(command);
  const Diagnosis verdict = diagnose_when_stuck(background.ready());
  INFO(verdict.process.dump(1));
  CHECK(verdict.at("code") == "lost-threads");
  CHECK(contains(verdict.at("text"), "a thread of that library, which exists only in its parent."));
  CHECK(contains(verdict.at("cure"), "forksafe has none for libblas_inside.so: "));
}

// The cure is a variable of the environment, so this is never called a defect of forksafe.
TEST_CASE("Intel's OpenMP with its fork handlers off: a child waits for its team",
          "[diagnose intel]") {
  Command command = omp_specimen("kmp-team");
  const std::string intel = intel_openmp();
  command.environment["LD_PRELOAD"] = intel;
  const std::string off = "The fork handlers of this runtime are off: KMP_INIT_AT_FORK is FALSE.";
  const std::string cure =
      "KMP_INIT_AT_FORK=TRUE in the environment, which forksafe COMMAND sets:  ";
  check_stuck(command, {"llvm-openmp-team", "", off, cure + "forksafe"});
  // forksafe does not change a value that the user has set.
  command.environment["KMP_INIT_AT_FORK"] = "FALSE";
  check_stuck(command, {"llvm-openmp-team", "", off, cure + "KMP_INIT_AT_FORK=TRUE forksafe"});
  command.environment.erase("KMP_INIT_AT_FORK");

  command.environment["LD_PRELOAD"] = forksafe_library() + ":" + intel;
  Background background(command);
  const Diagnosis guarded = diagnose_when_stuck(background.ready());
  INFO(guarded.process.dump(1));
  CHECK(guarded.process["guarded"] == true);
  CHECK(contains(guarded.at("text"), off));
  CHECK(guarded.at("cure") ==
        cure + "forksafe " + command.arguments[0] + " " + command.arguments[1]);

  // With that value a child registers the handlers again, and hangs where it forks.
  Command again = omp_specimen("generations");
  again.environment = {{"LD_PRELOAD", intel}, {"KMP_INIT_AT_FORK", "TRUE"}};
  Background generations(again);
  const Diagnosis in_fork = diagnose_when_stuck(generations.ready());
  INFO(in_fork.process.dump(1));
  CHECK(in_fork.at("code") == "llvm-openmp-handlers");
  CHECK(contains(in_fork.at("text"),
                 "It hangs in its own fork(): a handler of Intel's OpenMP waits in "));
  CHECK(contains(in_fork.at("text"), "for a lock that this fork holds itself: "));
  CHECK(in_fork.at("cure").rfind("run the parent under forksafe:  forksafe ", 0) == 0);

  // A program that replaces the user's value gets another cure.
  Command stubborn = region_specimen(intel, "!FALSE");
  stubborn.environment["KMP_INIT_AT_FORK"] = "TRUE";
  Background replaced(stubborn);
  CHECK(diagnose_when_stuck(replaced.ready()).at("cure") ==
        "the program itself sets KMP_INIT_AT_FORK: set it to TRUE there");

  // With the cure, the child computes and ends.
  command.arguments.insert(command.arguments.begin(), forksafe_command());
  command.environment["LD_PRELOAD"] = intel;
  Background cured(command);
  CHECK(WEXITSTATUS(cured.wait(30)) == 3);
  CHECK(contains(cured.output(), "the child ended with 0\n"));
}

TEST_CASE("the cure is quoted for a shell", "[diagnose openmp]") {
  const TemporaryDirectory folder;
  const std::string program = folder.file("it's a program");
  fs::copy_file(OMP_SPECIMEN, program);
  Command command;
  command.arguments = {program, "team"};
  Background background(command);
  const Diagnosis verdict = diagnose_when_stuck(background.ready());
  CHECK(verdict.at("cure") ==
        "run the parent under forksafe:  forksafe '" + folder.path() + "/it'\\''s a program' team");
}

TEST_CASE("Debian's OpenBLAS on its own threads: children wait at four places",
          "[diagnose debian]") {
  // The same as in the wheels of these versions, below.
  const int patch = patch_level(blas_by_name("debian"));
  const Expected workers = {"openblas-workers", "exec_blas_async", kWorkers};
  const Expected level3 = {"openblas-level3-lock", "dgemm_thread_nn", kLevel3};
  const Expected queue = {"openblas-queue-lock", "exec_blas_async", kQueue};
  check_own_threads("debian", patch >= 27 && patch <= 29 ? workers : level3,
                    patch >= 27 && patch <= 33 ? workers : queue);
}

TEST_CASE("Debian's OpenBLAS on OpenMP: children wait at two places", "[diagnose debian openmp]") {
  const Blas blas = blas_by_name("debian-openmp");
  const Diagnosis team =
      check_stuck(specimen(blas, {"workers"}), {"gnu-openmp-team", "GOMP_parallel", kTeam});
  CHECK(contains(team.at("text"),
                 "GOMP_parallel (libgomp.so.1.0.0), called by dgemm_ of libopenblasp-r0."));
  CHECK(contains(team.at("text"), ", for 1 team mate that exists only in its parent."));
  const std::string in_use = "buffers that are marked as in use by a thread that exists only in";
  const std::string holder = "a critical section or lock whose holder exists only in its parent";
  // From 0.3.27 on, the level-3 drivers have OpenMP locks.
  check_stuck(specimen(blas, {"in-flight"}),
              patch_level(blas) < 27 ? Expected{"openblas-in-use", "exec_blas", in_use}
                                     : Expected{"gnu-openmp-lock", "omp_set_lock", holder});
}

TEST_CASE("numpy 1.26's OpenBLAS: children wait at four places", "[diagnose numpy-1.26]") {
  check_own_threads("numpy-1.26", {"openblas-level3-lock", "gemm_driver", kLevel3},
                    {"openblas-queue-lock", "exec_blas_async", kQueue});
}

TEST_CASE("numpy 2.2's OpenBLAS: a child also waits for free processors", "[diagnose numpy-2.2]") {
  check_own_threads("numpy-2.2", {"openblas-workers", "exec_blas_async", kWorkers},
                    {"openblas-workers", "exec_blas_async", kWorkers});
  // 40 of 64 processors are taken, and the child needs 40.
  check_stuck(specimen(blas_by_name("numpy-2.2"), {"in-flight", "2000", "40"}),
              {"openblas-cpu-available", "gemm_driver", "processors that calls in flight have"});
}

TEST_CASE("numpy 2.4's OpenBLAS: children wait at four places", "[diagnose numpy-2.4]") {
  check_own_threads("numpy-2.4", {"openblas-level3-lock", "gemm_driver", kLevel3},
                    {"openblas-workers", "exec_blas_async", kWorkers});
}

namespace {

constexpr const char* kFewer = ", or use fewer threads:  OPENBLAS_NUM_THREADS=1";

/// A pids control group that allows one thread. The destructor removes it. The path is empty if the
/// system does not let us make one.
class ThreadGroup {
 public:
  ThreadGroup() {
    const std::string name = "/forksafe-test-" + word(getpid());
    for (const char* root : {"/sys/fs/cgroup/pids", "/sys/fs/cgroup"}) {
      if (mkdir((root + name).c_str(), 0755) != 0) continue;
      path_ = root + name;
      std::ofstream(path_ + "/pids.max") << 1 << std::flush;
      if (read_file(path_ + "/pids.max") == "1\n") return;
      rmdir(path_.c_str());
      path_.clear();
    }
  }
  ~ThreadGroup() {
    for (int i = 0; !path_.empty() && rmdir(path_.c_str()) != 0 && i < 100; ++i) usleep(10000);
  }
  ThreadGroup(const ThreadGroup&) = delete;
  ThreadGroup& operator=(const ThreadGroup&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

TEST_CASE("a child waits for workers of OpenBLAS that could not be made", "[diagnose no threads]") {
  const std::string unknown = "raise the limit of threads (ulimit -u, pids.max)";
  for (const char* build : {"debian", "numpy-2.4"}) {
    INFO(build);
    const Blas blas = blas_by_name(build);
    check_stuck(specimen(blas, {"refused", "4", "1"}),
                {"openblas-no-threads", "",
                 "for 3 workers of OpenBLAS, of which only 1 exists, since threads could not be "
                 "made: see standard error for \"pthread_create failed\"",
                 unknown + kFewer});
    check_stuck(specimen(blas, {"limited"}),
                {"openblas-no-threads", "",
                 "for 1 worker of OpenBLAS, of which none exists, since threads could not be made: "
                 "RLIMIT_NPROC is 1, and its user has ",
                 std::string("raise RLIMIT_NPROC (ulimit -u)") + kFewer});

    // The same happens without a fork.
    const Command here = specimen(blas, {"refused-here", "4", "0"});
    Background background(here);
    const Diagnosis verdict = diagnose_when_stuck(background.ready());
    INFO(verdict.process.dump(1));
    CHECK(verdict.at("code") == "openblas-no-threads");
    CHECK(verdict.at("text").rfind("It waits in ", 0) == 0);
    CHECK(contains(verdict.at("text"), "for 3 workers of OpenBLAS, of which only 1 exists, "));
    CHECK(contains(verdict.at("cure"), unknown + kFewer + " " + SPECIMEN));

    // The same happens under forksafe, which can give children fewer threads.
    for (const bool cured : {false, true}) {
      Command guarded = with_library(specimen(blas, {"limited"}));
      if (cured) guarded.environment["FORKSAFE_CHILD_THREADS"] = "1";
      Background under(guarded);
      const pid_t child = under.ready();
      if (cured) {
        // The child has computed.
        CHECK(under.errors().empty());
        CHECK(diagnose(child).status == 0);
        continue;
      }
      const Diagnosis other = diagnose_when_stuck(child);
      INFO(other.process.dump(1));
      CHECK(other.process["guarded"] == true);
      CHECK(other.at("code") == "openblas-no-threads");
      CHECK(contains(other.at("cure"),
                     "raise RLIMIT_NPROC (ulimit -u), or use fewer threads:  forksafe "
                     "--child-threads 1 " +
                         std::string(SPECIMEN)));
    }
  }
}

TEST_CASE("the verdict names pids.max if threads could not be made", "[diagnose pids]") {
  const ThreadGroup group;
  if (group.path().empty()) skip("no control group for pids can be made here");
  const std::string name = "/" + fs::path(group.path()).filename().string();
  check_stuck(specimen(blas_by_name("debian"), {"limited", group.path()}),
              {"openblas-no-threads", "",
               "of which none exists, since threads could not be made: pids.max of the control "
               "group " +
                   name + " is 1, and it has 1 thread",
               "raise pids.max of " + name + kFewer});
}

TEST_CASE("OpenBLAS 0.3.34, with hidden internals: children wait at four places",
          "[diagnose 0.3.34]") {
  check_own_threads("openblas64", {"openblas-level3-lock", "gemm_driver", kLevel3},
                    {"openblas-queue-lock", "exec_blas_async", kQueue});
}

TEST_CASE("BLIS on OpenMP and on pthreads: children wait for teams and locks", "[diagnose blis]") {
  const std::string lock = "a lock of its memory pools, whose holder exists only in its parent";
  check_stuck(specimen(blas_by_name("blis-openmp"), {"workers"}),
              {"gnu-openmp-team", "GOMP_parallel", "for 1 team mate that exists only in"});
  for (const char* build : {"blis-openmp", "blis-pthread"}) {
    Command locked = specimen(blas_by_name(build), {"locked", "64"});
    locked.environment["BLIS_NUM_THREADS"] = "1";
    locked.environment["OMP_NUM_THREADS"] = "1";
    check_stuck(locked, {"blis-lock", "", lock});
  }
}

TEST_CASE("Debian's builds get stuck when they fork with calls in flight", "[diagnose in flight]") {
  for (const int in_flight : {1, 3}) check_in_flight("debian", in_flight);
  check_in_flight("debian-openmp", 2);
  // With one thread for each call, BLIS takes its mutexes often, for microseconds.
  Command blis =
      forker(blas_by_name("blis-pthread"), {"--flight=3", "--forks=3000", "--threads=1", "--n=32"});
  blis.environment["BLIS_NUM_THREADS"] = "1";
  check_in_flight(blis);
}

TEST_CASE("the builds of wheels get stuck when they fork with calls in flight",
          "[diagnose wheels in flight]") {
  for (const char* build : {"numpy-1.26", "numpy-2.2", "numpy-2.4", "scipy", "openblas64"}) {
    INFO(build);
    check_in_flight(build, 1);
    check_in_flight(build, 3);
  }
}

TEST_CASE("a multiprocessing pool gets one verdict for each process", "[diagnose pool]") {
  const Blas blas = blas_by_name("debian-openmp");
  Command command;
  command.arguments = {debian_python(), script("pool.py"), "200"};
  command.environment = {{"LD_LIBRARY_PATH", blas.library_path}, {"OMP_NUM_THREADS", "2"}};
  Background background(command);
  const std::string parent = word(background.pid());
  Json tree;
  Answer answer;
  const auto deadline = Clock::now() + std::chrono::seconds(30);
  do {
    usleep(200000);
    answer = ask({"diagnose", "--json", "--children", parent});
    if (answer.status != 2) tree = answer.json();
  } while (!(tree.size() == 3 && tree[1].value("stuck", false) && tree[2].value("stuck", false)) &&
           Clock::now() < deadline);
  INFO(answer.describe());
  INFO(background.errors());
  CHECK(answer.status == 1);
  REQUIRE(tree.size() == 3);
  CHECK(tree[0]["pid"] == background.pid());
  CHECK(tree[0]["stuck"] == false);
  CHECK(tree[0]["text"] == kNotStuck);
  const std::string cure =
      "run the parent under forksafe:  forksafe /usr/bin/python3 " + script("pool.py") + " 200";
  for (int i = 1; i <= 2; ++i) {
    CHECK(tree[i]["parent"] == background.pid());
    CHECK(tree[i]["code"] == "gnu-openmp-team");
    CHECK(tree[i]["place"] == "GOMP_parallel (libgomp.so.1.0.0)");
    CHECK(tree[i]["cure"] == cure);
  }

  const Answer text = ask({"diagnose", "--children", parent});
  INFO(text.describe());
  CHECK(text.status == 1);
  CHECK(contains(text.output, parent + " (python3"));
  CHECK(contains(text.output, ") is not stuck in a runtime.\n  " + std::string(kNotStuck)));
  CHECK(count(text.output, " is stuck.\n") == 1);
  CHECK(contains(text.output, "\n  2 children, the same: " + word(tree[1]["pid"]) + " " +
                                  word(tree[2]["pid"]) + "\n"));

  const Answer above = ask({"diagnose", parent});
  INFO(above.describe());
  CHECK(above.status == 1);
  CHECK(contains(above.output, ") is not stuck in a runtime.\n"));
  CHECK(contains(above.output,
                 "\n  But 2 of its descendants are stuck:  forksafe diagnose "
                 "--children " +
                     parent + "\n"));
  const Json json = ask({"diagnose", "--json", parent}).json();
  REQUIRE(json.size() == 1);
  CHECK(json[0]["stuck"] == false);
  CHECK(json[0]["stuck_descendants"] == Json({tree[1]["pid"], tree[2]["pid"]}));
}

TEST_CASE("equal children get one verdict, and their ids", "[diagnose equal]") {
  Command command = omp_specimen("crowd");
  command.arguments.push_back("5");
  Background background(command);
  const std::string parent = word(background.ready());
  Json tree;
  const auto deadline = Clock::now() + std::chrono::seconds(30);
  const auto stuck = [&] {
    return std::count_if(tree.begin(), tree.end(),
                         [](const Json& process) { return process.value("stuck", false); });
  };
  do {
    usleep(100000);
    tree = ask({"diagnose", "--json", "--children", parent}).json();
  } while (stuck() < 5 && Clock::now() < deadline);
  INFO(tree.dump(1));
  REQUIRE(tree.size() == 7);
  std::string same = "5 children, the same:";
  for (size_t i = 1; i <= 5; ++i) {
    CHECK(tree[i]["code"] == "gnu-openmp-team");
    CHECK(tree[i]["threads"].size() == 8);
    same += " " + word(tree[i]["pid"]);
  }

  const Answer text = ask({"diagnose", "--children", parent});
  INFO(text.describe());
  CHECK(text.status == 1);
  CHECK(count(text.output, " is stuck.\n") == 1);
  CHECK(contains(text.output, word(tree[1]["pid"]) + " (omp_specimen) is stuck.\n"));
  CHECK(count(text.output, " is not stuck in a runtime.\n") == 2);
  std::string flat = text.output;
  for (size_t at; (at = flat.find("\n  ")) != std::string::npos;) flat.replace(at, 3, " ");
  CHECK(contains(flat, " " + same + "\n"));
}

TEST_CASE("diagnose goes 16 generations down, and says what it left out", "[diagnose deep]") {
  for (const auto& [generations, note] :
       {std::pair("16", ""), std::pair("18",
                                       "forksafe: diagnose: 2 processes more than 16 "
                                       "generations below PID were not looked at\n")}) {
    Background background(specimen({"deep", generations}));
    const std::string pid = word(background.ready());
    std::string expected = note;
    if (!expected.empty()) expected.replace(expected.find("PID"), 3, pid);
    for (const bool children : {false, true}) {
      std::vector<std::string> line = {"diagnose", "--json", pid};
      if (children) line.insert(line.begin() + 1, "--children");
      const Answer answer = ask(line);
      INFO(answer.describe());
      CHECK(answer.status == (expected.empty() ? 0 : 2));
      CHECK(answer.errors == expected);
      CHECK(answer.json().size() == (children ? 17 : 1));
    }
  }
}

TEST_CASE("the cure says that the process runs under forksafe, or under FORKSAFE=0",
          "[diagnose guarded]") {
  Command command = omp_specimen("bare-team");
  command.environment["LD_PRELOAD"] = forksafe_library();
  {
    Background background(command);
    const Diagnosis verdict = diagnose_when_stuck(background.ready());
    CHECK(verdict.status == 1);
    CHECK(verdict.at("code") == "gnu-openmp-team");
    CHECK(verdict.process["guarded"] == true);
    CHECK(verdict.at("cure").rfind("it runs under forksafe already, which does not help a child",
                                   0) == 0);
  }
  command.environment["FORKSAFE"] = "0";
  Background background(command);
  const Diagnosis verdict = diagnose_when_stuck(background.ready());
  CHECK(verdict.status == 1);
  CHECK(verdict.process["guarded"] == false);
  CHECK(verdict.at("cure") == "forksafe is loaded but switched off: run it without FORKSAFE=0");
}

// ---- Python's frames

TEST_CASE("Python's frames are shown if py-spy is installed", "[diagnose python]") {
  Command command;
  command.arguments = {debian_python(), "-c",
                       "import os, time\n"
                       "print('ready', os.getpid(), flush=True)\n"
                       "time.sleep(600)\n"};
  Background background(command);
  const pid_t pid = background.ready();
  const TemporaryDirectory folder;
  const Environment path = {{"PATH", folder.path() + ":/usr/bin:/bin"}};
  const auto look = [&] { return ask({"diagnose", word(pid)}, path); };
  const std::string hint = "for Python's frames, install py-spy (pip install py-spy)";

  if (fs::exists("/usr/bin/py-spy")) {
    WARN("py-spy is in /usr/bin: the hint to install it can't be seen");
  } else {
    const Answer without = look();
    CHECK(without.status == 0);
    CHECK(contains(without.output, "\n" + hint + "\n"));
  }

  // The output of py-spy 0.4.
  write_file(folder.file("py-spy"),
             "#!/bin/sh\n"
             "test \"$*\" = 'dump --json --pid " +
                 word(pid) +
                 "' || exit 1\n"
                 "cat <<'END'\n"
                 R"([{"pid": )" +
                 word(pid) + R"(, "thread_id": 140170813796416, "thread_name": "MainThread",
                    "os_thread_id": )" +
                 word(pid) +
                 R"(, "active": false, "owns_gil": false,
                    "frames": [{"name": "product", "filename": "/srv/app/pool.py", "module": null,
                                "short_filename": "pool.py", "line": 12, "locals": null,
                                "is_entry": false, "is_shim_entry": false},
                               {"name": "<module>", "filename": "<string>", "module": null,
                                "short_filename": "<string>", "line": 3, "locals": null,
                                "is_entry": true, "is_shim_entry": true}],
                    "process_info": null},
                   {"pid": 1, "thread_id": 5, "thread_name": null, "os_thread_id": null,
                    "active": false, "owns_gil": false, "frames": [], "process_info": null}])"
                 "\nEND\n",
             0755);
  const Answer with = look();
  INFO(with.describe());
  CHECK(with.status == 0);
  CHECK(contains(with.output,
                 "\n  in Python:\n    product (/srv/app/pool.py:12)\n    <module> (<string>:3)\n"));
  CHECK_FALSE(contains(with.output, "py-spy"));
  const Json json = ask({"diagnose", "--json", word(pid)}, path).json();
  CHECK(json[0]["threads"][0]["python"] ==
        Json({"product (/srv/app/pool.py:12)", "<module> (<string>:3)"}));

  write_file(folder.file("py-spy"), "#!/bin/sh\ntest \"$1\" = --version\n", 0755);
  CHECK(contains(look().output, "\npy-spy could not read Python's frames\n"));
  for (const char* nonsense : {"echo", "echo '{'", "echo '{\"a\": 1}'", "echo '[1, null, {}]'",
                               "echo '[{\"os_thread_id\": \"1\", \"frames\": null}]'"}) {
    INFO(nonsense);
    write_file(folder.file("py-spy"), std::string("#!/bin/sh\n") + nonsense + "\n", 0755);
    const Answer answer = look();
    INFO(answer.describe());
    CHECK(answer.status == 0);
    CHECK(contains(answer.output, "\npy-spy found no Python frames\n"));
  }
  Background no_python(specimen({"idle"}));
  CHECK_FALSE(contains(ask({"diagnose", word(no_python.ready())}, path).output, "py-spy"));
}

// ---- not stuck

TEST_CASE("a process that sleeps is not stuck", "[diagnose healthy]") {
  check_not_stuck(specimen({"idle"}), 1);
  check_not_stuck(specimen(blas_by_name("debian"), {"idle"}), 1);
  check_not_stuck(specimen(blas_by_name("debian-openmp"), {"idle"}), 1);
}

TEST_CASE("a process that computes for a long time is not stuck", "[diagnose healthy]") {
  check_not_stuck(specimen(blas_by_name("debian"), {"products", "2500"}), 10);
  check_not_stuck(specimen(blas_by_name("debian-openmp"), {"products", "2500"}), 10);
}

TEST_CASE("a child that computes all the time under forksafe is not stuck",
          "[diagnose busy child]") {
  const Blas blas = blas_by_name("debian");
  check_not_stuck(with_library(specimen(blas, {"child-products", "16"})), 12);
  check_not_stuck(with_library(specimen(blas, {"child-products", "200"})), 12);
  check_not_stuck(with_library(specimen(blas, {"child-products", "2500"})), 4);
  const Blas openmp = blas_by_name("debian-openmp");
  check_not_stuck(with_library(specimen(openmp, {"child-products", "200"})), 12);
}

TEST_CASE("a child that enters and leaves OpenMP is not stuck", "[diagnose busy regions]") {
  // With one thread there are no workers to miss.
  for (const char* situation : {"regions-1", "sections"}) {
    INFO(situation);
    check_not_stuck(omp_specimen(situation), 12);
  }
  check_not_stuck(with_library(omp_specimen("regions-2")), 12);
}

TEST_CASE("a process that forks and computes all the time is not stuck", "[diagnose fork loop]") {
  const Command own_threads = specimen(blas_by_name("debian"), {"fork-loop", "110"});
  // Without the library it ends its pool at each fork and makes another.
  check_not_stuck(own_threads, 12);
  check_not_stuck(with_library(own_threads), 12);
  check_not_stuck(with_library(specimen(blas_by_name("debian-openmp"), {"fork-loop", "110"})), 12);
}

TEST_CASE("a child whose new threads wait for a processor is not stuck", "[diagnose unstarted]") {
  check_not_stuck(specimen(blas_by_name("debian"), {"unstarted"}), 3);
}

TEST_CASE("a process whose workers can't be stopped for a look is not stuck", "[diagnose unread]") {
  check_not_stuck(specimen(blas_by_name("debian"), {"unread"}), 3);
}

// ---- threads that no rule knows

Command crew_specimen(const std::vector<std::string>& situation) {
  return specimen(Blas{CREW, "", "", "", false}, situation);
}

void check_lost(const Command& command, const std::vector<std::string>& parts) {
  Background background(command);
  const Diagnosis verdict = diagnose_when_stuck(background.ready());
  INFO(verdict.process.dump(1));
  CHECK(verdict.status == 1);
  CHECK(verdict.at("code") == "lost-threads");
  for (const std::string& part : parts) CHECK(contains(verdict.at("text"), part));
  CHECK(contains(verdict.at("cure"), "forksafe has none for "));
}

/// A worker of a server, as gunicorn's: the child handles a signal in Python.
Command python_crew() {
  Command command;
  command.arguments = {debian_python(), "-c",
                       "import ctypes, os, signal, sys\n"
                       "signal.signal(signal.SIGTERM, lambda *_: sys.exit())\n"
                       "crew = ctypes.CDLL('" CREW
                       "')\n"
                       "crew.crew_start(2)\n"
                       "child = os.fork()\n"
                       "if child == 0: crew.crew_work(2, 1000)\n"
                       "print('ready', child, flush=True)\n"
                       "os.waitpid(child, 0)\n"};
  return command;
}

TEST_CASE("a child waits for threads of a library that forksafe does not know",
          "[diagnose lost threads]") {
  const std::string place = "waits in crew_work (libcrew.so) for ";
  const std::string lost = "2 threads of that library, which exist only in its parent.";
  check_lost(crew_specimen({"crew"}), {"This is a forked child of ", place + lost});
  check_open(crew_specimen({"crew-beside"}),
             place + lost + " But another thread of this process does not wait, and may let it go",
             "forksafe has none for libcrew.so: ");
  check_open(crew_specimen({"signalled", "0"}),
             "waits in crew_wait (libcrew.so) for " + lost +
                 " But this process handles a signal, whose handler may let it go on",
             "forksafe has none for libcrew.so: ");
  check_lost(python_crew(), {place + lost});
  const std::string holder = " waits for a lock or a thread that exists only in its parent.";
  check_lost(crew_specimen({"crew-handler", "0"}),
             {"It hangs in fork(): the handler ", "(libcrew.so)" + holder});
  check_lost(crew_specimen({"crew-handler", "1"}),
             {"It hangs in fork(), in a handler that" + holder});
  check_not_stuck(crew_specimen({"crew-of-its-own"}), 3);
  check_not_stuck(crew_specimen({"signalled", "1"}), 3);
}

TEST_CASE("a child that waits with a timeout for lost threads may be stuck",
          "[diagnose lost threads]") {
  const Command timed = crew_specimen({"crew-timed"});
  const Diagnosis verdict = check_open(timed,
                                       "waits with a timeout in crew_work_and_look (libcrew.so) "
                                       "for 2 threads of that library, which "
                                       "exist only in its parent. Only they could end the wait.",
                                       "forksafe has none for libcrew.so: ");
  CHECK(verdict.at("library") == CREW);
  // A look that finds the thread awake tells nothing.
  Background background(timed);
  background.ready();
  const auto ask_until_found = [&](std::vector<std::string> words) {
    words.push_back(std::to_string(background.pid()));
    Answer answer = ask(words);
    for (int i = 0; i < 20 && answer.status == 0; ++i) answer = ask(words);
    return answer;
  };
  CHECK(ask_until_found({"diagnose", "--children"}).status == 2);
  const Answer parent = ask_until_found({"diagnose"});
  CHECK(parent.status == 2);
  CHECK(contains(parent.output, "But 1 of its descendants may be stuck:  forksafe diagnose"));
  check_not_stuck(crew_specimen({"crew-timed-of-its-own"}), 3);
}

TEST_CASE("a thread that waits in a fork handler is named with the library", "[diagnose handler]") {
  check_lost(crew_specimen({"crew-before-fork", "0"}),
             {"It hangs in fork(): the handler ",
              "(libcrew.so) waits for a lock or a thread, and no thread of this process is left"});
  // Another thread may end this wait.
  Background background(crew_specimen({"crew-before-fork", "1"}));
  const pid_t pid = background.ready();
  Diagnosis verdict = diagnose(pid);
  const std::string part = " It is inside fork(), in a handler of libcrew.so (";
  for (int i = 0; i < 100 && !contains(verdict.at("text"), part); ++i) verdict = diagnose(pid);
  INFO(verdict.process.dump(1));
  CHECK(verdict.status == 0);
  CHECK(verdict.process["stuck"] == false);
  CHECK(verdict.at("text").rfind(kNotStuck + part, 0) == 0);
}

TEST_CASE("a child spins in a region for a team mate", "[diagnose spin]") {
  for (const char* situation : {"spin", "spin-yield"}) {
    INFO(situation);
    const Diagnosis verdict = check_stuck(omp_specimen(situation), {"openmp-spin", "", ""});
    CHECK(contains(verdict.at("text"), "(omp_specimen), alone below GOMP_parallel (libgomp.so.1."));
    CHECK(contains(verdict.at("text"),
                   " It likely waits for 1 team mate that exists only in its parent."));
  }
}

// The wait is seen through a door of the library, too.
TEST_CASE("OpenBLAS, which exits while a call is in flight, is told not to be a fork problem",
          "[diagnose exit]") {
  for (const bool guarded : {false, true}) {
    INFO(guarded);
    Command command = specimen(blas_by_name("debian"), {"exit-in-flight"});
    if (guarded) command = with_library(command);
    Background background(command);
    const Diagnosis verdict = diagnose_when_stuck(background.ready());
    INFO(verdict.process.dump(1));
    CHECK(verdict.status == 1);
    CHECK(verdict.at("code") == "openblas-exit");
    CHECK(verdict.process["guarded"] == guarded);
    CHECK(contains(verdict.at("text"), "It waits in blas_thread_shutdown"));
    CHECK(contains(verdict.at("text"), "That is no fork problem."));
    CHECK(contains(verdict.at("cure"), "forksafe has none for this defect of OpenBLAS"));
    CHECK_FALSE(background.has_ended());
  }
}

TEST_CASE("OpenBLAS, which joins lost workers at a child's exit, is told to hang for the fork",
          "[diagnose exit]") {
  check_stuck(specimen(blas_by_name("debian"), {"exit-in-child"}),
              {"openblas-workers", "blas_thread_shutdown_", kWorkers});
}

// 10 children, 30 looks at each.
TEST_CASE("300 looks at children that are well find none stuck", "[diagnose false alarms]") {
  std::vector<std::unique_ptr<Background>> trees;
  std::vector<pid_t> children;
  for (const Command& command :
       {crew_specimen({"child-works"}), crew_specimen({"child-reads"}),
        crew_specimen({"child-locks", "0"}), crew_specimen({"child-locks", "1"}),
        crew_specimen({"crew-of-its-own"}), crew_specimen({"signalled"}),
        omp_specimen("work-in-region"), omp_specimen("uneven"), omp_specimen("flag"),
        omp_specimen("regions-1")}) {
    trees.push_back(std::make_unique<Background>(command));
    children.push_back(trees.back()->ready());
  }
  usleep(100000);
  int looks = 0;
  for (int round = 0; round < 30; ++round) {
    for (const forksafe::cli::Diagnosis& d : forksafe::cli::diagnose_processes(children)) {
      INFO("round " << round << " " << d.error << d.what);
      REQUIRE(d.look != nullptr);
      REQUIRE_FALSE(d.stuck);
      ++looks;
    }
  }
  CHECK(looks == 300);
  for (const auto& tree : trees) CHECK_FALSE(tree->has_ended());
}

Command python_child(const std::string& in_child) {
  Command command;
  command.arguments = {debian_python(), "-c",
                       "import os, signal, threading, time\n"
                       "lock = threading.Lock()\n"
                       "def hold():\n"
                       "    with lock: time.sleep(1000)\n"
                       "threading.Thread(target=hold, daemon=True).start()\n"
                       "while not lock.locked(): time.sleep(0.001)\n"
                       "child = os.fork()\n"
                       "if child == 0:\n" +
                           in_child +
                           "    os._exit(0)\n"
                           "print('ready', child, flush=True)\n"
                           "os.waitpid(child, 0)\n"};
  return command;
}

TEST_CASE("a child waits for a lock that a thread of its parent held", "[diagnose python lock]") {
  Background background(python_child("    lock.acquire()\n"));
  const Diagnosis verdict = diagnose_when_stuck(background.ready());
  INFO(verdict.process.dump(1));
  CHECK(verdict.at("code") == "python-lock");
  CHECK(contains(verdict.at("text"),
                 "for a lock of Python, whose holder exists only in its parent."));
  // It waits for a signal.
  check_not_stuck(python_child("    event = threading.Event()\n"
                               "    signal.signal(signal.SIGTERM, lambda *_: event.set())\n"
                               "    event.wait()\n"),
                  3);
  // It waits with a timeout.
  check_not_stuck(python_child("    lock.acquire(timeout=1000)\n"), 3);
}

TEST_CASE("a child waits for Python's global lock", "[diagnose python lock]") {
  Background background(python_that_forks_in_c("CDLL", ""));
  const Diagnosis verdict = diagnose_when_stuck(background.ready());
  INFO(verdict.process.dump(1));
  CHECK(verdict.at("code") == "python-lock");
  CHECK(contains(verdict.at("text"), "PyEval_RestoreThread"));
  CHECK(contains(verdict.at("text"),
                 "for a lock of Python, whose holder exists only in its parent."));
  // The main thread waits for the lock, which a thread of the child holds while it sleeps.
  check_not_stuck(
      python_that_forks_in_c("PyDLL",
                             "    sleep = ctypes.PyDLL(None).sleep\n"
                             "    threading.Thread(target=lambda: sleep(1000)).start()\n"),
      3);
}

// ---- unharmed

TEST_CASE("a look does not change signals, stops and results of a process", "[diagnose unharmed]") {
  constexpr int kQueued = 100;
  for (const auto& [build, looks] : {std::pair("debian", 50), std::pair("debian-openmp", 10)}) {
    INFO(build);
    Background background(specimen(blas_by_name(build), {"counted"}));
    const pid_t pid = background.ready();
    for (int i = 0; i < looks; ++i) {
      kill(pid, SIGUSR1);
      Command look;
      look.arguments = {forksafe_command(), "diagnose", "--json", word(pid)};
      Background looking(look);
      for (int k = 0; k < kQueued; ++k) {
        sigqueue(pid, SIGRTMIN, {});
        usleep(500);
      }
      const int status = looking.wait(30);
      INFO(looking.output() << looking.errors());
      REQUIRE(WIFEXITED(status));
      REQUIRE(WEXITSTATUS(status) == 0);
    }
    // A stopped process stays stopped.
    kill(pid, SIGSTOP);
    for (int i = 0; i < 100 && state_of(pid) != 'T'; ++i) usleep(10000);
    for (int i = 0; i < 5; ++i) {
      CHECK(diagnose(pid).status == 0);
      usleep(20000);
      CHECK(state_of(pid) == 'T');
    }
    kill(pid, SIGCONT);
    kill(pid, SIGTERM);
    const int status = background.wait(30);
    INFO(background.output() << background.errors());
    CHECK(status == 0);
    CHECK(contains(background.output(), "exact, SIGUSR1 " + std::to_string(looks) + ", SIGRTMIN " +
                                            std::to_string(looks * kQueued)));
  }
}

// ---- what can't be looked at

TEST_CASE("a word that is not the id of a process is refused", "[diagnose refused]") {
  for (const char* word : {"0", "-1", "-5", "x", "5x", "1.5", " 5", "", "99999999999999999999",
                           "4294967297", "2147483648"}) {
    INFO("'" << word << "'");
    check_refused(ask({"diagnose", word}), "diagnose");
  }
  pid_t vanished = 0;
  {
    Background background(specimen({"idle"}));
    vanished = background.ready();
  }
  check_refused(ask({"diagnose", word(vanished)}),
                "process " + word(vanished) + ": no process has this id");
}

TEST_CASE("a zombie, a thread and a traced process are refused", "[diagnose refused]") {
  Background zombie(specimen({"zombie"}));
  check_refused(ask({"diagnose", word(zombie.ready())}),
                "it has ended, but its parent " + word(zombie.pid()) +
                    " has not waited for it (zombie): try " + word(zombie.pid()));
  Background ended(specimen({"main-ended"}));
  check_refused(ask({"diagnose", word(ended.ready())}),
                "its main thread has ended and others go on");
  Background threaded(specimen({"with-thread"}));
  const pid_t thread = threaded.ready();
  REQUIRE(thread != threaded.pid());
  check_refused(ask({"diagnose", word(thread)}), "process " + word(thread) +
                                                     ": this is a thread of process " +
                                                     word(threaded.pid()) + ": give that id");
  Background traced(specimen({"traced"}));
  for (const char* name : {"diagnose", "check"}) {
    Answer answer = ask({name, word(traced.ready())});
    CHECK_FALSE(contains(answer.output, ") is stuck."));
    answer.output.clear();
    check_refused(answer,
                  "process " + word(traced.pid()) + " already traces it (a debugger?): end that");
  }
}

TEST_CASE("forksafe refuses to diagnose itself", "[diagnose refused]") {
  Command command;
  command.arguments = {"/bin/sh", "-c", "exec \"$0\" diagnose $$", forksafe_command()};
  Background itself(command);
  const int status = itself.wait(30);
  REQUIRE(WIFEXITED(status));
  check_refused({WEXITSTATUS(status), itself.output(), itself.errors()}, "this is forksafe itself");
}

TEST_CASE("forksafe does not look at itself among the descendants", "[diagnose refused]") {
  Command command;
  command.arguments = {"/bin/sh", "-c", "\"$0\" diagnose --children $$; echo status $?",
                       forksafe_command()};
  Background shell(command);
  shell.wait(30);
  INFO(shell.errors());
  CHECK(shell.errors().empty());
  CHECK(contains(shell.output(), ") is not stuck in a runtime.\n"));
  CHECK(contains(shell.output(), "status 0\n"));
}

TEST_CASE("a kernel thread is refused", "[diagnose kernel]") {
  // "pid (name) state ppid pgrp session tty tpgid flags"; PF_KTHREAD is 0x00200000.
  std::istringstream stat(read_file("/proc/2/stat"));
  std::string word;
  unsigned long flags = 0;
  for (int i = 0; i < 8; ++i) stat >> word;
  stat >> flags;
  if ((flags & 0x00200000) == 0) skip("process 2 is no kernel thread here");
  check_refused(ask({"diagnose", "2"}), "process 2: it is a kernel thread");
}

#if defined(__x86_64__)
namespace {

/// A static program of some bytes that sleeps forever.
template <typename Header, typename Segment>
std::string tiny_program(unsigned char elf_class, unsigned short machine, const std::string& code) {
  constexpr unsigned kBase = 0x10000;
  Header header = {};
  std::copy_n(ELFMAG, SELFMAG, header.e_ident);
  header.e_ident[EI_CLASS] = elf_class;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_EXEC;
  header.e_machine = machine;
  header.e_version = EV_CURRENT;
  header.e_entry = kBase + sizeof header + sizeof(Segment);
  header.e_phoff = header.e_ehsize = sizeof header;
  header.e_phentsize = sizeof(Segment);
  header.e_phnum = 1;
  Segment segment = {};
  segment.p_type = PT_LOAD;
  segment.p_vaddr = segment.p_paddr = kBase;
  segment.p_flags = PF_R | PF_X;
  segment.p_align = 4096;
  const auto size = sizeof header + sizeof segment + code.size();
  segment.p_filesz = segment.p_memsz = static_cast<decltype(segment.p_filesz)>(size);
  return std::string(reinterpret_cast<const char*>(&header), sizeof header) +
         std::string(reinterpret_cast<const char*>(&segment), sizeof segment) + code;
}

void check_program_refused(const std::string& program, const std::string& part) {
  const TemporaryDirectory folder;
  write_file(folder.file("tiny"), program, 0755);
  Command command;
  command.arguments = {folder.file("tiny")};
  Background background(command);
  for (int i = 0; i < 100 && !background.has_ended(); ++i) {
    if (fs::read_symlink("/proc/" + word(background.pid()) + "/exe") == folder.file("tiny")) break;
    usleep(10000);
  }
  if (background.has_ended()) skip("the kernel does not run such programs");
  for (const std::string name : {"diagnose", "list", "check"}) {
    check_refused(ask({name, word(background.pid())}),
                  "process " + word(background.pid()) + " (tiny): " + part);
  }
}

}  // namespace

TEST_CASE("a static program is refused", "[diagnose static]") {
  // mov eax, 34 (pause); syscall; jmp to the start
  check_program_refused(
      tiny_program<Elf64_Ehdr, Elf64_Phdr>(ELFCLASS64, EM_X86_64,
                                           std::string("\xb8\x22\x00\x00\x00\x0f\x05\xeb\xf7", 9)),
      "its program is statically linked");
}

TEST_CASE("a 32-bit program is refused", "[diagnose 32-bit]") {
  // mov eax, 29 (pause); int 0x80; jmp to the start
  check_program_refused(
      tiny_program<Elf32_Ehdr, Elf32_Phdr>(ELFCLASS32, EM_386,
                                           std::string("\xb8\x1d\x00\x00\x00\xcd\x80\xeb\xf7", 9)),
      "it is a 32-bit program of another architecture than this forksafe");
}
#endif

// ---- colours

TEST_CASE("diagnose uses colours only on a terminal", "[diagnose colours]") {
  Background background(omp_specimen("team"));
  const std::string pid = word(background.ready());
  diagnose_when_stuck(std::stoi(pid));
  const std::string red = "\x1b[31m" + pid + " (omp_specimen) is stuck.\x1b[0m";
  const std::vector<std::string> words = {forksafe_command(), "diagnose", pid};
  CHECK(contains(on_terminal(words, {{"TERM", "xterm"}, {"NO_COLOR", ""}}), red));
  CHECK_FALSE(contains(on_terminal(words, {{"TERM", "xterm"}, {"NO_COLOR", "1"}}), "\x1b"));
  CHECK_FALSE(contains(on_terminal(words, {{"TERM", "dumb"}, {"NO_COLOR", ""}}), "\x1b"));
  const Answer piped = ask({"diagnose", pid}, {{"TERM", "xterm"}, {"NO_COLOR", ""}});
  CHECK(contains(piped.output, pid + " (omp_specimen) is stuck.\n"));
  CHECK_FALSE(contains(piped.output, "\x1b"));
}

TEST_CASE("names of others do not control the terminal", "[diagnose colours]") {
  const TemporaryDirectory folder;
  Command command = specimen({"named"});
  command.arguments[0] = folder.file("\x1b[31mprogram");
  fs::copy_file(SPECIMEN, command.arguments[0]);
  Background background(command);
  const std::string pid = word(background.ready());
  for (const std::string name : {"diagnose", "list", "check"}) {
    const Answer piped = ask({name, pid});
    INFO(piped.describe());
    CHECK(contains(piped.output, "?[31mprogram"));
    CHECK_FALSE(contains(piped.output, "\x1b"));
    const std::string shown =
        on_terminal({forksafe_command(), name, pid}, {{"TERM", "xterm"}, {"NO_COLOR", ""}});
    CHECK(contains(shown, "?[31mprogram"));
    CHECK_FALSE(contains(shown, "\x1b[31m"));
  }
  CHECK(contains(ask({"diagnose", pid}).output, " (?[31mred\xc2?)\n"));
  CHECK(ask({"diagnose", "--json", pid}).json()[0]["threads"][0]["name"] == "\x1b[31mred\xc2\x9b");
}
