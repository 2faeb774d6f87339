// SPDX-License-Identifier: Apache-2.0
// The TLS reset of GNU OpenMP. The tests call its steps around a fork, because the library's
// handlers are not registered in this program.
#include <dlfcn.h>

#include <catch2/catch.hpp>
#include <climits>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>

#include "elf/loaded_objects.h"
#include "options.h"
#include "runtimes/runtime.h"
#include "support.h"

using forksafe::Runtime;

namespace {

constexpr int kThreads = 3;

struct ControlVariables {
  int max_threads, dynamic, schedule_kind, schedule_chunk, max_active_levels, nested;
  int default_device;
  unsigned long default_allocator;

  bool operator==(const ControlVariables& o) const {
    return max_threads == o.max_threads && dynamic == o.dynamic &&
           schedule_kind == o.schedule_kind && schedule_chunk == o.schedule_chunk &&
           max_active_levels == o.max_active_levels && nested == o.nested &&
           default_device == o.default_device && default_allocator == o.default_allocator;
  }
};

struct OpenMp {
  OpenMp() {
    void* handle = load(fixture_path("openmp"));
    count_threads = function_in<int (*)()>(handle, "openmp_count_threads");
    level = function_in<int (*)()>(handle, "openmp_level");
    call_inside = function_in<void (*)(void (*)(void*), void*)>(handle, "openmp_call_inside");
    set_num_threads = function_in<void (*)(int)>(handle, "openmp_set_num_threads");
    get_variables = function_in<void (*)(ControlVariables*)>(handle, "openmp_get_variables");
    set_variables = function_in<void (*)()>(handle, "openmp_set_variables");
  }
  ControlVariables variables() const {
    ControlVariables v = {};
    get_variables(&v);
    return v;
  }

  int (*count_threads)();
  int (*level)();
  void (*call_inside)(void (*)(void*), void*);
  void (*set_num_threads)(int);
  void (*get_variables)(ControlVariables*);
  void (*set_variables)();
};

// One fork as the library does it.
std::string fork_with_steps(const std::function<std::string()>& body) {
  forksafe::each_new_object(nullptr, forksafe::show_to_runtimes);
  forksafe::run_step(&Runtime::seen_all);
  forksafe::run_step(&Runtime::prepare_first);
  forksafe::run_step(&Runtime::prepare_last);
  const std::string outcome = run_in_child([&] {
    errno = 4711;
    forksafe::run_step(&Runtime::child_first);
    forksafe::run_step(&Runtime::child_last);
    return body();
  });
  forksafe::run_step(&Runtime::parent);
  return outcome;
}

std::string is_count(int count) {
  return count == kThreads ? "" : "threads: " + std::to_string(count);
}

// Runs in a thread of its own, so no test sees the pool or the control variables of another one.
void in_new_thread(const std::function<void()>& body) { std::thread(body).join(); }

}  // namespace

TEST_CASE("a child's parallel region hangs without us and has all threads with us",
          "[gnu_openmp]") {
  const OpenMp openmp;
  std::string without, with, again;
  int in_parent = 0;
  in_new_thread([&] {
    openmp.set_num_threads(kThreads);
    openmp.count_threads();
    without = run_in_child([&] { return is_count(openmp.count_threads()); }, 2000);
    with = fork_with_steps([&] {
      const std::string first = is_count(openmp.count_threads());
      return first.empty() ? is_count(openmp.count_threads()) : first;
    });
    again = fork_with_steps([&] { return is_count(openmp.count_threads()); });
    in_parent = openmp.count_threads();
  });
  CHECK(without == "hung");
  CHECK(with == "");
  CHECK(again == "");
  CHECK(in_parent == kThreads);
}

TEST_CASE("a child of a child has all threads", "[gnu_openmp]") {
  const OpenMp openmp;
  std::string outcome;
  in_new_thread([&] {
    openmp.set_num_threads(kThreads);
    openmp.count_threads();
    outcome = fork_with_steps([&] {
      const std::string first = is_count(openmp.count_threads());
      if (!first.empty()) return "child, " + first;
      forksafe::run_step(&Runtime::prepare_first);
      forksafe::run_step(&Runtime::prepare_last);
      return run_in_child([&] {
        forksafe::run_step(&Runtime::child_first);
        forksafe::run_step(&Runtime::child_last);
        return is_count(openmp.count_threads());
      });
    });
  });
  CHECK(outcome == "");
}

TEST_CASE("the control variables of the forking thread survive", "[gnu_openmp]") {
  const OpenMp openmp;
  std::string outcome;
  ControlVariables defaults, before, after;
  in_new_thread([&] {
    defaults = openmp.variables();
    openmp.set_num_threads(kThreads);
    openmp.count_threads();
    openmp.set_variables();
    before = openmp.variables();
    outcome = fork_with_steps(
        [&] { return openmp.variables() == before ? "" : "they are not what they were"; });
    after = openmp.variables();
  });
  // Else the test would show nothing.
  CHECK(before.max_threads == kThreads);
  CHECK(before.dynamic != defaults.dynamic);
  CHECK(before.schedule_kind != defaults.schedule_kind);
  CHECK(before.schedule_chunk != defaults.schedule_chunk);
  CHECK(before.max_active_levels != defaults.max_active_levels);
  CHECK(before.default_device != defaults.default_device);
  CHECK(before.default_allocator != defaults.default_allocator);
  CHECK(outcome == "");
  CHECK(before == after);
}

TEST_CASE("a thread without a pool forks as without the library", "[gnu_openmp]") {
  const OpenMp openmp;
  std::string outcome;
  in_new_thread([&] {
    outcome = fork_with_steps([&]() -> std::string {
      if (errno != 4711) return "errno was changed";
      openmp.set_num_threads(kThreads);
      return is_count(openmp.count_threads());
    });
  });
  CHECK(outcome == "");
}

TEST_CASE("one thread's fork does not touch another thread's pool", "[gnu_openmp]") {
  const OpenMp openmp;
  std::string outcome;
  int before = 0, after = 0;
  in_new_thread([&] {
    openmp.set_num_threads(kThreads);
    before = openmp.count_threads();
    in_new_thread([&] {
      openmp.set_num_threads(kThreads);
      openmp.count_threads();
      outcome = fork_with_steps([&] { return is_count(openmp.count_threads()); });
    });
    after = openmp.count_threads();
  });
  CHECK(before == kThreads);
  CHECK(outcome == "");
  CHECK(after == kThreads);
}

TEST_CASE("a child that is forked inside a region stays inside it", "[gnu_openmp]") {
  const OpenMp openmp;
  struct Fork {
    const OpenMp* openmp;
    std::string outcome;
  } fork = {&openmp, ""};
  int after = 0;
  in_new_thread([&] {
    openmp.set_num_threads(kThreads);
    openmp.count_threads();
    openmp.call_inside(
        [](void* argument) {
          auto* f = static_cast<Fork*>(argument);
          f->outcome = fork_with_steps([f]() -> std::string {
            return f->openmp->level() == 1 ? "" : "level " + std::to_string(f->openmp->level());
          });
        },
        &fork);
    after = openmp.count_threads();
  });
  CHECK(fork.outcome == "");
  CHECK(after == kThreads);
}

TEST_CASE("FORKSAFE_CHILD_THREADS is the number of threads in the child", "[gnu_openmp]") {
  const OpenMp openmp;
  // In a child, since the options are for the whole process.
  CHECK(run_in_child([&]() -> std::string {
          setenv("FORKSAFE_CHILD_THREADS", "2", 1);
          forksafe::init_options();
          openmp.set_num_threads(kThreads);
          openmp.count_threads();
          const std::string outcome = fork_with_steps([&] {
            const int count = openmp.count_threads();
            return count == 2 ? "" : "threads: " + std::to_string(count);
          });
          return outcome.empty() ? is_count(openmp.count_threads()) : outcome;
        }) == "");
}

TEST_CASE("every copy of GNU OpenMP is seen, a renamed one too", "[gnu_openmp]") {
  const OpenMp openmp;
  // As wheels have it: libgomp-a34b3233.so.1.0.0 beside the system's.
  const TemporaryDirectory directory;
  void* set = dlsym(dlopen("libgomp.so.1", RTLD_LAZY | RTLD_NOLOAD), "omp_set_num_threads");
  REQUIRE(set != nullptr);
  const std::string path = directory.file("libgomp-a34b3233.so.1.0.0");
  std::filesystem::copy_file(std::filesystem::canonical(image_at(set).path()), path);

  // In a child: nothing that is loaded here is seen by the other tests.
  const std::string outcome = run_in_child([&]() -> std::string {
    void* copy = load(path);
    using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
    const auto parallel = function_in<Parallel>(copy, "GOMP_parallel");
    const auto count_in_copy = [&] {
      int count = 0;
      parallel([](void* n) { __atomic_fetch_add(static_cast<int*>(n), 1, __ATOMIC_RELAXED); },
               &count, kThreads, 0);
      return count;
    };
    openmp.set_num_threads(kThreads);
    openmp.count_threads();
    if (count_in_copy() != kThreads) return "the copy does not work";
    return fork_with_steps([&]() -> std::string {
      if (!is_count(openmp.count_threads()).empty()) return "the system's does not work";
      return is_count(count_in_copy());
    });
  });
  CHECK(outcome == "");
}

TEST_CASE("no device is looked for in a child", "[gnu_openmp]") {
  // In a child: the copy that is loaded here is not seen by the other tests.
  const std::string outcome = run_in_child([]() -> std::string {
    void* const copy = load(fixture_path("openmp_devices"));
    const auto looks = function_in<int (*)()>(copy, "omp_looks_for_devices");
    const auto get_device = function_in<int (*)()>(copy, "omp_get_default_device");
    const auto set_device = function_in<void (*)(int)>(copy, "omp_set_default_device");
    const auto get_threads = function_in<int (*)()>(copy, "omp_get_max_threads");
    function_in<void (*)(int)>(copy, "omp_set_num_threads")(kThreads);

    const std::string unknown = fork_with_steps([&]() -> std::string {
      if (get_threads() != kThreads) return "the number of threads is lost";
      if (looks() != 0) return "the child has looked for devices";
      if (get_device() != INT_MIN || looks() != 1) return "the program can't look for devices";
      return "";
    });
    if (!unknown.empty()) return unknown;
    set_device(2);
    return fork_with_steps([&]() { return get_device() == 2 ? "" : "the device is lost"; });
  });
  CHECK(outcome == "");
}
