// SPDX-License-Identifier: Apache-2.0
// Do no harm, for programs with OpenMP and BLAS: what they may rely on without the library, they
// may rely on with it. Some cases prove promises of the options to children that are easily
// forgotten. Each test runs one small program of this folder, whose first comment says what it
// shows.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "../../scenarios/setting.h"

using namespace forksafe_test;

namespace {

// Two threads, whatever number of processors the machine has. That is enough for every case here.
const std::map<std::string, std::string> kTwoThreads = {
    {"OMP_NUM_THREADS", "2"}, {"OPENBLAS_NUM_THREADS", "2"}, {"BLIS_NUM_THREADS", "2"}};

Command harm_program(const std::string& name, const std::vector<std::string>& arguments,
                     const std::map<std::string, std::string>& environment = {}) {
  Command command;
  command.arguments = {program("harm/runtimes/" + name)};
  if (access(command.arguments[0].c_str(), X_OK) != 0) {
    skip("not built: " + name + " (libopenblas-pthread-dev and libgomp.a are needed for some)");
  }
  command.arguments.insert(command.arguments.end(), arguments.begin(), arguments.end());
  command.environment = kTwoThreads;
  for (const auto& [variable, value] : environment) command.environment[variable] = value;
  // The programs limit the time of their children themselves, and print which one has hung.
  command.quiet_seconds = 60;
  command.environment.emplace("FORKSAFE_WAIT_MS", "3000");
  return command;
}

// The same command, with as many threads as the machine has processors.
Command on_all_processors(Command command) {
  for (const auto& [variable, value] : kTwoThreads) command.environment.erase(variable);
  return command;
}

Command with_blas(Command command, const Blas& blas) {
  command.arguments.insert(command.arguments.end(), {blas.path, blas.prefix, blas.suffix});
  command.environment["LD_LIBRARY_PATH"] = blas.library_path;
  return command;
}

Command with(Command command, const std::string& variable, const std::string& value) {
  command.environment[variable] = value;
  return command;
}

std::string line_of(const Command& command) {
  std::string line;
  for (const auto& [variable, value] : command.environment) {
    if (variable.rfind("FORKSAFE", 0) == 0 || variable.rfind("OMP_", 0) == 0 ||
        variable.rfind("GOMP", 0) == 0) {
      line += variable + "=" + value + " ";
    }
  }
  for (const std::string& argument : command.arguments) {
    line += argument.substr(argument.rfind('/') + 1) + " ";
  }
  return line;
}

Outcome must_succeed(const Command& command, const char* how) {
  const Outcome outcome = run(command);
  if (outcome.end == Outcome::End::kExited && outcome.status == 77) skip(outcome.output);
  INFO(how << ": " << line_of(command) << "\n" << outcome.describe());
  CHECK(outcome.succeeded());
  printf("%s: %s%s\n", how, line_of(command).c_str(), outcome.describe().c_str());
  return outcome;
}

// What works without the library works with it.
void unharmed(const Command& command) {
  must_succeed(command, "without");
  must_succeed(with_library(command), "with");
}

// For a promise of an option, which holds only with the library.
void promised(const Command& command) { must_succeed(with_library(command), "with"); }

// For what fails without the library and works with it. Not every failure is a hang.
void cured(const Command& command) {
  Command watched = command;
  watched.quiet_seconds = 0.5;  // then diagnose says whether it is stuck
  const Outcome outcome = run(watched);
  INFO("without: " << line_of(command) << "\n" << outcome.describe());
  if (outcome.end == Outcome::End::kExited && outcome.status == 77) skip(outcome.output);
  CHECK_FALSE(outcome.succeeded());
  printf("without: %s%s\n", line_of(command).c_str(), outcome.describe().c_str());
  must_succeed(with_library(command), "with");
}

std::string text_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::ostringstream all;
  all << file.rdbuf();
  return all.str();
}

const char* const kAuto = "FORKSAFE_CHILD_THREADS";

}  // namespace

TEST_CASE("auto - an array sized by a first region is large enough") {
  unharmed(with(on_all_processors(harm_program("region_sizes", {"region"})), kAuto, "auto"));
}

TEST_CASE("auto - an array sized by omp_get_max_threads is large enough") {
  unharmed(with(on_all_processors(harm_program("region_sizes", {"question"})), kAuto, "auto"));
}

TEST_CASE("auto - work divided by a number from the program's start is complete") {
  Command command = on_all_processors(harm_program("number_from_parent", {"start"}));
  command.environment["HARM_ASK_AT_START"] = "1";
  unharmed(with(command, kAuto, "auto"));
}

TEST_CASE("auto - work divided by a number from the parent's region is complete") {
  Command command = on_all_processors(harm_program("number_from_parent", {"region"}));
  // Without the library the child of a parent with a pool hangs.
  promised(with(command, kAuto, "auto"));
}

TEST_CASE("auto - work divided by a number that a grandparent asked for is complete") {
  Command command = on_all_processors(harm_program("number_from_parent", {"grandparent"}));
  unharmed(with(command, kAuto, "auto"));
}

TEST_CASE("auto - a child alone has all threads where GNU OpenMP binds them") {
  const std::map<std::string, std::string> bindings[] = {
      {{"OMP_PROC_BIND", "true"}}, {{"OMP_PLACES", "cores"}}, {{"GOMP_CPU_AFFINITY", "0-63"}}};
  for (const auto& binding : bindings) {
    unharmed(
        with(on_all_processors(harm_program("alone_in_child", {"fresh"}, binding)), kAuto, "auto"));
    promised(
        with(on_all_processors(harm_program("alone_in_child", {"pool"}, binding)), kAuto, "auto"));
    Command command = on_all_processors(
        with_blas(harm_program("alone_in_child", {"pool"}, binding), blas_by_name("debian")));
    promised(with(command, kAuto, "auto"));
  }
}

TEST_CASE("auto - a child's first region has its share beside an OpenBLAS on OpenMP") {
  const Command command = on_all_processors(harm_program("share_beside_blas", {}));
  promised(with(command, kAuto, "auto"));
  promised(with(with_blas(command, blas_by_name("debian-openmp")), kAuto, "auto"));
}

TEST_CASE("a first fork on a small alternate stack") {
  for (const char* threads : {"inherit", "auto", "1"}) {
    unharmed(with(harm_program("fork_on_small_stack", {}), kAuto, threads));
    for (const char* name : {"debian", "debian-openmp"}) {
      Command command = with_blas(harm_program("fork_on_small_stack", {}), blas_by_name(name));
      unharmed(with(command, kAuto, threads));
    }
  }
}

TEST_CASE("FORKSAFE_CHILD_THREADS=N holds in every thread of a child") {
  for (const char* threads : {"1", "3"}) {
    for (const char* parent : {"fresh", "pool"}) {
      promised(with(harm_program("child_threads", {threads, parent}), kAuto, threads));
    }
  }
}

TEST_CASE("what a child handler sets with omp_set_num_threads holds") {
  for (const char* when : {"early", "late"}) {
    unharmed(harm_program("handler_sets_threads", {when, "no-pool", "1"}));
    unharmed(harm_program("handler_sets_threads", {when, "pool", "1"}));
    // The number that the environment gives. Without the library a region of two threads hangs.
    unharmed(harm_program("handler_sets_threads", {when, "no-pool", "2"}));
    cured(harm_program("handler_sets_threads", {when, "pool", "2"}));
  }
}

TEST_CASE("a child calls no malloc by itself") {
  unharmed(harm_program("locked_malloc", {"4"}));
  promised(with(harm_program("locked_malloc", {"3", "keys"}), "FORKSAFE_CHILD_THREADS", "3"));
  // GNU OpenMP of GCC 13 and later allocates, and loads libraries, when it looks for devices.
  unharmed(with(harm_program("locked_malloc", {"4"}), "OMP_TARGET_OFFLOAD", "mandatory"));
}

TEST_CASE("a child leaks nothing") {
  // The address sanitizer wants to be the first library.
  unharmed(with(harm_program("leak_check", {}), "ASAN_OPTIONS", "verify_asan_link_order=0"));
}

TEST_CASE("a prepare handler runs the first region") {
  cured(harm_program("first_region_in_prepare", {}));
}

TEST_CASE("fork in a task outside of a region") {
  unharmed(harm_program("fork_in_construct", {"task"}));
  unharmed(harm_program("fork_in_construct", {"thread-task"}));
}
TEST_CASE("fork in teams outside of a region") {
  unharmed(harm_program("fork_in_construct", {"teams"}));
}
TEST_CASE("fork in target outside of a region") {
  unharmed(harm_program("fork_in_construct", {"target"}));
}

TEST_CASE("a child that is forked on a coroutine's stack has regions") {
  cured(harm_program("fork_on_coroutine", {"first"}));
  cured(harm_program("fork_on_coroutine", {"other"}));
}

TEST_CASE("a program with libgomp.a keeps its thread_local variables in children") {
  unharmed(harm_program("own_thread_locals", {"no-pool"}));
  unharmed(harm_program("own_thread_locals", {"pool"}));
}

TEST_CASE("a program that exports its libgomp.a has regions in children") {
  const Command command = harm_program("own_thread_locals", {"region"});
  expect_trouble(command);
  expect_success(with_library(command), 0);
}

TEST_CASE("a library with libopenblas.a keeps its own mappings in children") {
  unharmed(harm_program("own_memory", {"memory"}));
}

TEST_CASE("a library with libopenblas.a keeps its own fork handlers") {
  unharmed(harm_program("own_memory", {"handlers"}));
}

TEST_CASE("a library that is dlopened with GNU OpenMP keeps the order of constructors") {
  unharmed(harm_program("constructor_order", {program("harm/runtimes/liborder_plugin.so")}));
}

TEST_CASE("a library that only looks like BLIS keeps its mutexes and forks quickly") {
  unharmed(harm_program("blis_lookalike", {program("harm/runtimes/liblookalike.so")}));
}

// The following run with the BLAS that FORKSAFE_TEST_BLAS names.

TEST_CASE("a prepare handler that computes does not make fork slow") {
  for (const char* count : {"1", "3"}) {
    unharmed(with_blas(harm_program("handler_computes", {"own", count}), blas_under_test()));
  }
}

TEST_CASE("a prepare handler that waits for calls does not make fork slow") {
  unharmed(with_blas(harm_program("handler_computes", {"queue", "5"}), blas_under_test()));
}

TEST_CASE("a prepare handler waits for a call while the clock stands still") {
  unharmed(with_blas(harm_program("still_clock", {}), blas_under_test()));
}

TEST_CASE("a stack that is walked from inside a call reaches main") {
  const Command command = with_blas(harm_program("stack_from_handler", {}), blas_under_test());
  const Outcome without = run(command);
  // OpenBLAS 0.3.13's kernels have no unwind tables (Debian 11).
  if (without.output.find("are cut off") != std::string::npos) {
    skip("without the library too, " + without.output);
  }
  unharmed(command);
}

TEST_CASE("a thread that is cancelled loads a BLAS") {
  unharmed(with_blas(harm_program("cancelled_loading", {}), blas_under_test()));
}

TEST_CASE("a BLAS loaded during a fork has all threads in children") {
  // Without the library such a child hangs: the fork had begun before OpenBLAS's own handler came.
  cured(with_blas(harm_program("loaded_during_fork", {}), blas_under_test()));
}

TEST_CASE("the library is loaded after a BLAS that is then unloaded") {
  unharmed(with_blas(harm_program("loaded_late", {library_path()}), blas_under_test()));
}

TEST_CASE("a fork that is held up - the child computes exactly") {
  const Blas blas = blas_under_test();
  const auto log =
      std::filesystem::temp_directory_path() / ("forksafe-held-up-" + std::to_string(getpid()));
  Command command = with_blas(harm_program("held_up_fork", {}), blas);
  command.environment["FORKSAFE_WAIT_MS"] = "100";
  command.environment["FORKSAFE_LOG"] = log.string();
  const Outcome outcome = must_succeed(with_library(command), "with");
  const std::string said = text_of(log);
  std::filesystem::remove(log);
  INFO("the log: " << said);
  // On its own threads, OpenBLAS's state may be whole although a call goes on.
  if (blas.openmp && outcome.output.find("a call went on") != std::string::npos) {
    CHECK(said.find("one thread") != std::string::npos);
  }
}

TEST_CASE("a chain of 150 forks with calls of one thread in flight") {
  const Command command =
      with_blas(harm_program("chain_of_forks", {"150", "8"}), blas_under_test());
  promised(command);
}

TEST_CASE("the first calls of a child come from three threads at once") {
  Command command = with_blas(harm_program("first_calls_together", {"15", "3"}), blas_under_test());
  // Without the library this works with most builds, but 0.3.28 may crash. So the test does not
  // check that run.
  const Outcome outcome = run(command);
  printf("without: %s\n", outcome.describe().c_str());
  expect_success(command, 15);
}
